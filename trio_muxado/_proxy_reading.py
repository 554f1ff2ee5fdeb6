"""Reading the PROXY protocol's header, version 1 or 2: the client that a stream was opened for.

``haproxy/doc/proxy-protocol.txt`` is its specification.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache
from typing import TypeAlias

import trio

from ._checks import check_instance
from ._copying import receive_waiting
from ._proxy_protocol import SIGNATURE

LONGEST_LINE = 107
"""Bytes of version 1's line, with its line ending, at most."""

LONGEST_HEADER = 4096
"""Bytes of version 2's addresses and extensions, at most; the longest addresses take 216."""

SHORTEST = 15
"""Bytes that every header has: ``PROXY UNKNOWN`` and its line ending; version 2 has one more."""

Addresses: TypeAlias = "tuple[tuple[str, int], tuple[str, int]] | None"
"""The client's, and the one that it connected to; None if the proxy names no client."""


class ProxyHeaderError(ValueError):
    """A stream did not begin with a header of the PROXY protocol."""


async def receive_proxy_header(stream: trio.abc.ReceiveStream) -> Addresses:
    """Receive a header of the PROXY protocol, and nothing that follows it.

    The counterpart of :func:`proxy_header`, for a program behind a proxy or a balancer.  Accepts
    versions 1 and 2.  Trust it only if nobody else can connect: anybody can write any address into
    it.  It has no timeout; put one around it.

    Args:
      stream: a stream from which nothing was received yet.

    Returns:
      The client's address, and the one that the client has connected to, as host and port each; or
      None where the header names no client.

    Raises:
      ProxyHeaderError: there is no header, or it is malformed.  What was received is lost.
      TypeError: ``stream`` cannot be received from.
    """
    check_instance("stream", stream, trio.abc.ReceiveStream, "a trio.abc.ReceiveStream")
    head = await _more(stream, b"", SHORTEST)
    if head.startswith(b"PROXY "):
        while not head.endswith(b"\r\n"):
            if len(head) == LONGEST_LINE:
                raise ProxyHeaderError("the line of the PROXY protocol has no end")
            head = await _more(stream, head, 1)
        return parse_line(head)
    head = await _more(stream, head, 1)
    if not head.startswith(SIGNATURE):
        raise ProxyHeaderError(f"the stream begins with {head!r}, not with a PROXY header")
    size = int.from_bytes(head[14:16], "big")
    if size > LONGEST_HEADER:
        raise ProxyHeaderError(f"the PROXY header has {size} bytes, more than {LONGEST_HEADER}")
    return parse_header(await _more(stream, head, size))


async def _more(stream: trio.abc.ReceiveStream, head: bytes, size: int) -> bytes:
    """``head`` and the next ``size`` bytes."""
    whole = len(head) + size
    if head and size:  # it has waited once: what has come along needs no further wait
        head += receive_waiting(stream, size)
    while len(head) < whole:
        more = await stream.receive_some(whole - len(head))
        if not more:
            raise ProxyHeaderError("the stream ended before its PROXY header did")
        head += more
    return head


def parse_line(line: bytes) -> Addresses:
    """Version 1: ``PROXY TCP4 192.0.2.1 192.0.2.2 50000 443``."""
    try:
        words = line.decode("ascii").removesuffix("\r\n").split(" ")
        if words[1] == "UNKNOWN":
            return None
        _, family, client, server, client_port, server_port = words
        version = {"TCP4": 4, "TCP6": 6}[family]
        for address in (client, server):
            # A zone could be any text, and the specification has none.
            if "%" in address or ipaddress.ip_address(address).version != version:
                raise ValueError(address)
        return (client, _port(client_port)), (server, _port(server_port))
    except (ValueError, KeyError, IndexError) as error:
        raise ProxyHeaderError(f"this is not a PROXY line: {line!r}") from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 0xFFFF:
        raise ValueError(text)
    return int(text)


@lru_cache(maxsize=1024)  # a listener has one, and visitors come again
def _shown(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def parse_header(header: bytes) -> Addresses:
    """Version 2: the complete binary header."""
    version, command = header[12] >> 4, header[12] & 0xF
    if version != 2 or command > 1:
        raise ProxyHeaderError(f"this is not a PROXY header: {header[:16]!r}")
    if command == 0:  # LOCAL: the proxy itself connected, for a health check
        return None
    family, body = header[13], header[16:]
    size = {0x11: 4, 0x21: 16}.get(family)
    if size is None:  # a Unix socket, UDP, or unspecified
        return None
    if len(body) < 2 * size + 4:
        raise ProxyHeaderError("the PROXY header is too short for its addresses")
    client, server = _shown(body[:size]), _shown(body[size : 2 * size])
    client_port, server_port = struct.unpack_from("!HH", body, 2 * size)
    return (client, client_port), (server, server_port)
