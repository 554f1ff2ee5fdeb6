"""The session vectors: what an endpoint has to answer, however the bytes are cut.

``trio_muxado/vectors/README.md`` says what each key means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from trio_muxado._check import Vector, load
from trio_muxado._check.frames import FrameReader
from trio_muxado._check.judge import Judge
from trio_muxado._check.vectors import VERSIONS, bytes_of
from trio_muxado._protocol import events
from trio_muxado._protocol.errors import ErrorCode, OpenRefused
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.states import Custody, SessionState
from trio_muxado._protocol.stream import BreakReason, Stream
from trio_muxado._protocol.wire import WIRES

from ..helpers.vectors import check_shown
from .driver import End

LOST = BreakReason(ErrorCode.PEER_EOF, "remote", "the transport ended", ends_session=True)


class Seen:
    """What the application has seen of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.received = b""
        self.end = "open"

    def ended(self, how: str) -> None:
        """The first end is the one that counts."""
        if self.end == "open":
            self.end = how


class Session:
    """The endpoint under test, and an application that accepts and notes what it sees."""

    def __init__(self, vector: Vector) -> None:
        self.end = End(
            WIRES[vector.version],
            client=vector.role == "client",
            typed=vector.typed,
            max_inbound_streams=vector.max_streams or Limits.max_inbound_streams,
        )
        self.core = self.end.core
        self.seen: list[Seen] = []

    def of(self, stream: Stream) -> Iterator[Seen]:
        return (seen for seen in self.seen if seen.stream is stream)

    def take(self, told: Iterable[events.Event]) -> None:
        for event in told:
            match event:
                case events.StreamOpened(stream):
                    if stream.custody is Custody.WAITING:
                        self.seen.append(Seen(stream))
                        self.core.accept(stream)
                case events.DataReceived(stream, data, ended):
                    for seen in self.of(stream):
                        seen.received += data
                        if ended:
                            seen.ended("fin")
                case events.StreamBroken(stream):
                    for seen in self.of(stream):
                        seen.ended("error")
                case events.PeerEnded():
                    self.take(self.core.end(LOST))

    def do(self, step: Mapping[str, Any]) -> None:
        core = self.core
        if step.get("refused"):
            with pytest.raises(OpenRefused):
                core.open_stream()
            return
        if step["do"] == "open":
            self.seen.append(Seen(core.open_stream(stream_type=step.get("type", 0))))
            return
        if step["do"] == "goaway":
            core.goaway(step["error_code"], b"")
            return
        *_, seen = (seen for seen in self.seen if seen.stream.id == step["stream_id"])
        match step["do"]:
            case "send":
                core.send(seen.stream, bytes_of(step, "payload"))
            case "end":
                core.end_sending(seen.stream)
            case "read":
                core.consume(seen.stream, step["size"])
            case "close":
                seen.ended("closed")
                core.close(seen.stream)
            case "reset":
                seen.ended("closed")
                core.reset(seen.stream, step["error_code"])
            case unknown:
                raise AssertionError(unknown)


def run(vector: Vector, cut: Callable[[bytes], list[bytes]]) -> Session:
    session = Session(vector)
    judge, reader = (
        Judge(vector, from_outside=False),
        FrameReader(vector.version, trusts_goaway=True),
    )
    for step in vector.steps:
        if step.eof:
            session.take(session.core.end(LOST))
            break
        judge.step(step)
        for piece in filter(None, cut(step.sent)):
            session.take(session.end.feed(piece))
        if step.do is not None:
            session.do(step.do)
        for frame in reader.feed(session.end.bytes_sent()):
            judge.receive(frame)
        assert judge.fits, judge.difference()
        assert (session.core.state is SessionState.ENDED) == judge.over
        if judge.over:
            break
    return session


def whole(data: bytes) -> list[bytes]:
    return [data]


def in_pieces(data: bytes) -> list[bytes]:
    """One byte at a time, as far as that ends soon."""
    return [data[i : i + 1] for i in range(min(len(data), 200))] + [data[200:]]


VECTORS = [
    vector
    for version in VERSIONS
    for vector in load(version)
    # Whoever echoes, heartbeats or all, is above the protocol: see tests/test_session_vectors.py.
    if vector.shown is not None and vector.name not in ("heartbeat-echo", "heartbeat-ends")
]


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v.version}-{v.name}" for v in VECTORS])
@pytest.mark.parametrize("cut", [whole, in_pieces])
def test_an_endpoint_answers_as_it_should(
    vector: Vector, cut: Callable[[bytes], list[bytes]]
) -> None:
    session = run(vector, cut)
    assert vector.shown is not None
    check_shown(vector.shown, session.seen)
