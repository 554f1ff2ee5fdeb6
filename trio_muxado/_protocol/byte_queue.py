"""Bytes that wait to be sent, in the chunks in which they came."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"

SMALL_CHUNK = 1024
"""Bytes below which chunks are merged: an object per byte costs 40 times its size."""


class ByteQueue:
    """First in, first out, with as few copies as there can be."""

    __slots__ = ("chunks", "size")

    def __init__(self) -> None:
        # None where nothing waits: most streams are idle, and a list takes memory.
        self.chunks: list[Buffer] | None = None
        self.size: int = 0
        """Bytes in ``chunks``."""

    def put(self, data: bytes | memoryview) -> None:
        """Add bytes; they must never change."""
        size = len(data)
        self.size += size
        chunks = self.chunks
        if not chunks:
            self.chunks = [data]
            return
        if size < SMALL_CHUNK:
            last = chunks[-1]
            if len(last) < SMALL_CHUNK:
                if type(last) is bytearray:
                    last += data
                else:
                    chunks[-1] = bytearray(last) + data
                return
        chunks.append(data)

    def take(self, size: int, into: list[Buffer]) -> None:
        """Move ``size`` bytes to ``into``."""
        chunks = self.chunks or []
        if size == self.size:  # fast path of the loop below
            self.size = 0
            self.chunks = None
            into += chunks
            return
        self.size -= size
        used = 0
        while size:
            chunk = chunks[used]
            if len(chunk) <= size:
                into.append(chunk)
                size -= len(chunk)
                used += 1
            else:
                view = memoryview(chunk)
                into.append(view[:size])
                chunks[used] = view[size:]
                break
        del chunks[:used]

    def take_frames(self, header: bytes, size: int, count: int, into: list[Buffer]) -> None:
        """Move ``count`` times ``size`` bytes to ``into``, each after ``header``."""
        chunks = self.chunks or []
        while count:
            view = memoryview(chunks[0])
            whole = min(len(view) // size, count)
            if not whole:  # it begins in this chunk and ends in another
                into.append(header)
                self.take(size, into)
                count -= 1
                continue
            end = whole * size
            for start in range(0, end, size):
                into += (header, view[start : start + size])
            if end < len(view):
                chunks[0] = view[end:]
            else:
                del chunks[0]
            self.size -= end
            count -= whole

    def drop(self, keep: int = 0) -> None:
        """Forget all but the first ``keep`` bytes."""
        kept: list[Buffer] = []
        if keep:
            self.take(min(keep, self.size), kept)
        # A copy: a slice would keep alive the whole of what was dropped.
        rest = b"".join(kept)
        self.chunks = [rest] if rest else None
        self.size = len(rest)
