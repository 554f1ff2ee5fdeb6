"""Serving sessions: whatever a peer does ends its session, never the server."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import trio

from ._blame import is_end_of_session
from ._config import DEFAULT_CONFIG, MuxadoConfig
from ._connect import server_session
from ._errors import CloseReason, MuxadoError, StreamResetError
from ._nursery import leaves, open_bare_nursery, without_cancelled
from ._session import MuxadoSession

logger = logging.getLogger("trio_muxado")

DETECTION_GRACE = 1.0
"""Seconds in which a client that has said nothing yet may still be heard when the server is asked
to stop: a request that is on its way needs half a round trip, or a little more if it was lost."""

ACCEPTING_TURNS = 5
"""Turns of trio's loop without a new connection, after which none waits to be accepted: a listener
needs one to wake, one for each connection, and the task that handles it one to begin."""

SessionHook: TypeAlias = Callable[[MuxadoSession, "CloseReason | None"], object]

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
    on_session: SessionHook | None = None,
    task_status: trio.TaskStatus[
        list[trio.SocketListener] | list[trio.SSLListener[trio.SocketStream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on a TCP port and run ``handle_session(session)`` for every client.

    Serves until it is cancelled, or stopped gently by ``stop``.  Each handler runs in a task of
    its own, and its session ends when it returns.  Clients of both generations are served on the
    one port, unless ``config.wire`` names one.

    Args:
      port: the TCP port; 0 takes a free one, see ``task_status``.
      host: the address to bind to; None is all of this machine's.
      backlog: connections that may wait for the system to accept them, as in
        :func:`trio.open_tcp_listeners`.
      ssl_context: speak TLS, with the certificate of the context.
      config: choices and limits of every session.
      stop: once it is set, no connection is accepted any more, every session is drained (see
        :meth:`MuxadoSession.drain`) and closed, and the function returns when the last handler
        has.  A client that has said nothing yet is heard for one more second.  No request that
        was taken is lost; put a deadline around it with :func:`trio.move_on_after`.
      on_session: called as ``on_session(session, None)`` before each handler begins, and as
        ``on_session(session, reason)`` with the :class:`CloseReason` when that session is over.
        It must not wait, and what it raises is raised here.
      task_status: ``await nursery.start(serve_muxado, handler, port)`` returns the listeners
        once they listen.

    A peer that breaks the protocol, or is gone, ends its own session: what the session's methods
    raise then ends the handler and nothing else.  Any other error of a handler is raised here,
    as it is, and ends the server; so is the :exc:`StreamClosedError` of a stream that had not
    broken, since the handler itself has closed it.

    Raises:
      OSError: the port could not be bound.
    """
    tcp_listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    if ssl_context is None:
        await serve_muxado_listeners(
            handle_session,
            tcp_listeners,
            config=config,
            stop=stop,
            on_session=on_session,
            task_status=task_status,
        )
    else:
        await serve_muxado_listeners(
            handle_session,
            [trio.SSLListener(listener, ssl_context) for listener in tcp_listeners],
            config=config,
            stop=stop,
            on_session=on_session,
            task_status=task_status,
        )


async def serve_muxado_listeners(
    handle_session: Callable[[MuxadoSession], Awaitable[Any]],
    listeners: Sequence[ListenerT],
    *,
    config: MuxadoConfig = DEFAULT_CONFIG,
    stop: trio.Event | None = None,
    on_session: SessionHook | None = None,
    task_status: trio.TaskStatus[list[ListenerT]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Like :func:`serve_muxado`, for listeners that are there already, of any kind.

    Their connections are any :class:`trio.abc.Stream`.  The listeners are closed at the end.
    """
    async with open_bare_nursery() as nursery:
        accepted = 0

        async def handle(stream: trio.abc.Stream) -> None:
            nonlocal accepted
            accepted += 1
            await nursery.guard(
                _handle_connection, handle_session, stream, config, stop, on_session
            )

        async def stop_listening(stop: trio.Event) -> None:
            await stop.wait()
            # A listener that closes resets what waits in it, with the request that came along.
            before = -1
            while before < accepted:
                before = accepted
                for _ in range(ACCEPTING_TURNS):
                    await trio.lowlevel.checkpoint()
            listening.cancel()

        with trio.CancelScope() as listening:
            if stop is not None:
                nursery.start_soon(stop_listening, stop)
            try:
                await trio.serve_listeners(
                    handle, list(listeners), handler_nursery=nursery.inner, task_status=task_status
                )
            except BaseException as error:
                # What a listener raised is in the group that trio's own nursery makes of it.
                (failure, *others) = leaves(error)
                if others:
                    raise
            raise failure


async def _handle_connection(
    handle_session: Callable[[MuxadoSession], Awaitable[Any]],
    stream: trio.abc.Stream,
    config: MuxadoConfig,
    stop: trio.Event | None,
    on_session: SessionHook | None,
) -> None:
    if not await _shake_hands(stream, config):
        return
    session: MuxadoSession | None = None
    try:
        async with server_session(stream, config=config) as session:
            if on_session is not None:
                on_session(session, None)
            if stop is None:
                await handle_session(session)
            else:
                async with open_bare_nursery() as nursery:
                    draining = trio.CancelScope()
                    nursery.start_soon(_drain_when, stop, session, draining)
                    await handle_session(session)
                    draining.cancel()
    except BaseException as error:
        rest = without_cancelled(error)  # the server may be stopped in the same moment
        if rest is None or session is None or not is_end_of_session(rest, session._engine.ending):
            raise
        # What its session's end did is told where that is.
        if any(isinstance(leaf, StreamResetError) for leaf in leaves(rest)):
            logger.debug("the handler of %r ended with a stream: %r", session, error)
    finally:
        if session is not None and on_session is not None:
            on_session(session, session.close_reason)


async def _drain_when(stop: trio.Event, session: MuxadoSession, draining: trio.CancelScope) -> None:
    with draining:
        await stop.wait()
        # Before a client's first bytes nothing can be said to it, and they may be here already.
        with trio.move_on_after(DETECTION_GRACE):
            await session._engine.wire_known.wait()
        if session.wire is not None:
            with suppress(MuxadoError):  # when it breaks, the handler learns that by itself
                await session.drain()
    # Outside: a handler that has done must not cut short the last words of its session.
    await session.aclose()


async def _shake_hands(stream: trio.abc.Stream, config: MuxadoConfig) -> bool:
    """TLS only: a client that never finishes its handshake must not keep a task for ever."""
    do_handshake = getattr(stream, "do_handshake", None)
    if do_handshake is None:
        return True
    try:
        with trio.fail_after(config.handshake_timeout):
            await do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError, OSError) as error:
        logger.info("the TLS handshake over %r failed: %r", stream, error.__cause__ or error)
        await trio.aclose_forcefully(stream)
        return False
    return True
