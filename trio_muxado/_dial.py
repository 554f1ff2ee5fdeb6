"""Dialling: a client that comes back, as often as its server goes away."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeAlias

import trio

from ._backoff import Backoff
from ._blame import is_end_of_session
from ._checks import (
    check_awaitable,
    check_function,
    check_hook,
    check_host,
    check_instance,
    check_port,
    check_ssl_context,
    check_stop,
    check_stream,
    check_task_status,
)
from ._config import DEFAULT_CONFIG, MuxadoConfig, check_config
from ._connect import client_session, tls_hint
from ._dial_loss import (
    HOPELESS,
    DialLoss,
    LossKind,
    Lost,
    SessionEnd,
    first_cause,
    is_about_a_certificate,
    is_of_connection,
)
from ._errors import MuxadoError
from ._nursery import leaves, open_bare_nursery, without_cancelled
from ._patience import connect_while_running, run_while_running
from ._session import MuxadoSession, engine_of
from ._tcp import connect_tcp
from ._transport.closing import close_at_once
from ._transport.tls import with_long_reads

logger = logging.getLogger("trio_muxado")

DialState: TypeAlias = Literal["connecting", "connected", "lost"]
"""What ``dial_muxado`` is at."""

StateHook: TypeAlias = Callable[[DialState, "DialLoss | None"], object]


async def dial_muxado(
    handle_session: Callable[[MuxadoSession], Awaitable[Any]],
    host: str | bytes,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    config: MuxadoConfig = DEFAULT_CONFIG,
    connect: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    backoff: Backoff = Backoff(),  # noqa: B008  (it is immutable)
    stop: trio.Event | None = None,
    on_state: StateHook | None = None,
    task_status: trio.TaskStatus[MuxadoSession | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep one session to a server alive: the counterpart of :func:`serve_muxado`.

    Connects, runs ``handle_session(session)``, and connects again when the session was lost, until
    the handler is done, ``stop`` is set, or it is cancelled.  There is one session at a time.

    What becomes of it when the handler ends:

    * It returns while the session lives: the session is closed, and the function returns.
    * It returns once the session has ended, as ``session.serve_streams(...)`` and
      ``session.wait_closed()`` do: the session was lost.
    * It raises what the end of its session raises: the session was lost.
    * It raises anything else, or an error of another session: that is raised unchanged.

    Args:
      host: a name or an address, as in :func:`open_muxado_session`; with TLS the server's
        certificate has to be for it.
      port: the TCP port.
      ssl_context: speak TLS.
      config: choices and limits of every session.  ``config.handshake_timeout`` bounds connecting,
        and the TLS handshake after it.
      connect: ``await connect()`` gives the stream to use in place of a TCP connection to
        ``host`` and ``port``: ``partial(trio.open_unix_socket, path)``, or one through a proxy.
      backoff: how long to wait before each further attempt.  It starts over with the first pause
        once a session has lived for ``backoff.longest``.  A refused certificate, and a peer that
        does not speak muxado, are tried again after ``backoff.longest``.
      stop: once it is set, nothing is dialled any more, a live session is drained (see
        :meth:`MuxadoSession.drain`) and closed, and the function returns when the handler has.  Put
        a deadline around it with :func:`trio.move_on_after`.
      on_state: called as ``on_state("connecting", None)`` before each attempt,
        ``on_state("connected", None)`` once its session runs, and ``on_state("lost", loss)`` with a
        :class:`DialLoss` before each pause.  It must not wait, and what it raises is raised.
      task_status: ``await nursery.start(dial_muxado, handler, host, port)`` returns the first
        session, or None where ``stop`` comes first.

    Raises:
      TypeError, ValueError: an argument cannot be used; nothing has been dialled then.
    """
    check_function("handle_session", handle_session)
    check_ssl_context(ssl_context)
    if connect is None or ssl_context is not None:
        check_host(host)
    else:
        check_instance("host", host, (str, bytes), "a str or bytes")
    if connect is None:
        check_port(port)
    else:
        check_function("connect", connect)
        check_port(port, least=0)  # nobody looks at it
    check_config(config)
    check_instance("backoff", backoff, Backoff, "a Backoff")
    check_stop(stop)
    if on_state is not None:
        check_hook("on_state", on_state)
    check_task_status(task_status)
    dialler = _Dialler(
        handle_session,
        partial(connect_tcp, host, port) if connect is None else connect,
        host=host,
        ssl_context=ssl_context,
        config=config,
        backoff=backoff,
        stop=stop,
        on_state=on_state,
        task_status=task_status,
    )
    async with open_bare_nursery() as nursery:
        if stop is not None:
            nursery.start_soon(dialler.end_when, stop)
        await dialler.run()
        nursery.cancel()
    dialler.started(None)


class _Dialler:
    """One attempt after the other.

    ``run`` goes connecting -> connected -> lost -> connecting, and leaves by the end of the handler
    or by ``stop``.
    """

    def __init__(
        self,
        handle_session: Callable[[MuxadoSession], Awaitable[Any]],
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        *,
        host: str | bytes,
        ssl_context: ssl.SSLContext | None,
        config: MuxadoConfig,
        backoff: Backoff,
        stop: trio.Event | None,
        on_state: StateHook | None,
        task_status: trio.TaskStatus[MuxadoSession | None],
    ) -> None:
        self._handle_session = handle_session
        self._connect = connect
        self._host = host
        self._ssl_context = ssl_context
        self._config = config
        self._backoff = backoff
        self._stop = stop
        self._on_state = on_state
        self._task_status = task_status
        self._has_started = False
        self._between = trio.CancelScope()  # while there is no session
        self._session: MuxadoSession | None = None
        self._lived = 0.0

    def started(self, session: MuxadoSession | None) -> None:
        if not self._has_started:
            self._has_started = True
            self._task_status.started(session)

    def _is_stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    async def end_when(self, stop: trio.Event) -> None:
        await stop.wait()
        self._between.cancel()
        session = self._session
        if session is not None:
            with suppress(MuxadoError):  # when it breaks, the handler hears that by itself
                await session.drain()
            await session.aclose()

    async def run(self) -> None:
        failures = 0
        while not self._is_stopped():
            self._tell("connecting")
            self._lived = 0.0
            try:
                await self._attempt()
                return
            except Lost as lost:
                failures = 1 if self._lived >= self._backoff.longest else failures + 1
                if self._is_stopped():
                    return
                hopeless = lost.kind in HOPELESS
                pause = self._backoff.longest_pause() if hopeless else self._backoff.pause(failures)
                self._tell("lost", lost.before(pause))
            with self._unless_stopped():
                await trio.sleep(pause)

    def _tell(self, state: DialState, loss: DialLoss | None = None) -> None:
        if loss is not None:
            logger.info("dialling again in %.1f s: %s", loss.pause, loss.message)
        if self._on_state is not None:
            self._on_state(state, loss)

    def _unless_stopped(self) -> trio.CancelScope:
        self._between = trio.CancelScope()
        if self._is_stopped():
            self._between.cancel()
        return self._between

    # ---- an attempt: it raises Lost, or returns when there is nothing left to do

    async def _attempt(self) -> None:
        stream: trio.abc.Stream | None = None
        with self._unless_stopped():
            stream = await self._open_transport()
        if stream is None:
            return  # stopped
        began = trio.current_time()
        session: MuxadoSession | None = None
        end = SessionEnd()
        try:
            async with client_session(stream, config=self._config) as session:
                if self._is_stopped():
                    return
                self._session = session
                self._tell("connected")
                self.started(session)
                try:
                    handler = self._handle_session
                    await check_awaitable("handle_session", handler, handler(session))
                finally:
                    end.look_at(session)  # before this side closes it
        except BaseException as error:
            end.error = without_cancelled(error)
            if session is None or end.error is None or not self._is_of(session, end):
                raise
        finally:
            self._session = None
            self._lived = trio.current_time() - began
        if not self._is_stopped() and (end.was_lost or end.error is not None):
            raise end.as_loss(session)

    async def _connect_once(self) -> trio.abc.Stream:
        connect = self._connect
        stream: trio.abc.Stream = await check_awaitable("connect", connect, connect())
        check_stream("what connect returns", stream)
        return stream

    async def _open_transport(self) -> trio.abc.Stream:
        patience = self._config.handshake_timeout
        try:
            stream = await connect_while_running(patience, self._connect_once)
        except trio.TooSlowError as error:
            raise Lost("unreachable", f"no connection within {patience} s", error) from None
        except Exception as error:
            if not is_of_connection(error):
                raise
            raise Lost("unreachable", f"no connection: {first_cause(error)}", error) from None
        if self._ssl_context is None:
            return stream
        try:
            tls: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
                stream, with_long_reads(self._ssl_context), server_hostname=self._host
            )
            if not await run_while_running(patience, tls.do_handshake):
                raise trio.TooSlowError("the TLS handshake took too long")
        except BaseException as error:
            await close_at_once(stream)
            if isinstance(error, trio.TooSlowError):
                message = f"the TLS handshake took longer than {patience} s"
                raise Lost("tls", message, error) from None
            if isinstance(error, Exception) and is_of_connection(error):
                error = next(leaves(error))
                kind: LossKind = "certificate" if is_about_a_certificate(error) else "tls"
                cause = error.__cause__ or error
                message = f"the TLS handshake failed: {cause}{tls_hint(cause)}"
                raise Lost(kind, message, error) from None
            raise
        return tls

    def _is_of(self, session: MuxadoSession, end: SessionEnd) -> bool:
        """Whether what was raised says nothing but that the handler's session ended, or ends."""
        assert end.error is not None
        if not is_end_of_session(end.error, engine_of(session).ending):
            return False
        # Where the peer is only going away: it has refused what it was not to begin with.
        return self._is_stopped() or end.was_lost or end.was_refused
