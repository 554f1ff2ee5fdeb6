"""The least that carries streams over one connection on trio: what everything else is measured by.

Frames of muxado v2, one reader, one writer that joins what waits, windows, half-close, a memory
channel for each stream. No limits, no resets, no states, no errors, no priorities, no heartbeats,
no graceful end: what a protocol's guarantees cost is the difference to this.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from struct import Struct

import trio

from .._common import HOST, StreamPeer, answer, listening, main

HEADER = Struct(">II")  # u24 length, u4 type, u4 flags; u32 stream id
GRANT = Struct(">III")
DATA, WNDINC = 0x10, 0x20
FIN, SYN = 0x1, 0x2
WINDOW = 256 * 1024
FRAME = 64 * 1024
READ = 256 * 1024


class Stream:
    __slots__ = ("credit", "id", "left", "owed", "put", "receive", "room", "session", "syn")

    def __init__(self, session: Session, stream_id: int, syn: int) -> None:
        self.session = session
        self.id = stream_id
        self.syn = syn
        self.credit = WINDOW
        self.owed = 0
        self.left = b""
        self.room = trio.Event()
        send: trio.MemorySendChannel[bytes]
        send, self.receive = trio.open_memory_channel[bytes](math.inf)
        self.put = send

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            while not self.credit:
                await self.room.wait()
            piece = view[: min(FRAME, self.credit)]
            view = view[len(piece) :]
            self.credit -= len(piece)
            self._frame(len(piece), 0)
            await self.session.queue(piece)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.end()

    def end(self) -> None:
        self._frame(0, FIN)

    def _frame(self, length: int, flags: int) -> None:
        self.session.add(HEADER.pack(length << 8 | DATA | self.syn | flags, self.id))
        self.syn = 0

    async def receive_some(self, max_bytes: int) -> bytes:
        data = self.left
        if data:
            await trio.lowlevel.checkpoint()
        else:
            try:
                data = await self.receive.receive()
            except trio.EndOfChannel:
                return b""
        self.left = data[max_bytes:]
        data = data[:max_bytes]
        self.owed += len(data)
        if self.owed >= WINDOW // 2:
            self.session.add(GRANT.pack(4 << 8 | WNDINC, self.id, self.owed))
            self.owed = 0
        return data

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.forget()

    def forget(self) -> None:
        self.session.streams.pop(self.id, None)


class Session:
    def __init__(
        self, transport: trio.abc.Stream, take: Callable[[Stream], object] | None, first_id: int
    ) -> None:
        self.transport = transport
        self.take = take
        self.next_id = first_id
        self.streams: dict[int, Stream] = {}
        self.waiting: list[bytes | memoryview] = []
        self.size = 0
        self.wake = trio.Event()
        self.room = trio.Event()

    def open(self) -> Stream:
        stream = self.streams[self.next_id] = Stream(self, self.next_id, SYN)
        self.next_id += 2
        return stream

    def add(self, data: bytes | memoryview) -> None:
        self.waiting.append(data)
        self.size += len(data)
        self.wake.set()

    async def queue(self, data: bytes | memoryview) -> None:
        self.add(data)
        while self.size > READ:
            await self.room.wait()

    async def write(self) -> None:
        while True:
            await self.wake.wait()
            await trio.lowlevel.checkpoint()  # others may have more for the same call
            batch, self.waiting, self.size = self.waiting, [], 0
            self.wake = trio.Event()
            self.room.set()
            self.room = trio.Event()
            await self.transport.send_all(b"".join(batch))

    async def read(self) -> None:
        tail = b""
        while chunk := await self.transport.receive_some(READ):
            data = tail + chunk if tail else chunk
            at, end = 0, len(data)
            while end - at >= 8:
                word, stream_id = HEADER.unpack_from(data, at)
                length = word >> 8
                if end - at - 8 < length:
                    break
                self._frame(word, stream_id, bytes(data[at + 8 : at + 8 + length]))
                at += 8 + length
            tail = bytes(data[at:])

    def _frame(self, word: int, stream_id: int, body: bytes) -> None:
        if word & SYN and not word & WNDINC and self.take is not None:
            stream = self.streams[stream_id] = Stream(self, stream_id, 0)
            self.take(stream)
        else:
            found = self.streams.get(stream_id)
            if found is None:
                return
            stream = found
        if word & WNDINC:
            stream.credit += int.from_bytes(body, "big")
            stream.room.set()
            stream.room = trio.Event()
        else:
            if body:
                stream.put.send_nowait(body)
            if word & FIN:
                stream.put.close()


async def handle_stream(stream: Stream) -> None:
    await answer(stream)
    stream.end()
    stream.forget()


async def serve(args: Namespace) -> None:
    async def handler(transport: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            session = Session(transport, lambda new: nursery.start_soon(handle_stream, new), 2)
            nursery.start_soon(session.write)
            await session.read()
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host=HOST))
        listening(listener.socket.getsockname()[1])


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[StreamPeer]:
    session = Session(await trio.open_tcp_stream(HOST, args.port), None, 3)

    async def open_stream() -> Stream:
        await trio.lowlevel.checkpoint()
        return session.open()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.write)
        nursery.start_soon(session.read)
        yield StreamPeer(open_stream)


if __name__ == "__main__":
    main(serve, connect)
