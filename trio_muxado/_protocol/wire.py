"""Choosing a wire, and telling the two apart by the first bytes that a client sends."""

from __future__ import annotations

from collections.abc import Mapping

from .codec import HEADER_SIZE, Wire
from .decoder import Decoder
from .errors import ErrorCode, ProtocolViolation
from .wire_v1 import V1
from .wire_v2 import V2

__all__ = [
    "DETECTION_SIZE",
    "HEADER_SIZE",
    "V1",
    "V2",
    "WIRES",
    "Decoder",
    "Wire",
    "detect",
    "looks_like",
    "what_else",
]

WIRES: Mapping[str, Wire] = {wire.name: wire for wire in (V1, V2)}

DETECTION_SIZE = 4
"""Bytes of a client's first frame that tell its protocol version."""

# Byte 3 of any frame: v1 has the type there, v2 type and flags.
_V1_FRAMES = frozenset(V1.types.values())
_V2_FRAMES = frozenset((0x00, 0x10, 0x11, 0x12, 0x13, 0x20, 0x30))

# Byte 3 of a client's first frame.  v1 has the type there: SYN or GOAWAY.  v2 has type and
# flags: DATA with SYN, with or without FIN, or GOAWAY; and DATA without SYN, which Go sends for
# an empty first write and Rust for a stream that was dropped unused.
_V1_FIRST = frozenset((0x01, 0x06))
_V2_FIRST = frozenset((0x12, 0x13, 0x30, 0x10, 0x11))

# What else begins a connection by mistake.
_OTHERS = {
    b"\x16\x03": "a TLS handshake: the peer uses TLS, and this side does not",
    **dict.fromkeys((b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"PRI "), "an HTTP request"),
    b"HTTP": "an HTTP response",
    b"SSH-": "an SSH banner",
    b"PROX": "a header of the PROXY protocol",
    b"\r\n\r\n": "a header of the PROXY protocol",
}


def what_else(first_bytes: bytes) -> str:
    """Which other protocol begins so, in words; empty if it is none that is known."""
    names = (name for beginning, name in _OTHERS.items() if first_bytes.startswith(beginning))
    return next(names, "")


def detect(first_bytes: bytes) -> Wire:
    """The protocol version that a client speaks, from its first four bytes.

    Raises:
      ProtocolViolation: they are the start of no muxado session.
    """
    reserved, flags, kind = first_bytes[0] & 0xC0, first_bytes[2], first_bytes[3]
    if kind in _V2_FIRST:
        return V2
    if kind in _V1_FIRST and not reserved and flags <= 0x07:
        return V1
    message = f"not muxado: the connection begins with {first_bytes.hex(' ')}"
    if what := what_else(first_bytes):
        message += f", {what}"
    raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, message)


def looks_like(first_bytes: bytes) -> Wire | None:
    """Whose frame either side's first bytes could be: to explain why they are not ours."""
    if len(first_bytes) < DETECTION_SIZE or what_else(first_bytes):
        return None
    kind = first_bytes[3]
    if kind in _V1_FRAMES and first_bytes[0] <= 0x3F:
        return V1
    return V2 if kind in _V2_FRAMES else None
