"""The check finds nothing in this library, and finds the mistakes of a peer that makes some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_muxado import MuxadoConfig, MuxadoError, MuxadoStream, client_session, server_session
from trio_muxado._check import Result, Vector, echo_vectors, load, play
from trio_muxado._check.frames import HEADER, FrameReader, Header
from trio_muxado._check.judge import Judge
from trio_muxado._check.vectors import VERSIONS, Role, Version, read

from .helpers import echo

KINDS: list[tuple[Version, bool]] = [("v1", False), ("v2", False), ("v2", True)]

ROLES: tuple[Role, ...] = ("client", "server")

PLAYED = [
    vector
    for role in ROLES
    for version, typed in KINDS
    for vector in echo_vectors(version, role=role, typed=typed)
]
each_played = pytest.mark.parametrize(
    "vector", PLAYED, ids=lambda v: f"{v.version}-{v.role}-{v.name}"
)

NAMES = {"v1": {1: "SYN", 2: "RST", 3: "DATA", 4: "WNDINC", 6: "GOAWAY"}}
NAMES["v2"] = {0: "RST", 1: "DATA", 2: "WNDINC", 3: "GOAWAY"}

Change = Callable[[str, Header, bytes], Iterable[tuple[Header, bytes]]]
"""What becomes of a frame that the peer sends: its name, header and body; the frames to send."""


class Mistaken(trio.abc.HalfCloseableStream):
    """A transport that makes mistakes in what its user sends."""

    def __init__(
        self, inner: trio.abc.HalfCloseableStream, version: Version, change: Change
    ) -> None:
        self._inner = inner
        self._version: Version = version
        self._change = change
        self._waiting = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._waiting += data
        out = b""
        while len(self._waiting) >= HEADER:
            header = Header.parse(self._version, self._waiting)
            size = HEADER + header.length
            body, self._waiting = self._waiting[HEADER:size], self._waiting[size:]
            name = NAMES[self._version][header.type]
            for changed, payload in self._change(name, header, body):
                out += changed.encode(self._version) + payload
        if out:
            await self._inner.send_all(out)
        else:
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def echo_peer(stream: MuxadoStream) -> None:
    """All that the contract in docs/specification/vectors.md asks for."""
    await echo(stream)
    await stream.send_eof()


def unchanged(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
    return [(header, body)]


@asynccontextmanager
async def peer_for(vector: Vector, change: Change) -> AsyncIterator[trio.abc.Stream]:
    near, far = memory_stream_pair()
    config = MuxadoConfig(wire=vector.version, typed=vector.typed, heartbeat=None)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            transport = Mistaken(far, vector.version, change)
            with suppress(MuxadoError):  # vectors end sessions in every way
                make = client_session if vector.role == "client" else server_session
                async with make(transport, config=config) as session:
                    await session.serve_streams(echo_peer)

        nursery.start_soon(serve)
        yield near
        nursery.cancel_scope.cancel()


async def check(vector: Vector, change: Change = unchanged) -> Result:
    async with peer_for(vector, change) as stream:
        return await play(vector, stream)


@each_played
async def test_the_check_finds_nothing_here(vector: Vector, autojump_clock: Any) -> None:
    result = await check(vector)
    assert result.difference is None
    assert result.malformed is None


# ---- mistakes


def without(*names: str) -> Change:
    return lambda name, header, body: [] if name in names else [(header, body)]


def twice(*names: str) -> Change:
    return lambda name, header, body: [(header, body)] * (1 + (name in names))


def other_code(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
    at = {"RST": 0, "GOAWAY": 4}.get(name)
    if at is not None:
        body = body[:at] + bytes([0, 0, 0, 2]) + body[at + 4 :]
    return [(header, body)]


def without_fin(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
    if name == "DATA":
        header = Header(header.length, header.type, header.flags & ~1, header.stream_id)
    return [(header, body)]


def fin_at_once(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
    if name == "DATA":
        header = Header(header.length, header.type, header.flags | 1, header.stream_id)
    return [(header, body)]


def without_data_on_3(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
    """As a peer that answers no heartbeats."""
    return [] if name == "DATA" and header.stream_id == 3 else [(header, body)]


def other_bytes(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
    return [(header, body[::-1] if name == "DATA" and header.stream_id < 100 else body)]


def streams_of_its_own(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
    """It opens stream 8 after every frame."""
    opening = Header(0, 1, 0 if header.type == 3 else 2, 8)  # DATA is 3 on v1
    return [(header, body), (opening, b"")] if name == "DATA" else [(header, body)]


MISTAKES: dict[str, tuple[Change, dict[str, set[str]]]] = {
    "sends no RST": (
        without("RST"),
        {
            "v1": {"rst-after-the-data", "syn-unknown-extension", "wndinc-overflow"},
            "v2": {"data-unknown", "window-overrun-by-the-first-frame", "wndinc-overflow"},
        },
    ),
    "answers twice": (twice("RST"), {"v1": {"echo-then-late-data"}, "v2": {"data-unknown"}}),
    "gives other codes": (
        other_code,
        {"v1": {"syn-own-parity", "data-idle", "wndinc-overflow"}, "v2": {"syn-twice"}},
    ),
    "sends no GOAWAY": (
        without("GOAWAY"),
        {"v1": {"syn-twice", "error-after-their-goaway"}, "v2": {"error-after-their-goaway"}},
    ),
    "grants nothing": (
        without("WNDINC"),
        {"v1": {"window-granted-at-half"}, "v2": {"window-granted-at-half"}},
    ),
    "never ends a direction": (without_fin, {"v1": {"echo"}, "v2": {"echo"}}),
    "ends too early": (fin_at_once, {"v1": {"echo"}, "v2": {"echo", "echo-fin-after-the-data"}}),
    "sends other bytes": (other_bytes, {"v1": {"echo"}, "v2": {"echo"}}),
    "answers nothing on stream 3": (
        without_data_on_3,
        {"v1": {"heartbeat-echo", "heartbeat-ends"}, "v2": {"heartbeat-echo", "heartbeat-ends"}},
    ),
    "opens streams": (streams_of_its_own, {"v1": {"echo"}, "v2": {"echo"}}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_mistake_is_found(mistake: str, version: Version, autojump_clock: Any) -> None:
    change, names = MISTAKES[mistake]
    vectors = {vector.name: vector for vector in load(version)}
    for name in names[version]:
        result = await check(vectors[name], change)
        assert result.difference is not None, name


async def test_a_goaway_of_a_wrong_length_is_told_apart(autojump_clock: Any) -> None:
    def overstates(name: str, header: Header, body: bytes) -> Iterable[tuple[Header, bytes]]:
        if name == "GOAWAY":
            header = Header(header.length + 8, header.type, header.flags, header.stream_id)
        return [(header, body)]

    (vector,) = (v for v in load("v1") if v.name == "syn-own-parity")
    result = await check(vector, overstates)
    assert result.difference is None
    assert result.malformed is not None
    assert "GOAWAY announces" in result.malformed


async def test_a_peer_that_is_gone_is_an_answer(autojump_clock: Any) -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    (vector,) = (v for v in load("v2") if v.name == "echo")
    result = await play(vector, near)
    assert result.difference is not None
    assert "the transport has ended" in result.difference


async def test_a_peer_that_says_nothing_costs_the_timeout(autojump_clock: Any) -> None:
    near, _far = memory_stream_pair()
    (vector,) = (v for v in load("v2") if v.name == "echo")
    start = trio.current_time()
    result = await play(vector, near, timeout=5)
    assert result.difference == "missing: 5 bytes of DATA on stream 3"
    assert trio.current_time() - start == pytest.approx(5)


async def test_heartbeats_of_the_peer_are_answered(autojump_clock: Any) -> None:
    """Go v1 can't do without them, and ends the session if its own are not echoed."""
    near, far = memory_stream_pair()
    (vector,) = (v for v in load("v1") if v.name == "echo")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play, vector, near)
        await far.send_all(bytes.fromhex("0008 06 01 00000002 7fffffff fffffeff"))
        await far.send_all(bytes.fromhex("0004 00 03 00000002 deadbeef"))
        received = b""
        while b"\xde\xad\xbe\xef" not in received:
            received += await far.receive_some()
        assert received.endswith(bytes.fromhex("0004 00 03 00000002 deadbeef"))
        nursery.cancel_scope.cancel()


# ---- rules that need an application which is told what to do

# What a mistaken endpoint sends, step by step, where a right one sends something else.
RST_3_CLOSED = {"frame": "RST", "stream_id": 3, "error_code": 4}
SYN_5 = {
    "v1": {"frame": "SYN", "stream_id": 5, "priority": 0, "type": 0, "fin": False},
    "v2": {"frame": "DATA", "stream_id": 5, "payload": b"", "syn": True, "fin": False},
}


def usual(vector: Vector) -> list[list[dict[str, Any]]]:
    """The first answer of every step, as frames that have come."""
    answers = []
    reset: set[int] = set()  # nothing more is due on these
    for step in vector.steps:
        frames = []
        for frame in step.answers[0]:
            if frame.get("stream_id") in reset:
                continue
            if frame["frame"] == "RST":
                reset.add(frame["stream_id"])
            payload = bytes.fromhex(frame.get("payload", "")) + bytes(frame.get("zeros", 0))
            frames.append({**frame, "payload": payload} if frame["frame"] == "DATA" else {**frame})
        answers.append(frames)
    return answers


def is_right(vector: Vector, answers: list[list[dict[str, Any]]]) -> bool:
    judge = Judge(vector, from_outside=False)
    for step, frames in zip(vector.steps, answers, strict=True):
        if step.eof:
            break
        judge.step(step)
        for frame in frames:
            judge.receive(frame)
        if not judge.fits:
            return False
    return True


@pytest.mark.parametrize("version", VERSIONS)
def test_the_usual_answers_are_right(version: Version) -> None:
    for vector in load(version):
        assert is_right(vector, usual(vector)), vector.name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "name, step, frames",
    [
        pytest.param("open-after-their-goaway", 2, "SYN 5", id="opens after a GOAWAY"),
        pytest.param("error-after-their-goaway", 2, [], id="is silent after a GOAWAY"),
        pytest.param("too-many-streams", 1, [], id="has no limit of streams"),
        pytest.param(
            "close-with-data-the-window-lets-out", 3, [RST_3_CLOSED], id="drops what could go out"
        ),
        pytest.param("late-data-after-our-close", 2, [], id="lets late data pass"),
        pytest.param("goaway-ends-streams-above", -2, [], id="is silent on a stream it has ended"),
        pytest.param("heartbeat-echo", -2, [], id="echoes no heartbeats"),
        pytest.param("goaway-by-a-client", 1, "no filler", id="has no filler after a GOAWAY"),
        pytest.param("typed-credit-for-the-type", 1, [], id="forgets the credit of the type"),
        pytest.param("syn-while-data-waits", -1, [], id="takes a second SYN for a new stream"),
    ],
)
def test_a_rule_is_tested(version: Version, name: str, step: int, frames: Any) -> None:
    vectors = {vector.name: vector for vector in load(version)}
    if name not in vectors:
        assert version == "v1"  # the rule is of v2 alone
        return
    answers = usual(vectors[name])
    if frames == "SYN 5":
        frames = [SYN_5[version]]
    elif frames == "no filler":
        frames = answers[step][:1]
    answers[step] = frames
    assert not is_right(vectors[name], answers)


# ---- the second codec


@pytest.mark.parametrize("version", VERSIONS)
def test_the_frame_reader_reads_the_golden_bytes(version: Version) -> None:
    for entry in read(version)["vectors"]:
        found = list(FrameReader(version).feed(bytes.fromhex(entry["hex"])))
        expected = []
        for frame in entry["frames"]:
            frame = {key: value for key, value in frame.items() if key not in ("debug",)}
            if frame["frame"] == "DATA":
                frame["payload"] = bytes.fromhex(frame["payload"])
            if frame["frame"] == "UNKNOWN":
                frame = {key: frame[key] for key in ("frame", "stream_id", "type")}
            expected.append(frame)
        assert found == expected, entry["name"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_headers_are_read_and_written(version: Version) -> None:
    for entry in read(version)["headers"]:
        raw = bytes.fromhex(entry["hex"])
        header = Header.parse(version, raw)
        assert header == Header(**entry["header"])
        assert Header.parse(version, header.encode(version)) == header
