"""Visitors of HTTP tunnels as they arrive: TLS, and which version of HTTP they speak."""

from __future__ import annotations

import logging

import trio

from ._http import Connection, HttpFront
from ._http1 import Http1Connection
from ._http2 import Http2Connection
from ._tls import ServerTls, shake_hands
from ._visitors import GONE, visitor_of

logger = logging.getLogger("trio_muxado.tunnel")


async def handle_http(front: HttpFront, tls: ServerTls | None, tcp: trio.SocketStream) -> None:
    """Serve a connection that was accepted."""
    has_header = front.config.accept_proxy_protocol
    try:
        visitor = await visitor_of(tcp, front.arrivals, has_header=has_header)
    except GONE as error:
        logger.info("HTTP: a connection without a visitor: %s", error)
        return
    with front.slots.slot(visitor) as has_slot:
        if not has_slot:
            return
        stream: trio.abc.Stream = tcp
        server_name: str | None = None
        if tls is not None:
            try:
                stream, server_name = await shake_hands(tcp, tls.context, front.arrivals)
            except (trio.BrokenResourceError, trio.TooSlowError, OSError) as error:
                why = error.__cause__ or error
                extra = {"visitor": str(visitor)}
                logger.info("the TLS handshake with %s failed: %s", visitor, why, extra=extra)
                return
        connection: Connection
        if isinstance(stream, trio.SSLStream) and stream.selected_alpn_protocol() == "h2":
            connection = Http2Connection(front, stream, visitor, server_name)
        else:
            connection = Http1Connection(front, stream, visitor, secure=tls is not None)
        front.connections.add(connection)
        try:
            await connection.run()
        finally:
            front.connections.discard(connection)
