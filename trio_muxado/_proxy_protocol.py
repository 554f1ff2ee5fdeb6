"""The PROXY protocol's header: who a forwarded connection really comes from.

``haproxy/doc/proxy-protocol.txt`` is its specification, and section numbers here are its own.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, TypeAlias, cast

import trio

from ._protocol.checks import check_choice, shown
from ._transport.peer import lowest

ProxyProtocol: TypeAlias = Literal["v1", "v2"]
Address: TypeAlias = "tuple[IPv4Address | IPv6Address, int]"

PROXY_PROTOCOLS = ("v1", "v2")

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""What a header of version 2 begins with (2.2)."""

_V2_PROXY = 0x21  # version 2, and a connection that is relayed for somebody
_V2_STREAM = {4: 0x11, 6: 0x21}  # over TCP and IPv4, over TCP and IPv6
_V2_UNKNOWN = 0x00  # "the receiver should use the real connection endpoints"
_ip_address = lru_cache(maxsize=1024)(ip_address)  # a listener has one, and visitors come again
_LENGTH = struct.Struct("!H")
_PORTS = struct.Struct("!HH")


def proxy_header(
    version: ProxyProtocol, source: Sequence[Any] | None, destination: Sequence[Any] | None
) -> bytes:
    """The bytes with which a forwarded connection begins, for a service that speaks PROXY.

    A service behind a relay sees the relay's address, unless the relay first says who the visitor
    is.  The side that accepted the connection knows that::

        sock = visitor.socket
        await stream.send_all(proxy_header("v2", sock.getpeername(), sock.getsockname()))
        await forward(visitor, stream)

    Args:
      version: ``"v1"``, a line of text of at most 107 bytes, or ``"v2"``, binary.
      source: the visitor's address, as ``getpeername()`` of a socket returns it: a host and a port
        come first, and what follows is ignored.
      destination: the address that the visitor has connected to, from ``getsockname()``.

    If either is None, or not an address of IPv4 or IPv6 (a Unix socket's is a path), the header
    says that the visitor is unknown.  An IPv4 address that an IPv6 socket reports as
    ``::ffff:192.0.2.1`` is sent as IPv4, unless the other one is IPv6.  A zone (``%eth0``) means
    nothing to another machine, and is left out.

    Raises:
      TypeError: ``version`` is not a str.
      ValueError: there is no such version, or an address is a name, or has no port of 0 to 65535.
    """
    check_choice("version", version, PROXY_PROTOCOLS)
    ends = _same_family(_address("source", source), _address("destination", destination))
    return _text(ends) if version == "v1" else _binary(ends)


def _text(ends: tuple[Address, Address] | None) -> bytes:
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    (source, source_port), (destination, destination_port) = ends
    family = f"TCP{source.version}"
    line = f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n"
    return line.encode("ascii")


def _binary(ends: tuple[Address, Address] | None) -> bytes:
    family, body = _V2_UNKNOWN, b""
    if ends is not None:
        (source, source_port), (destination, destination_port) = ends
        family = _V2_STREAM[source.version]
        ports = _PORTS.pack(source_port, destination_port)
        body = source.packed + destination.packed + ports
    return SIGNATURE + bytes([_V2_PROXY, family]) + _LENGTH.pack(len(body)) + body


def _address(name: str, address: Sequence[Any] | None) -> Address | None:
    if address is None or isinstance(address, str | bytes) or not address:
        return None  # of a Unix socket, which may have no name either
    try:
        host, port = address[0], operator.index(address[1])
        ip = _ip_address(cast("str", host).partition("%")[0])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"{name} must begin with an IP address and a port: {shown(address)}"
        ) from None
    if isinstance(address[1], bool) or not 0 <= port <= 0xFFFF:
        raise ValueError(f"the port of {name} must be 0 to 65535, not {shown(port)}")
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped, port
    return ip, port


def _same_family(
    source: Address | None, destination: Address | None
) -> tuple[Address, Address] | None:
    """Both, as addresses of IPv6 where one of them is."""
    if source is None or destination is None:
        return None
    if source[0].version != destination[0].version:
        return _as_ipv6(source), _as_ipv6(destination)
    return source, destination


def _as_ipv6(address: Address) -> Address:
    ip, port = address
    return (ip if isinstance(ip, IPv6Address) else IPv6Address(f"::ffff:{ip}")), port


def addresses_of(stream: object) -> tuple[Any, Any] | None:
    """The peer's and the own address of the socket that carries ``stream``; None for others.

    TLS and other wrappers that show their ``transport_stream`` are looked through.  A stream of a
    session is not: who is at its other side is known to the program that accepted it.
    """
    socket_stream = lowest(stream)
    if not isinstance(socket_stream, trio.SocketStream):
        return None
    try:
        return socket_stream.socket.getpeername(), socket_stream.socket.getsockname()
    except OSError:  # it is gone
        return None
