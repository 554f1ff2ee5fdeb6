"""The opener's role in the stream protocol: what is tried with every peer that accepts."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
import trio.testing

from trio_muxado import ErrorCode

from .stream_protocol import MIB, STREAM_ENDED, Incoming, describe, pattern, request, together

if TYPE_CHECKING:
    from trio_muxado import MuxadoSession, MuxadoStream

# Less than the smallest accept backlog of all peers (64): a burst past it may be refused.
OPENING_AT_ONCE = 48


class Half:
    """An echo in two halves: in between, the stream is certainly alive at both ends."""

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
    got = await request(session, f"source {20 * MIB}")
    assert hashlib.sha256(got).digest() == hashlib.sha256(pattern(0, 20 * MIB)).digest()
    return {}


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
    """A stream that is opened, told and half-closed at one go still gets its answer (defect 4)."""
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


async def expect_refusal(session: MuxadoSession) -> None:
    """No stream can be opened once the other end has sent GOAWAY."""
    try:
        await request(session, "echo")
    except STREAM_ENDED:
        return
    raise AssertionError("a stream was opened in spite of the GOAWAY")


async def goaway_running(session: MuxadoSession) -> Outcome:
    """The other end's GOAWAY while our streams run: they run to their end."""
    halves = await start_halves(session)
    assert await request(session, "goaway 0") == b"gone"
    await finish_halves(halves)
    await expect_refusal(session)
    return {}


async def self_goaway(session: MuxadoSession) -> Outcome:
    """Our GOAWAY while our streams run: they run to their end, and none is opened to us."""
    halves = await start_halves(session)
    await session.goaway(ErrorCode.NO_ERROR, b"going away")
    await finish_halves(halves)
    answer = await request(session, "open-back 1")
    assert answer.startswith(b"bad: "), answer
    return {}


async def drain_running(session: MuxadoSession) -> Outcome:
    """``drain`` while our streams run: it lasts as long as they do."""
    halves = await start_halves(session)
    drained = trio.Event()

    async def drain() -> None:
        await session.drain()
        drained.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked()
        assert not drained.is_set()
        await finish_halves(halves)
    return {}


async def resets(session: MuxadoSession) -> Outcome:
    """Codes of RST in both directions, and what the other end makes of our ``aclose``."""
    outcome: Outcome = {}
    async with await session.open_stream() as stream:
        await stream.send_all(b"reset 7\n")
        try:
            while True:
                await stream.send_all(b"more")
                await trio.sleep(0.005)
        except trio.BrokenResourceError as error:
            outcome["received"] = describe(error)

    for name, end in (
        ("reset", lambda stream: stream.reset(ErrorCode.STREAM_CANCELLED)),
        ("aclose", lambda stream: stream.aclose()),
    ):
        flooded = await session.open_stream()
        await flooded.send_all(f"flood {name}\n".encode())
        await Incoming(flooded).exactly(10_000)
        await end(flooded)
        outcome[name] = (await request(session, f"recall {name}")).decode()
    await must_echo(session)
    return outcome


async def typed(session: MuxadoSession) -> Outcome:
    """The type of a stream, also of many, arrives."""
    assert await request(session, "type", type=0x12345678) == b"305419896"
    await echo_500(session)
    return {}


async def seed_exchange(session: MuxadoSession) -> Outcome:
    """What the client in the seed's README does."""

    async def one(i: int) -> None:
        payload = (b"1" * 16, b"2" * 19)[i]
        async with await session.open_stream() as stream:
            await stream.send_all(payload)
            await stream.send_eof()
            assert await Incoming(stream).rest() == payload

    await together(2, one)
    return {}
