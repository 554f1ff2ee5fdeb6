"""The client: httpx and httpcore, with a stream where they would have a TCP connection."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx
import trio

from .. import MuxadoError, MuxadoSession, MuxadoStream

DEFAULT_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
"""What httpx has for TCP."""


class MuxadoTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests to a session's peer: ``httpx.AsyncClient(transport=...)``.

    Every connection is a stream, and all lead to the peer: a URL's host and port only choose
    which idle stream can be used again, and what the peer reads in the request.  With ``https``
    there is TLS on the stream, for a peer that passes it on.

    What httpx raises has the :exc:`~trio_muxado.MuxadoError` as its cause, where there was one.

    Args:
      session: either end of a session.  Closing the client leaves it open.
      limits: how many streams at once, and how many of them idle for how long.
      ssl_context: for ``https``; what httpx's ``verify`` says has no effect on a transport.
    """

    def __init__(
        self,
        session: MuxadoSession,
        *,
        limits: httpx.Limits = DEFAULT_LIMITS,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=MuxadoBackend(session),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return its response as soon as the headers are there."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        assert isinstance(request.stream, httpx.AsyncByteStream)
        with _errors_of_httpx():
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions={**response.extensions},  # pyright: ignore[reportUnknownMemberType]
        )

    async def aclose(self) -> None:
        """Close all streams, also those of running requests.  The session goes on."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """What follows the headers of a response.

    No generator, since httpx does not close one that it stops reading.
    """

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self._parts = response.aiter_stream()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _errors_of_httpx():
            return await anext(self._parts)

    async def aclose(self) -> None:
        with _errors_of_httpx():
            await self._response.aclose()


@contextmanager
def _errors_of_httpx() -> Generator[None, None, None]:
    try:
        yield
    except Exception as error:
        # httpx has one of the same name for each of httpcore's.
        translated = getattr(httpx, type(error).__name__, None)
        if translated is None or type(error).__module__ != "httpcore":
            raise
        # httpcore drops the cause on the way.
        reason = error.__context__
        raise translated(str(error)) from (reason if isinstance(reason, MuxadoError) else error)


class MuxadoBackend(httpcore.AsyncNetworkBackend):
    """Makes httpcore open a stream of the session where it would open a TCP connection.

    :class:`MuxadoTransport` uses it.  By itself it is for ``httpcore.AsyncConnectionPool``, whose
    ``http1=False, http2=True`` speaks HTTP/2.
    """

    def __init__(self, session: MuxadoSession) -> None:
        self._session = session

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a stream, which leads to the session's peer whatever the host and the port."""
        with _errors_of_httpcore(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            return _NetworkStream(await self._session.open_stream())

    async def sleep(self, seconds: float) -> None:
        """Wait, between two attempts."""
        await trio.sleep(seconds)


class _NetworkStream(httpcore.AsyncNetworkStream):
    """A stream, maybe with TLS on it, as httpcore uses it."""

    def __init__(
        self, below: MuxadoStream, tls: trio.SSLStream[trio.abc.Stream] | None = None
    ) -> None:
        self._below = below
        self._tls = tls  # passes on the methods of an ssl.SSLObject
        self._stream: trio.abc.Stream = below if tls is None else tls

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _errors_of_httpcore(timeout, httpcore.ReadTimeout, httpcore.ReadError):
            return bytes(await self._stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _errors_of_httpcore(timeout, httpcore.WriteTimeout, httpcore.WriteError):
            await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = trio.SSLStream(
            self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            with _errors_of_httpcore(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
                await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        return _NetworkStream(self._below, stream)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # httpcore asks it of idle connections, where it can only be the end.
            return self._below.is_readable()
        if info == "ssl_object":
            return self._tls
        return None


@contextmanager
def _errors_of_httpcore(
    timeout: float | None, too_slow: type[Exception], broken: type[Exception]
) -> Generator[None, None, None]:
    try:
        with trio.fail_after(math.inf if timeout is None else timeout):
            yield
    except trio.TooSlowError as error:
        raise too_slow(f"no progress within {timeout} seconds") from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise broken(str(error) or repr(error)) from error
