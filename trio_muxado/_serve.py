"""Serving sessions: whatever a peer does ends its session, never the server."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import trio

from ._checks import (
    check_function,
    check_hook,
    check_host,
    check_instance,
    check_port,
    check_ssl_context,
    check_stop,
    check_task_status,
)
from ._config import DEFAULT_CONFIG, MuxadoConfig, check_config
from ._protocol.checks import check_int, shown
from ._server import Server, SessionHook, check_limits
from ._session import MuxadoSession
from ._tcp import listen_tcp
from ._transport.tls import with_long_reads

ListenerT = TypeVar("ListenerT", bound="trio.abc.Listener[Any]")


async def serve_muxado(
    handle_session: Callable[[MuxadoSession], Awaitable[Any]],
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    config: MuxadoConfig = DEFAULT_CONFIG,
    stop: trio.Event | None = None,
    stop_timeout: float | None = None,
    on_session: SessionHook | None = None,
    max_sessions: int | None = None,
    first_stream_timeout: float | None = None,
    receive_budget: int | None = None,
    task_status: trio.TaskStatus[
        list[trio.SocketListener] | list[trio.SSLListener[trio.SocketStream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on a TCP port and run ``handle_session(session)`` for every client.

    Serves until it is cancelled, or stopped gracefully by ``stop``.  Each handler runs in a task of
    its own, and its session ends when it returns.  Clients of both protocol versions are served on
    the one port, unless ``config.wire`` names one.

    Args:
      port: the TCP port; 0 takes a free one, the same for all addresses: see ``task_status``.
      host: the address to bind to; None is all of this machine's.
      backlog: connections that may wait for the system to accept them, as in
        :func:`trio.open_tcp_listeners`.
      ssl_context: speak TLS, with the certificate of the context.
      config: choices and limits of every session.
      stop: once it is set, connections already queued are accepted, for a second at most, and then
        no more.  Every session is drained (see :meth:`MuxadoSession.drain`) and closed, and the
        function returns when the last handler has.  A client that has sent nothing yet, or is in
        its TLS handshake, gets one more second.  No request that was accepted is lost.
      stop_timeout: seconds that handlers may go on after ``stop``; those that still run then are
        cancelled.  None sets no bound.
      on_session: called as ``on_session(session, None)`` before each handler begins, and as
        ``on_session(session, reason)`` with the :class:`CloseReason` when that session is over.
        It must not wait, and what it raises is raised here.
      max_sessions: how many clients may be connected at once.  Further ones are disconnected at
        once, with at most one log line a second.  None sets no bound.
      first_stream_timeout: seconds in which a client must have opened its first stream, else its
        session is ended.  Heartbeats don't count.  None sets no bound.
      receive_budget: bytes that the receive windows of all sessions may have together.  Streams
        beyond it are refused, which is safe to retry, but for the first two of a session.  None
        sets no bound: each session has its own ``config.receive_budget``.
      task_status: ``await nursery.start(serve_muxado, handler, port)`` returns the listeners
        once they listen.

    A peer that breaks the protocol, or is gone, ends its own session.  What the session's methods
    raise then ends the handler and nothing else.  Any other error of a handler is raised here
    unchanged, and ends the server.  So does the :exc:`StreamClosedError` of a stream that had not
    broken, since the handler itself has closed it.

    Raises:
      OSError: the port could not be bound.
      TypeError, ValueError: a wrong argument; nothing listens then.
    """
    check_port(port, least=0)
    if host is not None:
        check_host(host)
    if backlog is not None:
        check_int("backlog", backlog, 0)
    check_ssl_context(ssl_context, server=True)
    _check(handle_session, config, stop, on_session, task_status)
    check_limits(stop_timeout, max_sessions, first_stream_timeout, receive_budget)
    tcp_listeners = await listen_tcp(port, host=host, backlog=backlog)
    if ssl_context is None:
        await serve_muxado_listeners(
            handle_session,
            tcp_listeners,
            config=config,
            stop=stop,
            stop_timeout=stop_timeout,
            on_session=on_session,
            max_sessions=max_sessions,
            first_stream_timeout=first_stream_timeout,
            receive_budget=receive_budget,
            task_status=task_status,
        )
    else:
        context = with_long_reads(ssl_context)
        await serve_muxado_listeners(
            handle_session,
            [trio.SSLListener(listener, context) for listener in tcp_listeners],
            config=config,
            stop=stop,
            stop_timeout=stop_timeout,
            on_session=on_session,
            max_sessions=max_sessions,
            first_stream_timeout=first_stream_timeout,
            receive_budget=receive_budget,
            task_status=task_status,
        )


async def serve_muxado_listeners(
    handle_session: Callable[[MuxadoSession], Awaitable[Any]],
    listeners: Sequence[ListenerT],
    *,
    config: MuxadoConfig = DEFAULT_CONFIG,
    stop: trio.Event | None = None,
    stop_timeout: float | None = None,
    on_session: SessionHook | None = None,
    max_sessions: int | None = None,
    first_stream_timeout: float | None = None,
    receive_budget: int | None = None,
    task_status: trio.TaskStatus[list[ListenerT]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Like :func:`serve_muxado`, for existing listeners of any kind.

    Their connections can be any :class:`trio.abc.Stream`.  The listeners are closed at the end,
    unless an argument is wrong.
    """
    if not isinstance(listeners, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"listeners must be trio.abc.Listeners, not {shown(listeners)}")
    listeners = list(listeners)
    if not listeners:
        raise ValueError("listeners must not be empty: nothing would be served")
    for listener in listeners:
        check_instance("listeners", listener, trio.abc.Listener, "trio.abc.Listeners")
    _check(handle_session, config, stop, on_session, task_status)
    check_limits(stop_timeout, max_sessions, first_stream_timeout, receive_budget)
    server = Server(
        handle_session,
        config=config,
        stop=stop,
        stop_timeout=stop_timeout,
        on_session=on_session,
        max_sessions=max_sessions,
        first_stream_timeout=first_stream_timeout,
        receive_budget=receive_budget,
    )
    await server.run(listeners, task_status)


def _check(
    handle_session: object, config: object, stop: object, on_session: object, task_status: object
) -> None:
    check_function("handle_session", handle_session)
    check_config(config)
    check_stop(stop)
    if on_session is not None:
        check_hook("on_session", on_session)
    check_task_status(task_status)
