"""Streams for requests: opened when needed, and kept for a while for later requests."""

from __future__ import annotations

import math
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeAlias

import httpx
import trio

from .. import MuxadoStream
from ._backend import NetworkStream, Opener, tls_on
from ._errors import translated
from ._http1 import HTTP1
from ._http2 import HTTP2

Origin: TypeAlias = tuple[bytes, bytes, int | None]
"""Scheme, host and port of the requests that an idle stream can be reused for."""

Timeouts: TypeAlias = dict[str, "float | None"]


class Connection:
    """A stream, TLS on it if the origin is ``https``, and HTTP on that."""

    def __init__(
        self, origin: Origin, stream: MuxadoStream, tls: trio.SSLStream[MuxadoStream] | None
    ) -> None:
        self.origin = origin
        self.stream = stream
        self.tls = tls
        self.http: HTTP1 | HTTP2

    def speak(self, http: type[HTTP1] | type[HTTP2]) -> None:
        """Choose the version of HTTP."""
        self.http = http(self.tls or self.stream, self.stream.is_readable)

    def network_stream(self, leading: bytes = b"") -> NetworkStream:
        """The value of httpx's extension ``network_stream``."""
        return NetworkStream(self.stream, self.tls, leading)


class _Waiter:
    """A request that waits for a new stream, or for one that becomes idle."""

    def __init__(self, timeout: float | None) -> None:
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        self.scope = trio.CancelScope(deadline=deadline)
        self.given: Connection | None = None


class Pool:
    """At most ``max_streams`` streams, of which ``max_idle`` are kept for ``expiry`` seconds.

    No step looks at more than one request and one stream.  A waiting request gets a stream that
    becomes free, whether or not the session has a slot for another.  Idle streams yield to any
    task that waits for a slot of the session (:attr:`MuxadoStream.idle`).
    """

    def __init__(
        self,
        opener: Opener,
        *,
        max_streams: int | None,
        max_idle: int | None,
        expiry: float | None,
        ssl_context: ssl.SSLContext | None,
        http2: bool,
    ) -> None:
        self._opener = opener
        self._max_streams = math.inf if max_streams is None else max_streams
        self._slots = None if max_streams is None else trio.Semaphore(max_streams)
        self._max_idle = math.inf if max_idle is None else max_idle
        self._expiry = math.inf if expiry is None else expiry
        self._ssl_context = ssl_context
        self._http2 = http2
        self._busy: set[Connection] = set()
        self._opening = 0
        self._idle: dict[Connection, float] = {}  # with its expiry; the longest idle first
        self._idle_of: dict[Origin, dict[Connection, None]] = {}
        self._waiting: dict[Origin, dict[_Waiter, None]] = {}

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"{len(self._busy)} busy, {len(self._idle)} idle, {waiting} waiting"

    # ---- a request begins

    async def acquire(self, origin: Origin, timeouts: Timeouts) -> Connection:
        """A connection for one request; ``release`` it, or ``discard`` it."""
        if self._slots is not None:
            try:
                self._slots.acquire_nowait()
            except trio.WouldBlock:
                await self._wait_for_slot(self._slots, timeouts.get("pool"))
        try:
            await self._drop_expired()
            connection = self._take_idle(origin)
            if connection is None:
                with self._counted():
                    connection = await self._open(origin, timeouts)
        except BaseException:
            self._free_slot()
            raise
        self._busy.add(connection)
        return connection

    async def _wait_for_slot(self, slots: trio.Semaphore, timeout: float | None) -> None:
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            await slots.acquire()
        if scope.cancelled_caught:
            raise httpx.PoolTimeout(f"no stream became free within {timeout} seconds")

    def _free_slot(self) -> None:
        if self._slots is not None:
            self._slots.release()

    @contextmanager
    def _counted(self) -> Generator[None, None, None]:
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    def _take_idle(self, origin: Origin) -> Connection | None:
        of_origin = self._idle_of.get(origin)
        while of_origin:
            connection, _ = of_origin.popitem()
            self._remove_idle(connection)
            if not connection.stream.is_readable():  # it has not ended, nor received anything
                return connection
        return None

    def _remove_idle(self, connection: Connection) -> None:
        del self._idle[connection]
        connection.stream.idle = False
        of_origin = self._idle_of[connection.origin]
        of_origin.pop(connection, None)
        if not of_origin:
            del self._idle_of[connection.origin]

    async def _open(self, origin: Origin, timeouts: Timeouts) -> Connection:
        if self._idle and len(self._busy) + self._opening + len(self._idle) > self._max_streams:
            await self._drop(next(iter(self._idle)))
        waiter = _Waiter(timeouts.get("connect"))
        waiting = self._waiting.setdefault(origin, {})
        waiting[waiter] = None
        stream: MuxadoStream | None = None
        try:
            with waiter.scope, translated(None, httpx.ConnectTimeout, httpx.ConnectError):
                stream = await self._opener.open_stream()
        except BaseException:
            if waiter.given is not None:
                await self._keep(waiter.given)
            raise
        finally:
            waiting.pop(waiter, None)
            if not waiting:
                self._waiting.pop(origin, None)
        given = waiter.given
        if stream is None:
            if given is None:
                timeout = timeouts.get("connect")
                raise httpx.ConnectTimeout(f"no stream could be opened within {timeout} seconds")
            return given
        if given is not None:
            await self._keep(given)  # both came at the same moment
        try:
            return await self._connect(origin, stream, timeouts)
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.reset()
            raise

    async def _connect(
        self, origin: Origin, stream: MuxadoStream, timeouts: Timeouts
    ) -> Connection:
        tls: trio.SSLStream[MuxadoStream] | None = None
        http: type[HTTP1] | type[HTTP2] = HTTP2 if self._http2 else HTTP1
        if origin[0] == b"https":
            if self._ssl_context is None:
                self._ssl_context = httpx.create_ssl_context()
            self._ssl_context.set_alpn_protocols(["h2" if self._http2 else "http/1.1"])
            host = origin[1].decode()
            with translated(timeouts.get("connect"), httpx.ConnectTimeout, httpx.ConnectError):
                tls = await tls_on(stream, self._ssl_context, host)
            agreed = tls.selected_alpn_protocol()
            if self._http2 and agreed != "h2":
                raise httpx.ConnectError(f"{host} does not speak HTTP/2: ALPN says {agreed!r}")
        connection = Connection(origin, stream, tls)
        connection.speak(http)
        return connection

    # ---- a request ends

    async def release(self, connection: Connection) -> None:
        """A request is done: its connection can be reused.  A second call does nothing."""
        if connection not in self._busy:
            return
        if not connection.http.reusable:
            await self.discard(connection)
            return
        self._busy.discard(connection)
        self._free_slot()
        await self._keep(connection)

    async def _keep(self, connection: Connection) -> None:
        """Give a connection to a waiting request, or keep it for a later one."""
        stream = connection.stream
        if not stream.is_readable():
            waiting = self._waiting.get(connection.origin, {})
            for waiter in waiting:
                del waiting[waiter]
                waiter.given = connection
                waiter.scope.cancel()
                return
            self._idle[connection] = trio.current_time() + self._expiry
            self._idle_of.setdefault(connection.origin, {})[connection] = None
            stream.idle = True  # if a task waits for a slot, this closes it at once
            if not stream.is_readable():
                if len(self._idle) > self._max_idle:
                    await self._drop(next(iter(self._idle)))
                return
            self._remove_idle(connection)
        await _close(connection)

    async def discard(self, connection: Connection) -> None:
        """Close a connection in whatever state it is.  A second call does nothing."""
        if connection in self._busy:
            self._busy.discard(connection)
            self._free_slot()
            with trio.CancelScope(shield=True):
                if connection.http.complete:
                    await connection.stream.aclose()
                else:
                    await connection.stream.reset()

    async def _drop_expired(self) -> None:
        now = trio.current_time()
        while self._idle:
            connection, expires = next(iter(self._idle.items()))
            if now < expires and not connection.stream.is_readable():
                return
            await self._drop(connection)

    async def _drop(self, connection: Connection) -> None:
        self._remove_idle(connection)
        await _close(connection)

    async def close(self) -> None:
        """Close all connections, including those of running requests."""
        for connection in list(self._idle):
            await self._drop(connection)
        for connection in list(self._busy):
            await self.discard(connection)


async def _close(connection: Connection) -> None:
    with trio.CancelScope(shield=True):
        await connection.stream.aclose()
