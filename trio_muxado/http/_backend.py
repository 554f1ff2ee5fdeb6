"""A stream of a session in place of httpcore's TCP connection."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Protocol

import httpcore
import trio

from .. import MuxadoStream
from ._checks import check_opener
from ._errors import translated


class Opener(Protocol):
    """A session, or a pool of sessions."""

    async def open_stream(self) -> MuxadoStream:
        """Open a stream; may wait."""
        ...


class MuxadoBackend(httpcore.AsyncNetworkBackend):
    """Makes httpcore open a stream of a session where it would open a TCP connection.

    For ``httpcore.AsyncConnectionPool(network_backend=MuxadoBackend(session))``, which can share
    one stream among many requests with ``http1=False, http2=True``.  :class:`MuxadoTransport` does
    not use httpcore, whose pool takes time quadratic in the number of concurrent requests.

    Args:
      session: either side of a session, or a :class:`~trio_muxado.SessionPool`.

    Raises:
      TypeError: ``session`` opens no streams.
    """

    def __init__(self, session: Opener) -> None:
        check_opener(session)
        self._session = session

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a stream to the session's peer, whatever the host and the port are."""
        with translated(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            return NetworkStream(await self._session.open_stream())

    async def sleep(self, seconds: float) -> None:
        """Wait, between two attempts."""
        await trio.sleep(seconds)


class NetworkStream(httpcore.AsyncNetworkStream):
    """A stream, possibly with TLS on it, as httpcore uses it.

    Args:
      below: the stream.
      tls: TLS on it.
      leading: bytes that have been received already.
    """

    def __init__(
        self,
        below: MuxadoStream,
        tls: trio.SSLStream[MuxadoStream] | None = None,
        leading: bytes = b"",
    ) -> None:
        self._below = below
        self._tls = tls  # passes on the methods of an ssl.SSLObject
        self._stream: trio.abc.Stream = below if tls is None else tls
        self._leading = leading

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes, or ``b""`` at the end."""
        if self._leading:
            data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
            return data
        with translated(timeout, httpcore.ReadTimeout, httpcore.ReadError):
            return bytes(await self._stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        with translated(timeout, httpcore.WriteTimeout, httpcore.WriteError):
            await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        """End the stream."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Put TLS on the stream."""
        with translated(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            tls = await tls_on(self._below, ssl_context, server_hostname)
        return NetworkStream(self._below, tls)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks for."""
        if info == "is_readable":
            # httpcore asks it of idle connections, where it can only be the end.
            return self._below.is_readable()
        if info == "ssl_object":
            return self._tls
        return None


async def tls_on(
    stream: MuxadoStream, context: ssl.SSLContext, host: str | None
) -> trio.SSLStream[MuxadoStream]:
    """Put TLS on a stream, and do the handshake.

    Raises:
      trio.BrokenResourceError: the handshake failed; the message says so.
    """
    try:
        tls = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        await tls.do_handshake()
    except BaseException as error:
        with trio.CancelScope(shield=True):
            await stream.reset()
        if not isinstance(error, trio.BrokenResourceError):
            raise
        reason = error.__cause__ or error
        raise TLSError(f"the TLS handshake with {host} on a stream failed: {reason}") from reason
    return tls


class TLSError(trio.BrokenResourceError):
    """A TLS handshake failed."""
