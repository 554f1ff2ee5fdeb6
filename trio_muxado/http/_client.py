"""The client: httpx, with a stream for each running request."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import trio

from ._backend import Opener
from ._checks import check_bool, check_instance, check_int, check_opener, check_ssl_context
from ._errors import is_safe_to_retry
from ._pool import Connection, Origin, Pool, Timeouts

DEFAULT_LIMITS = httpx.Limits(
    max_connections=None, max_keepalive_connections=100, keepalive_expiry=2.5
)
"""As many streams as the session allows.  Idle ones are kept for half as long as hypercorn keeps
them, so that no request is sent on one that the server is closing."""

FIRST_PAUSE = 0.05
"""Seconds between the second attempt of a request and the third; each further pause is
twice as long."""


class MuxadoTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests to a session's peer: ``httpx.AsyncClient(transport=...)``.

    Every running request has a stream of its own, and all streams lead to the peer: a URL's host
    and port only decide which idle stream can be reused, and what the request's headers say.
    With ``https`` there is TLS on the stream, for a peer that passes it on.

    A stream is kept for the next request when its own is complete.  While idle it yields its slot
    to any task that waits in ``open_stream`` of the session, and it is closed before the peer's
    server would close it.

    What httpx raises has the :exc:`~trio_muxado.MuxadoError` as its cause, where there was one.

    Args:
      session: either side of a session, or a :class:`~trio_muxado.SessionPool`.  Closing the client
        leaves it open.
      max_streams: the most streams at once, idle ones included; further requests wait.  None
        means as many as the session allows.
      retries: how many times a request is retried when the peer has certainly not processed it
        (``safe_to_retry``) and its body can be sent again: it is bytes, or nothing was read of it.
      http2: speak HTTP/2 on each stream: with TLS by ALPN, without TLS by prior knowledge.  A
        connection still carries one request at a time.
      limits: how many streams are kept idle, and for how many seconds; its ``max_connections``
        is another way to give ``max_streams``.
      ssl_context: for ``https``; httpx's ``verify`` has no effect on a transport.

    Raises:
      TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        session: Opener,
        *,
        max_streams: int | None = None,
        retries: int = 0,
        http2: bool = False,
        limits: httpx.Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        check_opener(session)
        limits = DEFAULT_LIMITS if limits is None else limits
        check_instance("limits", limits, httpx.Limits, "an httpx.Limits")
        if max_streams is None:
            max_streams = limits.max_connections
        elif limits.max_connections is not None:
            raise ValueError("max_streams and limits.max_connections are the same: give one")
        if max_streams is not None:
            check_int("max_streams", max_streams, 1)
        check_int("retries", retries, 0)
        check_bool("http2", http2)
        check_ssl_context(ssl_context)
        self._retries = retries
        self._pool = Pool(
            session,
            max_streams=max_streams,
            max_idle=limits.max_keepalive_connections,
            expiry=limits.keepalive_expiry,
            ssl_context=ssl_context,
            http2=http2,
        )

    def __repr__(self) -> str:
        return f"<MuxadoTransport {self._pool!r}>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return its response as soon as its headers have been received."""
        scheme, host = request.url.raw_scheme, request.url.raw_host
        if scheme not in (b"http", b"https"):
            raise httpx.UnsupportedProtocol(f"no requests are made for {scheme.decode()!r}")
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            raise RuntimeError(
                "MuxadoTransport runs on trio: trio.run the session and its client"
            ) from None
        timeouts: Timeouts = request.extensions.get("timeout", {})
        origin: Origin = (scheme, host, request.url.port)
        attempt = 0
        while True:
            body = _RequestBody(request)
            try:
                return await self._attempt(request, body, origin, timeouts)
            except httpx.TransportError as error:
                attempt += 1
                again = is_safe_to_retry(error.__cause__) and body.can_be_resent
                if not again or attempt > self._retries:
                    raise
            if attempt > 1:
                await trio.sleep(FIRST_PAUSE * 2 ** (attempt - 2))

    async def _attempt(
        self, request: httpx.Request, body: _RequestBody, origin: Origin, timeouts: Timeouts
    ) -> httpx.Response:
        connection = await self._pool.acquire(origin, timeouts)
        try:
            try:
                status, headers, extensions = await connection.http.request(request, body, timeouts)
            finally:
                await body.aclose()
        except BaseException:
            await self._pool.discard(connection)
            raise
        leading = connection.http.leading if status == 101 else b""
        extensions["network_stream"] = connection.network_stream(leading)
        return httpx.Response(
            status,
            headers=headers,
            stream=_ResponseBody(self._pool, connection, switched=status == 101),
            extensions=extensions,
        )

    async def aclose(self) -> None:
        """Close all streams, also those of running requests.  The session goes on."""
        await self._pool.close()


class _RequestBody:
    """The pieces of a request's body.  Not a generator: one that is left open causes a warning."""

    def __init__(self, request: httpx.Request) -> None:
        stream = request.stream
        self._whole = isinstance(stream, httpx.ByteStream)
        self._is_read = False
        self._pieces: Any = None
        if self._whole:
            assert isinstance(stream, httpx.SyncByteStream)
            self._rest = list(stream)
        else:
            if not isinstance(stream, httpx.AsyncByteStream):
                raise RuntimeError("an async client can't send the body of a sync request")
            self._stream = stream

    @property
    def can_be_resent(self) -> bool:
        """It can be sent again from the start."""
        return self._whole or not self._is_read

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._whole:
            if not self._rest:
                raise StopAsyncIteration
            return self._rest.pop(0)
        if not self._is_read:
            self._is_read = True
            self._pieces = self._stream.__aiter__()
        piece: bytes = await self._pieces.__anext__()
        return piece

    async def aclose(self) -> None:
        """Close a generator that was not read to its end."""
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            with trio.CancelScope(shield=True):
                await close()


class _ResponseBody(httpx.AsyncByteStream):
    """What follows the headers of a response."""

    def __init__(self, pool: Pool, connection: Connection, *, switched: bool) -> None:
        self._pool = pool
        self._connection = connection
        self._ended = switched

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            piece = await self._connection.http.next_body()
        except BaseException:
            self._ended = True
            await self._pool.discard(self._connection)
            raise
        if not piece:
            self._ended = True
            await self._pool.release(self._connection)
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._ended = True
        await self._pool.discard(self._connection)
