"""Who is at the other side of a transport, and whether the system watches over it."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import trio

Address = Any
"""What a socket calls an address: for TCP a tuple that begins with host and port."""

PROBE_AFTER = 30
"""Seconds of silence after which TCP asks whether the peer is still there."""

PROBE_INTERVAL = 10
"""Seconds between such questions; three that are not answered end the connection."""


_TCP_OPTIONS = [
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", PROBE_AFTER),
        ("TCP_KEEPINTVL", PROBE_INTERVAL),
        ("TCP_KEEPCNT", 3),
    )
    if hasattr(socket, name)
]


def lowest(transport: object) -> Any:
    """What lies below TLS and other wrappers that show their ``transport_stream``."""
    stream: Any = transport
    while (below := getattr(stream, "transport_stream", None)) is not None:
        stream = below
    return stream


def peer_address(transport: trio.abc.Stream) -> Address | None:
    """The peer's address where a socket carries ``transport``; None for others."""
    stream = lowest(transport)
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        return stream.socket.getpeername()
    except OSError:  # it is gone
        return None


def peer_certificate(transport: trio.abc.Stream) -> dict[str, Any] | None:
    """The certificate that a TLS peer has shown, as :meth:`ssl.SSLSocket.getpeercert` gives it."""
    if not isinstance(transport, trio.SSLStream):
        return None
    try:
        return transport.getpeercert() or None
    except (ValueError, trio.NeedHandshakeError):
        return None


def describe(transport: trio.abc.Stream, address: Address | None) -> str:
    """The peer for a log: its address, or else what the transport is."""
    match address:
        case (str() as host, int() as port, *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case None | "":
            return repr(transport)
        case _:
            return str(address)


def keep_alive(transport: trio.abc.Stream) -> None:
    """Have the system notice a peer that is gone, where the session has no heartbeats."""
    stream = lowest(transport)
    if not isinstance(stream, trio.SocketStream):
        return
    sock = stream.socket
    with suppress(OSError):  # it is gone: closed, or on macOS reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _TCP_OPTIONS:  # of a Unix socket the first of them is refused
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
