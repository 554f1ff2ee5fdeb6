"""A chat: every line that one client types goes to all others.

    python chat.py server [PORT]
    python chat.py client PORT NAME

Each client has one stream, both ways. A client that reads too slowly to keep up is dropped: its
messages wait in a bounded channel, and the chat never waits for it.
"""

import contextlib
import sys
from collections.abc import AsyncGenerator
from functools import partial
from typing import NamedTuple

import trio

from trio_muxado import (
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    open_muxado_session,
    serve_muxado,
)

HOST = "127.0.0.1"
LONGEST_LINE = 10_000  # bytes
PATIENCE = 10  # seconds that a member who leaves has for the lines that are queued
LINE_TOO_LONG, TOO_SLOW = 16, 17  # codes of the application's own
WAITING_LINES = 100  # for a client that does not read


async def lines(stream: trio.abc.ReceiveStream) -> AsyncGenerator[bytes, None]:
    """Yield what arrives, line by line; a stream has no boundaries of its own."""
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        if max(map(len, (*whole, rest))) > LONGEST_LINE:
            raise ValueError("a line is too long")
        for line in whole:
            yield line


class Member(NamedTuple):
    """Someone in the chat: what is queued for them, and how to throw them out."""

    lines: trio.MemorySendChannel[bytes]
    scope: trio.CancelScope


class Chat:
    """All members."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}

    def say(self, line: str, to_all_but: str) -> None:
        """Queue a line for everybody else, without waiting for anybody."""
        for name, member in self.members.items():
            if name != to_all_but:
                try:
                    member.lines.send_nowait(line.encode() + b"\n")
                except trio.WouldBlock:
                    member.scope.cancel()

    async def handle_stream(self, stream: MuxadoStream) -> None:
        """Serve one member."""
        async with contextlib.aclosing(lines(stream)) as incoming:
            await self.welcome(stream, incoming)

    async def welcome(self, stream: MuxadoStream, incoming: AsyncGenerator[bytes, None]) -> None:
        """Take the first line for a name; then lines go both ways until either side ends."""
        try:
            name = (await anext(incoming, b"")).decode(errors="replace").strip()
        except ValueError:
            await stream.reset(LINE_TOO_LONG)
            return
        if not name or name in self.members:
            await stream.send_all(b"* that name is taken\n")
            return
        self.say(f"* {name} has come", to_all_but=name)
        send, receive = trio.open_memory_channel[bytes](WAITING_LINES)
        others = ", ".join(self.members) or "nobody yet"
        send.send_nowait(f"* welcome, {name}; here: {others}\n".encode())
        code = TOO_SLOW  # if this is cancelled before `listen` is done, or soon after
        try:
            with send, receive:
                async with trio.open_nursery() as nursery:
                    self.members[name] = Member(send, nursery.cancel_scope)
                    nursery.start_soon(deliver, receive, stream)
                    if not await self.listen(name, incoming):
                        code = LINE_TOO_LONG
                        nursery.cancel_scope.cancel()
                    # What is queued still goes out, but not to one that reads nothing.
                    del self.members[name]
                    send.close()
                    nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
        finally:
            self.members.pop(name, None)
            self.say(f"* {name} has gone", to_all_but=name)
        if nursery.cancel_scope.cancelled_caught:
            await stream.reset(code)

    async def listen(self, name: str, incoming: AsyncGenerator[bytes, None]) -> bool:
        """Pass on what a member says. Return whether every line had an acceptable length."""
        try:
            async for line in incoming:
                self.say(f"{name}: {line.decode(errors='replace')}", to_all_but=name)
                await trio.lowlevel.checkpoint()  # many lines may arrive at once: let others run
        except ValueError:
            return False
        return True


async def deliver(receive: trio.MemoryReceiveChannel[bytes], stream: MuxadoStream) -> None:
    """Send a member all that is queued, whenever there is something."""
    async for line in receive:
        waiting = [line]
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                waiting.append(receive.receive_nowait())
        await stream.send_all(b"".join(waiting))


async def serve(port: int) -> None:
    """Serve until interrupted."""
    chat = Chat()

    async def handle_session(session: MuxadoSession) -> None:
        await session.serve_streams(chat.handle_stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve_muxado, handle_session, port, host=HOST))
        print("listening on port", listeners[0].socket.getsockname()[1], flush=True)


async def join(port: int, name: str) -> None:
    """Send what is typed, show what the others say. The end of the input leaves the chat."""
    async with (
        open_muxado_session(HOST, port) as session,
        await session.open_stream() as stream,
        trio.open_nursery() as nursery,
    ):

        async def show() -> None:
            try:
                async with contextlib.aclosing(lines(stream)) as incoming:
                    async for line in incoming:
                        print(line.decode(), flush=True)
            except MuxadoError as error:
                print("the chat is over:", error, flush=True)
            nursery.cancel_scope.cancel()

        nursery.start_soon(show)
        # A thread waits for the keyboard; it is left behind when the chat ends first.
        read = partial(trio.to_thread.run_sync, sys.stdin.readline, abandon_on_cancel=True)
        with contextlib.suppress(MuxadoError):  # `show` says what happened
            await stream.send_all(name.encode() + b"\n")
            while line := await read():
                await stream.send_all(line.encode())
            await stream.send_eof()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", *port]:
            trio.run(serve, int(port[0]) if port else 8765)
        case ["client", port, name]:
            trio.run(join, int(port), name)
        case _:
            sys.exit(__doc__)
