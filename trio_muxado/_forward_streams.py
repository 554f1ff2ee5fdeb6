"""An agent: each stream that the peer opens is a connection to a service."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ._breaking import break_now
from ._checks import check_host, check_instance, check_port
from ._forward import check_idle_timeout, forward
from ._patience import connect_while_running
from ._protocol.checks import check_choice
from ._protocol.errors import ErrorCode
from ._proxy_protocol import (
    PROXY_PROTOCOLS,
    ProxyProtocol,
    addresses_of,
    proxy_header,
)
from ._session import MuxadoSession
from ._stream import MuxadoStream
from ._tcp import connect_tcp

logger = logging.getLogger("trio_muxado")

CONNECT_TIMEOUT = 30.0
"""Seconds for a connection to the service.  The system waits for two minutes, in which a stream
whose opener has gone long since would hold its slot."""

Connect = Callable[[], Awaitable[trio.SocketStream]]


async def forward_streams(
    session: MuxadoSession,
    host: str | bytes,
    port: int,
    *,
    proxy_protocol: ProxyProtocol | None = None,
    idle_timeout: float | None = None,
) -> None:
    """Forward every stream that the peer opens to a TCP service, as :func:`forward` does.

    Serves as long as :meth:`MuxadoSession.serve_streams`, and returns when the session has been
    closed cleanly from either side.  ``partial(forward_streams, host="127.0.0.1", port=80)`` is a
    handler for :func:`dial_muxado` and :func:`serve_muxado`.

    A stream for which no connection can be made within 30 seconds is reset with STREAM_REFUSED,
    so that its opener knows that nothing was processed: it is safe to retry.  The others go on.
    When it is cancelled, the streams and the connections break, but for one that is just being made
    to a name: trio closes that, so the service may see a connection on which nothing is sent.

    Args:
      session: whose streams are forwarded.
      host: of the service.  An address is connected to directly; a name is looked up for each
        stream, and its addresses are tried as by :func:`trio.open_tcp_stream`.
      port: of the service.
      proxy_protocol: begin each connection with a header of the PROXY protocol, ``"v1"`` or
        ``"v2"``, that says who the session's peer is: the address at the other side of the socket
        that carries the session, or "unknown" where no TCP socket does.  In a reverse tunnel that
        is the relay.  There only the relay knows its visitors: have it send
        :func:`proxy_header` first, and leave this None.
      idle_timeout: seconds, as in :func:`forward`.

    Raises:
      SessionEndedError: the session broke.
      TypeError, ValueError: a wrong argument; nothing was accepted then.
    """
    check_instance("session", session, MuxadoSession, "a MuxadoSession")
    check_host(host)
    check_port(port)
    if proxy_protocol is not None:
        check_choice("proxy_protocol", proxy_protocol, PROXY_PROTOCOLS)
    check_idle_timeout(idle_timeout)
    connect = partial(connect_tcp, host, port)
    header = b""
    if proxy_protocol is not None:
        source, destination = addresses_of(session.transport_stream) or (None, None)
        header = proxy_header(proxy_protocol, source, destination)

    async def handle_stream(stream: MuxadoStream) -> None:
        try:
            tcp = await connect_while_running(
                CONNECT_TIMEOUT, partial(_begin, connect, header), _break
            )
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            logger.info("%r: no connection to %s port %d: %r", stream, host, port, error)
            await stream.reset(ErrorCode.STREAM_REFUSED)
            return
        forwarded = await forward(tcp, stream, idle_timeout=idle_timeout)
        logger.debug("%r: %r", stream, forwarded)

    await session.serve_streams(handle_stream)


async def _begin(connect: Connect, header: bytes) -> trio.SocketStream:
    tcp = await connect()
    try:
        if header:
            await tcp.send_all(header)
    except BaseException:
        await _break(tcp)
        raise
    return tcp


async def _break(tcp: trio.SocketStream) -> None:
    """Its stream was cancelled: an end would say that all of it has come."""
    await break_now(tcp, ErrorCode.STREAM_CANCELLED)
