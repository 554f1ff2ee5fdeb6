"""The opener's role in the stream protocol: what is tried with every peer that accepts."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.testing

from trio_muxado import ErrorCode, OpenStreamError

from .stream_protocol import MIB, STREAM_ENDED, Incoming, describe, pattern, request, together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_muxado import MuxadoSession, MuxadoStream

RESET_CODES: tuple[ErrorCode | int, ...] = (
    ErrorCode.STREAM_CANCELLED,
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.STREAM_REFUSED,
    4242,
)
"""Names with other numbers on either wire, one with the same, and a number without a name."""

# Less than the smallest accept backlog of all peers (64): a burst past it may be refused.
OPENING_AT_ONCE = 48


class Half:
    """An echo in two halves: in between, the stream is certainly alive on both sides."""

    def __init__(self, stream: MuxadoStream, payload: bytes) -> None:
        self.stream = stream
        self._incoming = Incoming(stream)
        middle = len(payload) // 2
        self._first, self._second = payload[:middle], payload[middle:]

    @classmethod
    async def start(cls, session: MuxadoSession, i: int) -> Half:
        payload = f"stream {i} ".encode() + pattern(i * 37, 200 + i * 53 % 5000)
        half = cls(await session.open_stream(), payload)
        await half.stream.send_all(b"echo\n")
        await half.stream.send_all(half._first)
        assert await half._incoming.exactly(len(half._first)) == half._first
        return half

    async def echo(self, text: bytes) -> None:
        """Something more in between."""
        await self.stream.send_all(text)
        assert await self._incoming.exactly(len(text)) == text

    async def finish(self) -> None:
        async with self.stream:
            await self.stream.send_all(self._second)
            await self.stream.send_eof()
            assert await self._incoming.rest() == self._second


async def start_halves(session: MuxadoSession, count: int = 10) -> list[Half]:
    """Streams that run while something happens to the session."""
    halves: list[Half] = []
    opening = trio.CapacityLimiter(OPENING_AT_ONCE)

    async def start(i: int) -> None:
        async with opening:
            halves.append(await Half.start(session, i))

    await together(count, start)
    return halves


async def finish_halves(halves: list[Half]) -> None:
    async with trio.open_nursery() as nursery:
        for half in halves:
            nursery.start_soon(half.finish)


Outcome: TypeAlias = "dict[str, Any]"


async def echo_500(session: MuxadoSession) -> Outcome:
    """500 streams that are all open before the first one ends."""
    await finish_halves(await start_halves(session, 500))
    return {}


async def upload(session: MuxadoSession) -> Outcome:
    payload = pattern(0, 20 * MIB)
    answer = await request(session, "digest", payload)
    assert answer.decode() == hashlib.sha256(payload).hexdigest()
    return {}


async def download(session: MuxadoSession) -> Outcome:
    largest = 0

    def look() -> None:
        nonlocal largest
        largest = max(largest, session.statistics().largest_receive_window)

    async with await session.open_stream() as stream:
        await stream.send_all(b"source %d\n" % (20 * MIB))
        await stream.send_eof()
        length, digest = await Incoming(stream).digest(look)
    assert length == 20 * MIB
    assert digest == hashlib.sha256(pattern(0, 20 * MIB)).hexdigest()
    return {"largest_window": largest}


async def half_close(session: MuxadoSession) -> Outcome:
    """Either end ends its direction first, and the other one still works."""
    body = pattern(11, 200_000)
    assert await request(session, "answer-after-eof", body) == b"got 200000"

    async with await session.open_stream() as stream:
        await stream.send_all(b"eof-first half\n")
        assert await stream.receive_some() == b""
        await stream.send_all(body)
        await stream.send_eof()
        noted = await request(session, "recall half")
    assert noted.decode() == f"200000 {hashlib.sha256(body).hexdigest()}"
    return {}


async def half_close_at_once(session: MuxadoSession) -> Outcome:
    """A stream that is opened, told and half-closed at one go still gets its answer."""
    assert await request(session, "source 5") == pattern(0, 5)
    async with await session.open_stream() as stream:
        await stream.send_all(b"answer-after-eof\n")
        await stream.send_eof()
        assert await Incoming(stream).rest() == b"got 0"
    return {}


async def open_back(session: MuxadoSession) -> Outcome:
    assert await request(session, "open-back 20") == b"ok"
    return {}


async def must_echo(session: MuxadoSession, text: bytes = b"hello") -> None:
    assert await request(session, "echo", text) == text


async def overrun(session: MuxadoSession) -> Outcome:
    """300 streams while the other end accepts none: served late or refused, the session lives."""
    assert await request(session, "pause 1000") == b"paused"
    tally: Counter[str] = Counter()

    async def one(i: int) -> None:
        text = f"overrun {i}".encode()
        try:
            assert await request(session, "echo", text) == text
        except STREAM_ENDED as error:
            tally[describe(error)] += 1
        else:
            tally["served"] += 1

    await together(300, one)
    # What was refused may have left the queue as full as it was: the pause must be over.
    await trio.sleep(1)
    await must_echo(session)
    return dict(tally)


async def hold(session: MuxadoSession) -> MuxadoStream:
    """A stream until whose end the other end accepts no others."""
    holding = await session.open_stream()
    await holding.send_all(b"hold\n")
    assert await Incoming(holding).rest() == b"held"
    return holding


async def within_backlog(session: MuxadoSession, limit: int) -> Outcome:
    """300 streams, ``limit`` at once, to an end that accepts none of them until it is let.

    A stream that runs already goes on meanwhile, and in the end nothing was refused.
    """
    running = await Half.start(session, 0)
    holding = await hold(session)
    opened, served = 2, 0

    async def one(i: int) -> None:
        nonlocal opened, served
        async with await session.open_stream() as stream:
            opened += 1
            text = f"backlog {i}".encode()
            await stream.send_all(b"echo\n" + text)
            await stream.send_eof()
            assert await Incoming(stream).rest() == text
        served += 1

    async with trio.open_nursery() as nursery:
        for i in range(300):
            nursery.start_soon(one, i)
        while opened < limit:
            await trio.lowlevel.checkpoint()
        for _ in range(20):
            await running.echo(b"still here")
        assert (opened, served) == (limit, 0)
        await holding.aclose()
    await running.finish()
    assert served == 300
    assert session.statistics().reset_by_peer == 0
    return {}


async def forgotten(session: MuxadoSession, limit: int) -> Outcome:
    """300 streams that are closed at once, to an end that accepts none until it is let.

    Where the backlog was overrun they would be lost, and nobody would learn of it.
    """
    running = await Half.start(session, 0)
    holding = await hold(session)
    opened = 2

    def payload(i: int) -> bytes:
        return f"forgotten {i}".encode()

    async def one(i: int) -> None:
        nonlocal opened
        async with await session.open_stream() as stream:
            opened += 1
            await stream.send_all(f"eof-first forgotten-{i}\n".encode() + payload(i))

    async with trio.open_nursery() as nursery:
        for i in range(300):
            nursery.start_soon(one, i)
        while opened < limit:
            await trio.lowlevel.checkpoint()
        for _ in range(20):
            await running.echo(b"still here")
        assert opened == limit
        await holding.aclose()
    await running.finish()
    for i in range(300):
        noted = f"{len(payload(i))} {hashlib.sha256(payload(i)).hexdigest()}"
        assert await request(session, f"recall forgotten-{i}") == noted.encode()
    return {}


async def goaway_running(session: MuxadoSession) -> Outcome:
    """The other end's GOAWAY while our streams run: none can be opened, and they go on."""
    halves = await start_halves(session)
    assert await request(session, "goaway 0") == b"gone"
    with pytest.raises(OpenStreamError) as refused:
        await session.open_stream()
    assert refused.value.code is ErrorCode.REMOTE_GONE_AWAY
    assert refused.value.initiator == "remote"
    assert refused.value.safe_to_retry
    await finish_halves(halves)
    return {}


async def self_goaway(session: MuxadoSession) -> Outcome:
    """Our GOAWAY while our streams run: none is opened to us, and they go on."""
    halves = await start_halves(session)
    await session.goaway(ErrorCode.NO_ERROR, b"going away")
    answer = await request(session, "open-back 1")
    assert answer.startswith(b"bad: "), answer
    assert b"gone away" in answer
    await finish_halves(halves)
    return {}


async def drain_running(session: MuxadoSession) -> Outcome:
    """``drain`` while our streams run: it returns when the last one has ended, and not before."""
    halves = await start_halves(session)
    drained = trio.Event()

    async def drain() -> None:
        await session.drain()
        drained.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        for half in halves:
            await trio.testing.wait_all_tasks_blocked()
            assert not drained.is_set()
            await half.finish()
    return {}


async def leave(session: MuxadoSession) -> Outcome:
    """The other end goes away with a code and ends the session."""
    await must_echo(session)
    # The stream may end or break: the session goes away under it.
    with contextlib.suppress(*STREAM_ENDED):
        await request(session, "leave 2")
    await session.wait_closed()
    return {}


async def self_leave(session: MuxadoSession) -> Outcome:
    """We go away with a code, and end the session."""
    await must_echo(session)
    await session.goaway(ErrorCode.ENHANCE_YOUR_CALM, b"going away")
    return {}


async def resets(session: MuxadoSession) -> Outcome:
    """Codes of RST in both directions, and what the other end makes of our ``aclose``."""
    received: list[str] = []
    outcome: Outcome = {"received": received}
    for number in (7, 2, 4242):
        async with await session.open_stream() as stream:
            await stream.send_all(b"reset %d\n" % number)
            with pytest.raises(trio.BrokenResourceError) as reset:
                while True:
                    await stream.send_all(b"more")
                    await trio.sleep(0.005)
            received.append(describe(reset.value))

    async def end(name: str, how: Callable[[MuxadoStream], Awaitable[None]]) -> None:
        flooded = await session.open_stream()
        await flooded.send_all(f"flood {name}\n".encode())
        await Incoming(flooded).exactly(10_000)
        await how(flooded)
        outcome[name] = (await request(session, f"recall {name}")).decode()

    for code in RESET_CODES:
        name = code.name if isinstance(code, ErrorCode) else str(code)
        await end(name, lambda stream, code=code: stream.reset(code))  # type: ignore[misc]
    await end("aclose", lambda stream: stream.aclose())
    await must_echo(session)
    return outcome


async def typed(session: MuxadoSession) -> Outcome:
    """The type of a stream, also of many, arrives."""
    assert await request(session, "type", type=0x12345678) == b"305419896"
    await echo_500(session)
    return {}


async def seed_exchange(session: MuxadoSession) -> Outcome:
    """What the client in muxado v1's README does."""

    async def one(i: int) -> None:
        payload = (b"1" * 16, b"2" * 19)[i]
        async with await session.open_stream() as stream:
            await stream.send_all(payload)
            await stream.send_eof()
            assert await Incoming(stream).rest() == payload

    await together(2, one)
    return {}
