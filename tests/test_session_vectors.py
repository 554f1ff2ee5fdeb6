"""The session vectors, played to sessions of this library as a user has them.

``trio_muxado/vectors/README.md`` says what each key means; what came is judged as ``_check`` judges
it for any peer.  The same vectors are played to the protocol alone in
``tests/protocol/test_session_vectors.py``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from trio_muxado import MuxadoError, MuxadoSession, MuxadoStream
from trio_muxado._check import Vector, load, mirrored
from trio_muxado._check.frames import FrameReader
from trio_muxado._check.judge import Judge
from trio_muxado._check.vectors import VERSIONS, Step, Version, bytes_of, read

from .helpers import Kind, RawPeer, echo, raw_session, read_exactly
from .helpers.vectors import check_shown

SPECIFICATION = Path(__file__).parents[1] / "docs" / "specification"

VECTORS = [vector for version in VERSIONS for vector in load(version)]
BOTH_ROLES = VECTORS + [other for vector in VECTORS if (other := mirrored(vector)) is not None]

each_vector = pytest.mark.parametrize(
    "vector", VECTORS, ids=[f"{vector.version}-{vector.name}" for vector in VECTORS]
)


class Seen:
    """A stream that the application has opened or was shown, and what it has read there."""

    def __init__(self, stream: MuxadoStream) -> None:
        self.stream = stream
        self.received = bytearray()
        self.end = "open"

    async def read_on(self) -> None:
        """Read as far as it goes."""
        if self.end == "closed":
            return
        try:
            async for chunk in self.stream:
                self.received += chunk
            self.end = "fin"
        except MuxadoError:
            self.end = "error"


class Application:
    """Does what a vector tells it to, or echoes."""

    def __init__(self, session: MuxadoSession, nursery: trio.Nursery, *, echoes: bool) -> None:
        self.session = session
        self.seen: list[Seen] = []
        self._nursery = nursery
        self._echoes = echoes

    async def accept_all(self) -> None:
        with contextlib.suppress(MuxadoError):
            while True:
                stream = await self.session.accept_stream()
                self.seen.append(Seen(stream))
                if self._echoes:
                    self._nursery.start_soon(self._try, self._echo, stream)

    async def _echo(self, stream: MuxadoStream) -> None:
        await echo(stream)
        await stream.send_eof()

    async def _try(self, call: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """What a broken stream does to a call is told by reading."""
        with contextlib.suppress(MuxadoError):
            await call(*arguments)

    async def do(self, step: Step) -> None:
        assert step.do is not None
        what = step.do["do"]
        if what == "goaway":
            await self.session.goaway(step.do["error_code"])
            return
        if what == "open":
            if step.do.get("refused"):
                with pytest.raises(MuxadoError):
                    await self.session.open_stream()
            else:
                stream = await self.session.open_stream(type=step.do.get("type", 0))
                self.seen.append(Seen(stream))
            return
        *_, seen = (s for s in self.seen if s.stream.id == step.do["stream_id"])
        stream = seen.stream
        match what:
            case "send":
                # It may wait for window for as long as the vector likes.
                payload = bytes_of(step.do, "payload")
                self._nursery.start_soon(self._try, stream.send_all, payload)
            case "end":
                await wait_all_tasks_blocked()  # nothing may be sending any more
                await stream.send_eof()
            case "read":
                seen.received += await read_exactly(stream, step.do["size"])
            case "close":
                seen.end = "closed"
                await stream.aclose()
            case "reset":
                seen.end = "closed"
                await stream.reset(step.do["error_code"])
            case _:
                raise AssertionError(what)


def whole(data: bytes) -> list[bytes]:
    return [data]


def in_pieces(data: bytes) -> list[bytes]:
    """One byte at a time, as far as that ends soon."""
    return [*(data[i : i + 1] for i in range(min(len(data), 100))), data[100:]]


class Play:
    """One vector, a session under test, and a test that plays its peer."""

    def __init__(self, vector: Vector, peer: RawPeer, application: Application) -> None:
        self._judge = Judge(vector, from_outside=False)
        self._reader = FrameReader(vector.version, trusts_goaway=True)
        self._vector = vector
        self._peer = peer
        self._application = application
        self._looked_at = 0

    async def run(self, cut: Callable[[bytes], list[bytes]]) -> None:
        for step in self._vector.steps:
            if step.eof:
                self._peer.end()
                await trio.sleep(1)
                return
            self._judge.step(step)
            for piece in filter(None, cut(step.sent)):
                self._peer.send(piece)
                await wait_all_tasks_blocked()
            if step.do is not None:
                await self._application.do(step)
            await self._look()
            assert self._judge.fits, self._judge.difference()
            if self._judge.over:
                # What follows in the vector is for endpoints that have not ended the session.
                break
        assert self._peer.has_ended == self._judge.over

    async def _look(self) -> None:
        """Judge what comes until nothing moves any more; credit may take a moment."""
        await trio.sleep(1)
        await self._peer.frames()
        new = bytes(self._peer.raw[self._looked_at :])
        self._looked_at = len(self._peer.raw)
        for frame in self._reader.feed(new):
            self._judge.receive(frame)


async def check_streams(vector: Vector, application: Application) -> None:
    """The application was shown these streams and no others, and reads this on them."""
    async with trio.open_nursery() as nursery:
        for seen in application.seen:
            nursery.start_soon(seen.read_on)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert vector.shown is not None
    check_shown(vector.shown, application.seen)


# Bytes that are cut are cut alike for both roles.
PLAYS = [(vector, whole) for vector in BOTH_ROLES] + [(vector, in_pieces) for vector in VECTORS]


@pytest.mark.parametrize(
    "vector, cut", PLAYS, ids=[f"{v.version}-{v.role}-{v.name}-{cut.__name__}" for v, cut in PLAYS]
)
async def test_a_session_answers_as_it_should(
    vector: Vector, cut: Callable[[bytes], list[bytes]], autojump_clock: trio.testing.MockClock
) -> None:
    kind = Kind(vector.name, vector.version, typed=vector.typed)
    limits = {} if vector.max_streams is None else {"max_inbound_streams": vector.max_streams}
    async with (
        raw_session(kind, client=vector.role == "client", **limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        application = Application(session, nursery, echoes=vector.shown is None)
        nursery.start_soon(application.accept_all)
        await Play(vector, peer, application).run(cut)
        if vector.shown is not None:
            await check_streams(vector, application)
        nursery.cancel_scope.cancel()


def anchors(page: str) -> set[str]:
    """What a link to a section of a page may name."""
    titles = re.findall(r"^#+ (.+)$", (SPECIFICATION / page).read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


@each_vector
def test_a_vector_names_a_section_of_the_specification(vector: Vector) -> None:
    page, _, anchor = vector.rule.partition("#")
    assert page == f"{vector.version}.md"
    assert anchor in anchors(page)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_key_is_known(version: Version) -> None:
    entry_keys = {"name", "role", "typed", "max_streams", "rule", "note", "source", "steps"}
    step_keys = {"in", "zeros", "do", "eof", "out", "or", "over", "refused"}
    step_keys |= {"stream_id", "payload", "size", "error_code", "type"}
    data = read(version)
    for entry in data["sessions"] + data["echo_sessions"]:
        of_a_list = {"streams", "echo"} if "streams" in entry else set()
        assert entry.keys() <= entry_keys | of_a_list
        assert all(step.keys() <= step_keys for step in entry["steps"])
        assert all(len(step.keys() & {"in", "do", "eof"}) == 1 for step in entry["steps"])
    for entry in data["sessions"]:
        for told in entry["streams"]:
            assert told.keys() <= {"stream_id", "type", "received", "zeros", "end", "optional"}


@pytest.mark.parametrize("version", VERSIONS)
def test_names_of_sessions_are_unique(version: Version) -> None:
    names = [vector.name for vector in load(version)]
    assert len(names) == len(set(names)) > 60


@pytest.mark.parametrize("version", VERSIONS)
def test_a_vector_that_is_mirrored_twice_is_the_same(version: Version) -> None:
    for vector in load(version):
        other = mirrored(vector)
        if other is not None:
            assert other.role != vector.role
            assert mirrored(other) == vector


@pytest.mark.parametrize("version", VERSIONS)
def test_only_what_is_no_frame_or_about_id_one_has_one_role(version: Version) -> None:
    left = {vector.name for vector in load(version) if mirrored(vector) is None}
    assert {name for name in left if not name.startswith("invalid/")} == {"syn-one"}
