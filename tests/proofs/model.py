"""What two sides of a stream may see of each other, as a model that is as simple as can be.

A direction is the list of the calls of ``send_all`` on it.  What is received is compared with it
byte by byte.  A call that did not return normally may have sent any part of its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from trio_muxado import MuxadoStream

Name: TypeAlias = Literal["client", "server"]

FIRST_MARKS = range(200, 256)
"""The first byte of each chunk, by turns; no other byte of a chunk is one of these."""

_PATTERN = bytes(number % 199 for number in range(1_000_000))


@dataclass
class Chunk:
    """What one call of ``send_all`` was given."""

    data: bytes = field(repr=False)
    cut: bool = False
    """The call did not return normally: a part of it may never come."""


@dataclass
class Direction:
    """What one side of a stream sends to the other."""

    number: int
    chunks: list[Chunk] = field(default_factory=list)
    end: str | None = None
    """``eof`` or ``closed``: this side has ended it by ``send_eof``, or by ``aclose`` alone."""
    at: int = 0
    """The chunk that is being received,"""
    offset: int = 0
    """and how much of it has been."""
    received: int = 0
    ended: bool = False
    """The receiver has seen the end."""

    def chunk(self, size: int) -> Chunk:
        """The next chunk that is sent."""
        count = len(self.chunks)
        start = (self.number * 31 + count * 7) % 199
        data = bytes(FIRST_MARKS[count % len(FIRST_MARKS)] for _ in range(min(size, 1)))
        chunk = Chunk(data + _PATTERN[start : start + size - 1] if size else b"")
        self.chunks.append(chunk)
        return chunk

    def receive(self, data: bytes) -> None:
        """Check what the other side has received: it follows what it received before."""
        assert not self.ended, "bytes came behind the end"
        self.received += len(data)
        while data:
            chunk = self.chunks[self.at] if self.at < len(self.chunks) else None
            if chunk is not None and self.offset:
                size = min(len(chunk.data) - self.offset, len(data))
                expected = chunk.data[self.offset : self.offset + size]
                if chunk.cut:  # any part of it may be missing at its end
                    size = _same(expected, data)
                else:
                    assert data[:size] == expected, f"chunk {self.at} is not as it was sent"
                self.offset += size
                data = data[size:]
                if not data:
                    return
                assert chunk.cut or self.offset == len(chunk.data)
                self.at, self.offset = self.at + 1, 0
            self._begin(data[0])
            data = data[1:]

    def _begin(self, mark: int) -> None:
        """A chunk begins: those before it were cut, or are empty."""
        while self.at < len(self.chunks):
            chunk = self.chunks[self.at]
            if chunk.data[:1] == bytes((mark,)):
                self.offset = 1
                return
            assert chunk.cut or not chunk.data, f"chunk {self.at} was lost"
            self.at += 1
        raise AssertionError(f"byte {mark} was never sent")

    @property
    def complete(self) -> bool:
        """All that was sent has been received, of chunks that were cut any part."""
        offset = self.offset
        for chunk in self.chunks[self.at :]:
            if offset < len(chunk.data) and not chunk.cut:
                return False
            offset = 0
        return True

    def receive_end(self) -> None:
        """Check that an end is all that could be missing: what is cut never looks whole."""
        assert self.end is not None, "the end of what was never ended"
        assert self.complete, "cut, and looks whole"
        if self.end == "closed":
            # Closing a stream whose sender was cut resets it, unless all was on its way.
            sent = sum(len(chunk.data) for chunk in self.chunks)
            assert self.received == sent, "a cancelled upload looks whole"
        self.ended = True


def _same(expected: bytes, data: bytes) -> int:
    """How many bytes at the beginning are the same."""
    size = min(len(expected), len(data))
    if expected[:size] == data[:size]:
        return size
    return next(i for i in range(size) if expected[i] != data[i])


@dataclass(eq=False)
class Talk:
    """A stream: its two directions, and what may happen to it."""

    id: int
    type: int
    priority: int
    ways: Mapping[Name, Direction]
    accepted: bool = False
    retry: bool = False
    """Its opener was told that it is safe to retry: then nobody may ever have accepted it."""
    excused: bool = False
    """Something was done that may break it."""


@dataclass(eq=False)
class End:
    """What one side holds of a stream."""

    stream: MuxadoStream
    talk: Talk
    out: Direction
    into: Direction
    sending: bool = False
    receiving: bool = False
    left: bool = False
    """This side has closed or reset it."""
    dead: bool = False
    """This side has reset it: it can no longer be ended cleanly."""
