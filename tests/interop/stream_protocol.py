"""The tests' stream protocol, spoken by trio_muxado.

The opener of a stream writes one line that says what the acceptor shall do, then whatever
belongs to it.  The peers in Go and Rust speak the same; README.md lists the commands.  What
openers make of it is in scenarios.py.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

import trio
import trio.testing

from trio_muxado import ErrorCode, OpenStreamError, SessionEndedError, StreamResetError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_muxado import MuxadoSession, MuxadoStream

MIB = 1024 * 1024

# What the library raises when a stream or a session is no more, at whosever doing.
STREAM_ENDED = (trio.BrokenResourceError, trio.ClosedResourceError)

# A prime: data that is shifted by a window or a frame is found out.
_BLOCK = bytes((i * 7 + (i >> 8)) & 0xFF for i in range(65521))


def pattern(offset: int, length: int) -> bytes:
    """``length`` bytes of the endless pattern that all peers send, from ``offset`` on."""
    offset %= len(_BLOCK)
    blocks = (offset + length) // len(_BLOCK) + 1
    return (_BLOCK * blocks)[offset : offset + length]


def describe(error: BaseException) -> str:
    """How an end of a stream is noted: ``reset NAME``, ``refused NAME``, or what was raised."""
    if isinstance(error, (StreamResetError, OpenStreamError)):
        name = error.code.name if isinstance(error.code, ErrorCode) else error.code
        if isinstance(error, StreamResetError):
            return f"reset {name}"
        return f"refused {name}, {'safe' if error.safe_to_retry else 'not safe'} to retry"
    return repr(error)


class Incoming:
    """The receiving half of a stream: first lines, then bytes."""

    def __init__(self, stream: MuxadoStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def line(self) -> str:
        while b"\n" not in self._buffer:
            chunk = await self._stream.receive_some()
            if not chunk:
                raise EOFError(f"no line, only {self._buffer!r}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    async def some(self) -> bytes:
        if self._buffer:
            chunk, self._buffer = self._buffer, b""
            return chunk
        return bytes(await self._stream.receive_some())

    async def exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            chunk = await self._stream.receive_some()
            if not chunk:
                raise EOFError(f"{len(self._buffer)} bytes of {length}")
            self._buffer += chunk
        got, self._buffer = self._buffer[:length], self._buffer[length:]
        return got

    async def rest(self) -> bytes:
        chunks = []
        while chunk := await self.some():
            chunks.append(chunk)
        return b"".join(chunks)

    async def digest(self, look: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Length and digest of all that comes; ``look`` is called for every piece of it."""
        length, digest = 0, hashlib.sha256()
        while chunk := await self.some():
            look()
            length += len(chunk)
            digest.update(chunk)
        return length, digest.hexdigest()


class _Note:
    def __init__(self) -> None:
        self.text = ""
        self.written = trio.Event()


class Host:
    """Answers the streams that the other end opens, in either role of the session."""

    def __init__(self, session: MuxadoSession, *, drain: bool = False, seed: bool = False) -> None:
        self.session = session
        self._notes: defaultdict[str, _Note] = defaultdict(_Note)
        self._paused_until = 0.0
        self._drain = drain
        self._answer_stream = answer_seed if seed else self._answer
        self._closing = trio.Event()
        self.asked_to_drain = trio.Event()
        self.story: list[str] = []
        """What ended, in order: the word ``stream`` for each stream, and what tests add."""
        self.largest_window = 0
        """The largest receive window, in bytes, that was seen while data came."""

    async def serve(self) -> None:
        """Answers until the session ends, or until the other end asks to close it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_for_close, nursery.cancel_scope)
            # Whoever runs the session looks at how it ended.
            with contextlib.suppress(SessionEndedError):
                await self.session.serve_streams(self._answer_stream)
            nursery.cancel_scope.cancel()

    async def serve_with_pauses(self) -> None:
        """The same with an accept loop that really stops while the other end wants a pause."""
        async with trio.open_nursery() as nursery:
            async for stream in self.session:
                await trio.sleep_until(self._paused_until)
                nursery.start_soon(self._answer, stream)

    async def _wait_for_close(self, scope: trio.CancelScope) -> None:
        await self._closing.wait()
        scope.cancel()

    def note(self, key: str, text: str) -> None:
        """Write what the other end recalls."""
        self._notes[key].text = text
        self._notes[key].written.set()

    async def _recall(self, key: str) -> str:
        """A note may be asked for before it is written."""
        await self._notes[key].written.wait()
        return self._notes[key].text

    async def _answer(self, stream: MuxadoStream) -> None:
        incoming = Incoming(stream)
        try:
            words = (await incoming.line()).split()
        except EOFError:
            return  # an opener that gave up before it said anything
        reply = ""
        match words:
            case ["echo"]:
                while chunk := await incoming.some():
                    await stream.send_all(chunk)
            case ["digest"]:
                _, reply = await incoming.digest(self._look)
            case ["source", total]:
                for sent in range(0, int(total), MIB):
                    await stream.send_all(pattern(sent, min(MIB, int(total) - sent)))
            case ["answer-after-eof"]:
                length, _ = await incoming.digest()
                reply = f"got {length}"
            case ["eof-first", key]:
                await stream.send_eof()
                length, digest = await incoming.digest()
                self.note(key, f"{length} {digest}")
                return
            case ["recall", key]:
                reply = await self._recall(key)
            case ["open-back", count]:
                reply = await self._open_back(int(count))
            case ["type"]:
                reply = str(stream.type)
            case ["reset", code]:
                await stream.reset(self._code(code))
                return
            case ["flood", key]:
                self.note(key, await self._flood(stream))
                return
            case ["pause", millis]:
                self._paused_until = trio.current_time() + int(millis) / 1000
                reply = "paused"
            case ["goaway", code]:
                if self._drain:
                    self.asked_to_drain.set()
                    await trio.testing.wait_all_tasks_blocked()
                else:
                    await self.session.goaway(self._code(code), b"going away")
                reply = "gone"
            case ["close"]:
                self._closing.set()
                return
            case _:
                raise ValueError(f"unknown command {words}")
        await stream.send_all(reply.encode())
        self.story.append("stream")
        await stream.send_eof()

    def _code(self, number: str) -> ErrorCode | int:
        """What the peer calls by its number: those of the protocol have names here."""
        version = self.session.wire
        assert version is not None
        names = {code.number(version): code for code in reversed(ErrorCode)}
        return names.get(int(number), int(number))

    def _look(self) -> None:
        window = self.session.statistics().largest_receive_window
        self.largest_window = max(self.largest_window, window)

    async def _flood(self, stream: MuxadoStream) -> str:
        sent = 0
        while True:
            try:
                await stream.send_all(pattern(sent, 4096))
            except STREAM_ENDED as error:
                return describe(error)
            sent += 4096

    async def _open_back(self, count: int) -> str:
        failures: list[str] = []

        async def echo(i: int) -> None:
            payload = pattern(i * 997, 1000 + i * 331)
            try:
                if await request(self.session, "echo", payload) != payload:
                    failures.append(f"echo {i} differs")
            except STREAM_ENDED as error:
                failures.append(describe(error))

        await together(count, echo)
        return f"bad: {failures}" if failures else "ok"


async def answer_seed(stream: MuxadoStream) -> None:
    """The exchange of the server in muxado v1's README: read all, send it all back, half-close."""
    everything = await Incoming(stream).rest()
    await stream.send_all(everything)
    await stream.send_eof()


async def together(count: int, task: Callable[[int], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for i in range(count):
            nursery.start_soon(task, i)


async def _say(stream: MuxadoStream, line: str, body: bytes) -> None:
    await stream.send_all(line.encode() + b"\n")
    if body:
        await stream.send_all(body)
    await stream.send_eof()


async def request(session: MuxadoSession, line: str, body: bytes = b"", *, type: int = 0) -> bytes:
    """Opens a stream, says line and body, half-closes it and reads the whole answer."""
    async with await session.open_stream(type=type) as stream:
        # Small enough for our buffer and the other end's window: no second task is needed.
        if len(body) <= 32 * 1024:
            await _say(stream, line, body)
            return await Incoming(stream).rest()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, stream, line, body)
            return await Incoming(stream).rest()
