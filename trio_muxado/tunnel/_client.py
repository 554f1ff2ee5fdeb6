"""The other way through a relay: from a local port to a tunnel, or to a target beyond it."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from .. import (
    Backoff,
    DialLoss,
    Heartbeat,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionPool,
    break_stream,
    dial_muxado,
    forward,
)
from ._agent import checked_token, say_hello, wait_until_ended
from ._checks import check_dialling, check_task_status
from ._config import check_seconds, session_config
from ._control import receive_message
from ._errors import TunnelRefusedError
from ._messages import Hello, MessageError, Opened, Refused, Target, encode
from ._names import check_address, check_name, check_port, checked_target
from ._nursery import open_nursery

logger = logging.getLogger("trio_muxado.tunnel")

EXPECTED = (
    TunnelRefusedError,
    MuxadoError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    OSError,
)
"""What keeps a local connection from its target."""

PATIENCE = 30.0
"""Seconds that a local connection waits for the relay, and for its target."""


async def forward_port(
    target: str,
    host: str,
    port: int,
    *,
    token: str,
    local_port: int = 0,
    local_host: str = "127.0.0.1",
    ssl_context: ssl.SSLContext | None = None,
    heartbeat: Heartbeat | None = None,
    backoff: Backoff = Backoff(),  # noqa: B008  (it is immutable)
    idle_timeout: float = 600.0,
    stop: trio.Event | None = None,
    on_state: Callable[[str, DialLoss | None], Any] | None = None,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on a local port, and connect each client to a target behind a relay.

    Args:
      target: the name of a tunnel, or HOST:PORT of what the relay itself can reach.  The token has
        to allow it, and a HOST:PORT the relay too.
      host, port: where the relay listens for agents.
      token: the secret of a token that the relay knows.
      local_port, local_host: where to listen; port 0 takes a free one.
      ssl_context: speak TLS to the relay.
      heartbeat: how the session notices that the relay has disappeared.
      backoff: how long to wait before each further attempt to reach the relay.
      idle_timeout: seconds without data after which a connection is broken.
      stop: once it is set, nothing more is accepted, open connections finish, and the function
        returns.
      on_state: as in :func:`~trio_muxado.dial_muxado`.
      task_status: ``await nursery.start(...)`` returns where it listens, host and port.

    Raises:
      OSError: the local port could not be bound.
      TunnelRefusedError: the relay refuses the token.
      TypeError, ValueError: a wrong argument; nothing listens then.
    """
    target = checked_target("target", target, check_name)
    check_port("local_port", local_port, least=0)
    check_address("local_host", local_host)
    check_seconds("idle_timeout", idle_timeout)
    check_dialling(
        host,
        port,
        ssl_context=ssl_context,
        heartbeat=heartbeat,
        backoff=backoff,
        stop=stop,
        on_state=on_state,
    )
    check_task_status(task_status)
    hello = Hello(checked_token(token), "a client")
    listeners = await trio.open_tcp_listeners(local_port, host=local_host)
    pool = SessionPool()
    client = _Client(target, pool, hello, idle_timeout)
    async with open_nursery() as nursery:
        nursery.start_soon(
            partial(
                dial_muxado,
                client.handle_session,
                host,
                port,
                ssl_context=ssl_context,
                config=session_config(heartbeat),
                backoff=backoff,
                stop=stop,
                on_state=on_state,
            )
        )
        # The connections outlive the session's drain: what has come is still to be passed on.
        async with open_nursery() as connections, open_nursery() as accepting:
            accept = partial(trio.serve_listeners, handler_nursery=connections)
            accepting.start_soon(accept, client.handle_connection, listeners)
            host, port, *_ = listeners[0].socket.getsockname()
            task_status.started((host, port))
            await (trio.Event() if stop is None else stop).wait()
            pool.close()
            accepting.cancel_scope.cancel()


async def open_target(stream: MuxadoStream, target: str) -> None:
    """Say on a new stream where it is to go, and wait until it is there.

    Raises:
      TunnelRefusedError: the relay refuses.
      MuxadoError: the stream has ended.
    """
    await stream.send_all(encode(Target(target)))
    try:
        answer = await receive_message(stream)
    except MessageError as error:
        raise TunnelRefusedError("message", f"this is not a relay: {error}") from None
    if isinstance(answer, Refused):
        raise TunnelRefusedError(answer.reason, answer.text)
    if not isinstance(answer, Opened):
        raise TunnelRefusedError("message", "this is not a relay: it answers something else")


class _Client:
    """What one call of :func:`forward_port` does with sessions and connections."""

    def __init__(self, target: str, pool: SessionPool, hello: Hello, idle_timeout: float) -> None:
        self._target = target
        self._pool = pool
        self._hello = hello
        self._idle_timeout = idle_timeout

    async def handle_session(self, session: MuxadoSession) -> None:
        """Show the token, and open streams on the session while it lives."""
        try:
            control, _ = await say_hello(session, self._hello)
        except TunnelRefusedError as refusal:
            if refusal.is_final:
                raise
            logger.warning("the relay refuses: %s", refusal)
            await wait_until_ended(session)
            return
        try:
            await control.aclose()  # only an agent has to be found
            await self._pool.hold(session)
        finally:
            with suppress(MuxadoError):
                await control.aclose()

    async def handle_connection(self, tcp: trio.SocketStream) -> None:
        """Join a local connection to the target."""
        try:
            await self._join(tcp)
        except EXPECTED as error:
            logger.warning("no connection to %s: %s", self._target, error)
        except Exception:
            logger.exception("a connection to %s failed", self._target)
        finally:
            if tcp.socket.fileno() >= 0:
                await break_stream(tcp)

    async def _join(self, tcp: trio.SocketStream) -> None:
        with trio.fail_after(PATIENCE):
            stream = await self._pool.open_stream()
            try:
                await open_target(stream, self._target)
            except BaseException:
                await stream.reset()
                raise
        await forward(tcp, stream, idle_timeout=self._idle_timeout)
