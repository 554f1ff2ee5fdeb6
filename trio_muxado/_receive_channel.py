"""The memory channel from the frame reader to whoever receives from a stream.

General theory of operation
---------------------------

The frame reader holds the sending side of a :func:`trio.open_memory_channel`, the stream the
receiving side.  **The channel carries bytes and nothing else.**  What ends a stream (the peer's
FIN, a reset, closing) is state of the stream, which the receiver looks at once no bytes are left.
So all bytes come before a break, an end is never lost, and a stream that gets an end and no data
needs no channel.  A task that waits in the channel while an end comes is woken by an empty item.

The channel is unbounded in items, because the reader must never wait.  The receive window bounds it
in bytes.  An object for each byte would cost forty times its size, so small chunks are joined: the
first lies in the channel as it came, and the second begins a ``bytearray`` that takes those that
follow, also while it lies in the channel.

Making a channel is a tenth of what a small request costs.  So some are kept for later streams, of
any session: only those that are empty and that no task waits in.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import trio

Channel: TypeAlias = (
    "tuple[trio.MemorySendChannel[bytes | bytearray], trio.MemoryReceiveChannel[bytes | bytearray]]"
)
Kept: TypeAlias = "list[Channel]"
"""Channels that streams have let go of, empty, for later streams."""

DEFAULT_RECEIVE = 256 * 1024
"""Bytes that ``receive_some()`` returns at most; as much as arrives in one read of the transport,
so that bulk is not cut into more pieces than it came in."""

SMALL_CHUNK = 1024
"""Bytes below which chunks are joined while they wait."""

ENOUGH = 64 * 1024
"""Bytes from which on no more chunks are joined to what ``take`` returns: it costs a copy."""

MAX_KEPT = 250
"""Channels that are kept for later streams: more than the sessions of most programs need at once.
Each takes 1.8 KiB."""

_kept_of_run: trio.lowlevel.RunVar[Kept] = trio.lowlevel.RunVar("trio_muxado channels")


def kept_channels() -> Kept:
    """What all sessions of this ``trio.run`` keep."""
    try:
        return _kept_of_run.get()
    except LookupError:
        kept: Kept = []
        _kept_of_run.set(kept)
        return kept


class ReceiveChannel:
    """What a stream has received and its application has not; one task may receive."""

    __slots__ = (
        "_kept",
        "_receiver",
        "_rest",
        "_sender",
        "_tail",
        "_waited_in",
        "ended",
        "size",
    )

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        # The channel, only once something has to go through it: both sides, or neither.
        self._sender: trio.MemorySendChannel[bytes | bytearray] | None = None
        self._receiver: trio.MemoryReceiveChannel[bytes | bytearray] | None = None
        # A chunk that was larger than a call wanted, and where what is left of it begins.
        self._rest: tuple[bytes, int] | None = None
        self._tail: bytearray | None = None  # the last item of the channel, which small chunks join
        self._waited_in: bool = False  # a task waits, and nothing has been sent to it
        self.size: int = 0
        """Bytes that wait, in the channel and in the rest."""
        self.ended: bool = False
        """The peer has ended its direction: nothing follows what waits."""

    # ---- the frame reader's side; none of it waits

    def put(self, data: bytes, ended: bool) -> None:
        """Bytes came, or the peer's end, or both."""
        self.ended = ended
        if not data:
            self._wake()
            return
        before = self.size
        self.size = before + len(data)
        self._waited_in = False
        send_nowait = (self._sender or self._open()[0]).send_nowait
        if not before:
            send_nowait(data)
        elif len(data) >= SMALL_CHUNK:
            self._tail = None
            send_nowait(data)
        elif self._tail is not None and len(self._tail) < SMALL_CHUNK:
            self._tail += data
        else:
            self._tail = bytearray(data)
            send_nowait(self._tail)

    def break_off(self) -> None:
        """The stream broke: nothing follows what waits."""
        self._wake()

    def _wake(self) -> None:
        """Let a task that waits look at the stream's state."""
        if self._waited_in and self._sender is not None:
            self._waited_in = False
            self._sender.send_nowait(b"")

    # ---- the receiver's side

    def begin_wait(self) -> trio.MemoryReceiveChannel[bytes | bytearray]:
        """The channel to wait in while ``size`` is 0: what it gives is for ``take``.

        Where the wait raises, ``give_up`` has to follow.
        """
        self._waited_in = True
        return self._receiver or self._open()[1]

    def give_up(self) -> None:
        """The task that waited was cancelled."""
        if not (self._waited_in or self.size):
            # The cancellation crossed a wake-up: its empty item is still in the channel, which
            # therefore must not serve a later stream.  Nothing follows on this one.
            self._sender = self._receiver = None
        self._waited_in = False

    def take(self, first: bytes | bytearray | None, limit: int) -> bytes:
        """Take up to ``limit`` bytes: ``first``, which the channel has given, and what follows it.

        Chunks are joined until there are ``ENOUGH`` bytes.
        """
        if first is None:
            if self._rest is not None:
                return self._take_rest(*self._rest, limit)
            assert self._receiver is not None
            first = self._receiver.receive_nowait()
        size = len(first)
        if size == self.size and size <= limit:  # fast path of the loop below
            self.size = 0
            self._tail = None
            return first if type(first) is bytes else bytes(first)
        if size > limit and type(first) is bytes:  # and so bulk in pieces smaller than it came in
            self._keep_rest(first, limit)
            self.size -= limit
            return first[:limit]
        return self._take_joined([first], size, limit)

    def _take_rest(self, rest: bytes, start: int, limit: int) -> bytes:
        """Take of what is left of a chunk, and what follows where that is little."""
        left = len(rest) - start
        if left > limit:
            end = start + limit
            self._keep_rest(rest, end)
            self.size -= limit
            return rest[start:end]
        if left == self.size or left >= ENOUGH:
            self._rest = None
            self.size -= left
            return rest[start:]
        return self._take_joined([], 0, limit)

    def _take_joined(
        self, pieces: list[bytes | bytearray | memoryview], size: int, limit: int
    ) -> bytes:
        if self._rest is not None:
            rest, start = self._rest
            pieces.append(memoryview(rest)[start:] if start else rest)
            size = len(rest) - start
            self._rest = None
        enough = min(limit, ENOUGH)
        if size < enough and size < self.size:
            assert self._receiver is not None
            receive_nowait = self._receiver.receive_nowait
            while size < enough and size < self.size:
                piece = receive_nowait()
                pieces.append(piece)
                size += len(piece)
        last = pieces[-1]
        if last is self._tail:
            self._tail = None
        if size > limit:
            cut = len(last) - (size - limit)
            chunk = bytes(last)  # which is itself, but for joined chunks
            pieces[-1] = memoryview(chunk)[:cut]
            self._keep_rest(chunk, cut)
            size = limit
        self.size -= size
        if len(pieces) == 1:
            return bytes(pieces[0])
        return b"".join(pieces)

    def _keep_rest(self, chunk: bytes, start: int) -> None:
        """Keep what is left of a chunk; alone, once that is less than half of it.

        Who reads all but the last byte of 256 KiB would keep all of them in memory otherwise, and
        the receive budget knows of one.
        """
        if 2 * start > len(chunk):
            chunk, start = chunk[start:], 0
        self._rest = chunk, start

    def close(self, in_use: bool) -> None:
        """Drop what waits, and wake a task that does; ``in_use`` says that a task is in a call."""
        sender, receiver = self._sender, self._receiver
        if sender is None or receiver is None:
            return
        if self.size:
            self.size = 0
            self._rest = self._tail = None
        elif not in_use and len(self._kept) < MAX_KEPT:
            self._kept.append((sender, receiver))
        if in_use:
            self._wake()
        self._sender = self._receiver = None

    def _open(self) -> Channel:
        kept = self._kept
        channel: Channel = kept.pop() if kept else trio.open_memory_channel(math.inf)
        self._sender, self._receiver = channel
        return channel
