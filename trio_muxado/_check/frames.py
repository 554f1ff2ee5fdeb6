"""Frames as a plain implementer of the specification would read and write them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .vectors import Frame, Version

HEADER = 8
"""Bytes of a header."""

FIRST_ID = {"client": 3, "server": 2}
"""The first id that each role opens."""

HEARTBEAT_TYPE = {"v1": 0xFFFFFEFF, "v2": 0xFFFFFFFF}

_TYPES = {
    "v1": {1: "SYN", 2: "RST", 3: "DATA", 4: "WNDINC", 6: "GOAWAY"},
    "v2": {0: "RST", 1: "DATA", 2: "WNDINC", 3: "GOAWAY"},
}
_FIN = 0x1
_SYN = 0x2  # of DATA, on v2
_PRIORITY, _TYPE = 0x2, 0x4  # of SYN, on v1


@dataclass(frozen=True)
class Header:
    """The four fields of a header, with reserved bits masked away."""

    length: int
    type: int
    flags: int
    stream_id: int

    @classmethod
    def parse(cls, version: Version, data: bytes) -> Header:
        """Read the first eight bytes."""
        word = int.from_bytes(data[:4], "big")
        stream_id = int.from_bytes(data[4:8], "big") & 0x7FFFFFFF
        if version == "v1":
            return cls(word >> 16 & 0x3FFF, word & 0x1F, word >> 8 & 0xFF, stream_id)
        return cls(word >> 8, word >> 4 & 0xF, word & 0xF, stream_id)

    def encode(self, version: Version) -> bytes:
        """The eight bytes."""
        if version == "v1":
            word = self.length << 16 | self.flags << 8 | self.type
        else:
            word = self.length << 8 | self.type << 4 | self.flags
        return word.to_bytes(4, "big") + self.stream_id.to_bytes(4, "big")


def opening(version: Version, stream_id: int, payload: bytes) -> bytes:
    """What opens a stream, with its first data."""
    if version == "v1":
        return Header(0, 1, 0, stream_id).encode(version) + data(version, stream_id, payload)
    return Header(len(payload), 1, _SYN, stream_id).encode(version) + payload


def data(version: Version, stream_id: int, payload: bytes = b"", *, fin: bool = False) -> bytes:
    """A DATA frame."""
    number = 3 if version == "v1" else 1
    return Header(len(payload), number, _FIN * fin, stream_id).encode(version) + payload


class FrameReader:
    """Bytes of the transport to frames, however they are cut.

    After a GOAWAY nothing is read any more, unless it is trusted.  The known peers count its length
    in four ways, so what follows it can't be told apart from it; ``goaway_fault`` says what was
    wrong with it.
    """

    def __init__(self, version: Version, *, trusts_goaway: bool = False) -> None:
        self._version: Version = version
        self._trusts_goaway = trusts_goaway
        self._data = b""
        self.goaway: Header | None = None
        """The header of the GOAWAY that has come."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """All frames that these bytes complete."""
        self._data += data
        while len(self._data) >= HEADER and self.goaway is None:
            header = Header.parse(self._version, self._data)
            name = _TYPES[self._version].get(header.type, "UNKNOWN")
            # The two numbers of a GOAWAY count as soon as they are there.
            doubted = name == "GOAWAY" and not self._trusts_goaway
            size = HEADER + (8 if doubted else header.length)
            if len(self._data) < size:
                return
            body = self._data[HEADER:size]
            if doubted:
                self.goaway = header
            else:
                self._data = self._data[size:]
            yield self._frame(name, header, body)

    def goaway_fault(self) -> str | None:
        """What is wrong with the length of the GOAWAY, once nothing more comes."""
        if self.goaway is None:
            return None
        announced, came = self.goaway.length, len(self._data) - HEADER
        rest = self._data[HEADER + announced :]
        if came >= announced and self._is_frames(rest):
            return None
        return f"its GOAWAY announces {announced} bytes, and {came} come"

    def _is_frames(self, data: bytes) -> bool:
        """Whole frames of types that are defined, which may follow a GOAWAY."""
        while data:
            header = Header.parse(self._version, data)
            if len(data) < HEADER + header.length or header.type not in _TYPES[self._version]:
                return False
            data = data[HEADER + header.length :]
        return True

    def _frame(self, name: str, header: Header, body: bytes) -> Frame:
        frame: dict[str, Any] = {"frame": name, "stream_id": header.stream_id}
        first, second = (int.from_bytes(body[i : i + 4], "big") for i in (0, 4))
        size = 4
        match name:
            case "DATA":
                size = header.length
                frame["payload"] = body
                frame["fin"] = bool(header.flags & _FIN)
                if self._version == "v2":
                    frame["syn"] = bool(header.flags & _SYN)
            case "SYN":
                has_priority, has_type = bool(header.flags & _PRIORITY), bool(header.flags & _TYPE)
                size = 4 * (has_priority + has_type)
                frame["priority"] = first & 0x7FFFFFFF if has_priority else 0
                frame["type"] = (second if has_priority else first) if has_type else 0
                frame["fin"] = bool(header.flags & _FIN)
            case "RST":
                frame["error_code"] = first
            case "WNDINC":
                frame["increment"] = first & 0x7FFFFFFF
            case "GOAWAY":
                size = header.length
                del frame["stream_id"]
                frame["last_stream_id"] = first & 0x7FFFFFFF
                frame["error_code"] = second
            case _:
                size = header.length
                frame["type"] = header.type
        if header.length != size:
            frame["length"] = header.length  # which makes it another frame than any that is right
        return frame
