"""Sessions as a client: over a new connection, or over any stream there is."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

import trio
from trio.lowlevel import enable_ki_protection

from ._checks import check_host, check_port, check_ssl_context, check_stream
from ._config import DEFAULT_CONFIG, MuxadoConfig, check_config
from ._ending import CLOSED_HERE
from ._engine import Engine
from ._nursery import open_bare_nursery, raise_unchanged
from ._patience import run_while_running
from ._protocol.budget import ServerBudget
from ._session import MuxadoSession
from ._tcp import connect_checked
from ._transport.closing import close_at_once, is_tls_cut
from ._transport.tls import with_long_reads


def open_muxado_session(
    host: str | bytes,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    config: MuxadoConfig = DEFAULT_CONFIG,
) -> AbstractAsyncContextManager[MuxadoSession]:
    """Connect to a muxado server over TCP, or TLS, and run a session as its client.

    Use it in ``async with``, once.  Leaving the block ends the session gracefully, as
    :meth:`MuxadoSession.aclose` does.  An exception or a cancellation that leaves the block ends it
    at once, and is raised unchanged.

    Args:
      host: a name or an address; a name's addresses are tried as by
        :func:`trio.open_tcp_stream`.
      port: the TCP port.
      ssl_context: speak TLS, and check the server's certificate against ``host`` as the context
        asks for.
      config: choices and limits.  The protocol version is v1 unless ``config.wire`` is ``"v2"``.

    Raises:
      OSError: no connection could be made.
      trio.BrokenResourceError: the TLS handshake failed; its cause is the
        :exc:`ssl.SSLError`.
      trio.TooSlowError: the TLS handshake took longer than ``config.handshake_timeout``.
      TypeError, ValueError: a wrong argument; nothing was connected to.
      RuntimeError: what was returned has been used before.
    """
    check_host(host)
    check_port(port)
    check_ssl_context(ssl_context)
    check_config(config)
    connect = partial(_connect, host, port, ssl_context, config)
    return SessionManager(None, connect=connect, client=True, config=config)


async def _connect(
    host: str | bytes, port: int, ssl_context: ssl.SSLContext | None, config: MuxadoConfig
) -> trio.abc.Stream:
    if ssl_context is None:
        return await connect_checked(host, port)
    hostname = host.decode("ascii") if isinstance(host, bytes) else host
    tcp = await connect_checked(host, port)
    try:
        stream = trio.SSLStream(tcp, with_long_reads(ssl_context), server_hostname=hostname)
        if not await run_while_running(config.handshake_timeout, stream.do_handshake):
            raise trio.TooSlowError("the TLS handshake took too long")
    except BaseException as error:
        await close_at_once(tcp)
        if isinstance(error, trio.BrokenResourceError):
            cause = error.__cause__ or error
            message = f"the TLS handshake with {host!r} failed: {str(cause) or repr(cause)}"
            raise trio.BrokenResourceError(message + tls_hint(cause)) from cause
        raise
    return stream


def tls_hint(cause: BaseException) -> str:
    """What a failed handshake most likely means, where OpenSSL's text does not say it."""
    if getattr(cause, "reason", None) == "WRONG_VERSION_NUMBER":
        return "; the server does not seem to use TLS"
    # The latter where the context has OP_IGNORE_UNEXPECTED_EOF, as with Debian 12's Python.
    if is_tls_cut(cause) or isinstance(cause, ssl.SSLZeroReturnError):
        return "; the server may not use TLS, or it refused this client"
    return ""


def client_session(
    stream: trio.abc.Stream, *, config: MuxadoConfig = DEFAULT_CONFIG
) -> AbstractAsyncContextManager[MuxadoSession]:
    """Run a session as the client over ``stream``, which it owns from then on.

    Use it as :func:`open_muxado_session`.  The stream need not be half-closeable.

    Raises:
      TypeError: a wrong argument; then the stream is still the caller's.
    """
    _check(stream, config)
    return SessionManager(stream, client=True, config=config)


def server_session(
    stream: trio.abc.Stream, *, config: MuxadoConfig = DEFAULT_CONFIG
) -> AbstractAsyncContextManager[MuxadoSession]:
    """Run a session as the server over ``stream``, which it owns from then on.

    Use it as :func:`open_muxado_session`.  With ``wire="auto"`` the protocol version is
    what the client's first bytes show; until they have come no stream can be opened from here.

    Raises:
      TypeError: a wrong argument; then the stream is still the caller's.
    """
    _check(stream, config)
    return SessionManager(stream, client=False, config=config)


def _check(stream: object, config: object) -> None:
    check_stream("stream", stream)
    check_config(config)


_numbers = itertools.count(1)
"""Of the sessions in this process: where many share a tracer or a log, each is known by its own."""


class SessionManager:
    """What runs a session over a transport, which it owns and closes, in ``async with``.

    Where there is none yet, ``connect()`` returns it.  The session's receive windows are out of the
    ``server_budget`` as well, if there is one.
    """

    # No generator with a decorator, for the reason that BareNursery is none.
    __slots__ = (
        "_client",
        "_config",
        "_connect",
        "_engine",
        "_first_stream_timeout",
        "_nursery",
        "_server_budget",
        "_session",
        "_transport",
    )

    def __init__(
        self,
        transport: trio.abc.Stream | None,
        *,
        client: bool,
        config: MuxadoConfig,
        connect: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        first_stream_timeout: float | None = None,
        server_budget: ServerBudget | None = None,
    ) -> None:
        self._transport = transport
        self._connect = connect
        self._client = client
        self._config = config
        self._first_stream_timeout = first_stream_timeout
        self._server_budget = server_budget

    @enable_ki_protection  # as trio's nurseries
    async def __aenter__(self) -> MuxadoSession:
        transport, connect = self._transport, self._connect
        self._transport = self._connect = None
        if transport is None:
            if connect is None:
                raise RuntimeError("a session is for one `async with`: make a new one")
            transport = await connect()
        try:
            engine = self._engine = Engine(
                transport, client=self._client, config=self._config, number=next(_numbers)
            )
            engine.connection.streams.budget.server = self._server_budget
            session = self._session = MuxadoSession(engine, client=self._client)
            if self._first_stream_timeout is not None:
                engine.expect_stream(self._first_stream_timeout)
            self._nursery = await open_bare_nursery().__aenter__()
            try:
                engine.start(self._nursery)  # where it fails, none of the tasks runs yet
            except BaseException as error:
                await self._nursery.__aexit__(None, error, None)
                raise
        except BaseException:  # a transport can be anything that is a stream, and raise anything
            await close_at_once(transport)
            raise
        return session

    @enable_ki_protection
    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> bool | None:
        try:
            failure = await self._end(error)
        except BaseException as raised:
            failure = raised
        await self._nursery.__aexit__(None, failure, None)
        if failure is error:
            return None  # what the body raised goes on
        if failure is not None:
            raise_unchanged(failure)
        return True

    async def _end(self, error: BaseException | None) -> BaseException | None:
        """End the session whose body has raised ``error``, if any; return what is to come out."""
        engine, session = self._engine, self._session
        failure = error
        if failure is None:
            try:
                if not engine.done.is_set():
                    await session.aclose()
                return None
            except BaseException as raised:
                failure = raised
        if engine.ending.over and isinstance(failure, Exception):
            # It is over already, or another task closes it: its last words go out first.
            with suppress(trio.Cancelled):
                await session.aclose()
        else:
            engine.abort(CLOSED_HERE)
        # What crashed comes out itself, not what the body heard of it.
        return None if engine.ending.caused(failure) else failure
