"""The `sessions` of tests/vectors: what an end has to answer, however the bytes are cut.

``tests/vectors/README.md`` says what each key means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import pytest

from trio_muxado._protocol import events
from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.states import Custody, SessionState
from trio_muxado._protocol.stream import Broken, Stream

from .driver import End
from .test_vectors import FILES, Entry, as_entries, entries

LOST = Broken(ErrorCode.PEER_EOF, "remote", "the transport ended", ends_session=True)


class Seen:
    """What the application has been told of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.received = b""
        self.end = "open"

    def ended(self, how: str) -> None:
        """The first end is the one that counts."""
        if self.end == "open":
            self.end = how


class Session:
    """The end under test, and an application that takes every stream and notes what it is told."""

    def __init__(self, wire: Wire, entry: Entry) -> None:
        self.end = End(wire, client=entry["role"] == "client", typed=entry.get("typed", False))
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

    def do(self, step: Entry) -> None:
        core = self.core
        if step["do"] == "open":
            self.seen.append(Seen(core.open_stream(stream_type=step.get("type", 0))))
            return
        if step["do"] == "goaway":
            core.goaway(step["error_code"], b"")
            return
        *_, seen = (seen for seen in self.seen if seen.stream.id == step["stream_id"])
        match step["do"]:
            case "send":
                core.send(seen.stream, payload_of(step))
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

    def sent(self) -> list[Entry]:
        """Everything that goes out, with the payloads of a stream in one piece."""
        frames: list[Entry] = []
        for frame in as_entries(self.end.wire, iter(self.end.sent())):
            frame.pop("debug", None)
            before = frames[-1] if frames else {}
            same = [before.get(key) == frame.get(key) for key in ("frame", "stream_id")]
            if frame["frame"] == "DATA" and all(same) and not before["fin"]:
                before["payload"] += frame["payload"]
                before["fin"] = frame["fin"]
            else:
                frames.append(frame)
        return frames


def payload_of(entry: Entry, key: str = "payload") -> bytes:
    return bytes.fromhex(entry.get(key, "")) + bytes(entry.get("zeros", 0))


def plain(frames: Iterable[Entry], *, less: str = "") -> list[str]:
    """Frames in a form and an order in which they can be compared."""
    texts = []
    for frame in frames:
        if frame["frame"] == "DATA":
            frame = frame | {"payload": payload_of(frame).hex()}
            frame.pop("zeros", None)
        if frame["frame"] != less:
            texts.append(json.dumps(frame, sort_keys=True))
    return sorted(texts)


def run(wire: Wire, entry: Entry, cut: Callable[[bytes], list[bytes]]) -> Session:
    session = Session(wire, entry)
    for step in entry["steps"]:
        over = step.get("over", False)
        if "in" in step:
            for piece in cut(payload_of(step, "in")):
                session.take(session.end.feed(piece))
        elif "eof" in step:
            session.take(session.core.end(LOST))
            break
        else:
            session.do(step)
        allowed = [step.get("out", []), *step.get("or", [])]
        # Credit may be granted at any time: it only counts where it is asked for.
        asked = any(frame["frame"] == "WNDINC" for frames in allowed for frame in frames)
        sent = session.sent()
        ignored = "" if asked else "WNDINC"
        assert plain(sent, less=ignored) in [plain(frames, less=ignored) for frames in allowed]
        over |= "in" in step and any(frame["frame"] == "GOAWAY" for frame in sent)
        assert (session.core.state is SessionState.ENDED) == over
        if over:
            assert step is entry["steps"][-1]
    return session


def whole(data: bytes) -> list[bytes]:
    return [data]


def in_pieces(data: bytes) -> list[bytes]:
    """One byte at a time, as far as that ends soon."""
    return [data[i : i + 1] for i in range(min(len(data), 200))] + [data[200:]]


@entries("sessions")
@pytest.mark.parametrize("cut", [whole, in_pieces])
def test_an_end_answers_as_it_should(
    wire: Wire, entry: Entry, cut: Callable[[bytes], list[bytes]]
) -> None:
    session = run(wire, entry, cut)
    expected = entry["streams"]
    assert [seen.stream.id for seen in session.seen] == [told["stream_id"] for told in expected]
    for seen, told in zip(session.seen, expected, strict=True):
        assert seen.stream.type == told.get("type", 0)
        if "received" in told:
            assert seen.received == payload_of(told, "received")
        if "end" in told:
            assert seen.end == told["end"]


@entries("sessions")
def test_every_key_of_a_step_is_known(wire: Wire, entry: Entry) -> None:
    known = {"in", "zeros", "do", "eof", "out", "or", "over"}
    known |= {"stream_id", "payload", "size", "error_code", "type"}
    assert all(step.keys() <= known for step in entry["steps"])
    assert all(len(step.keys() & {"in", "do", "eof"}) == 1 for step in entry["steps"])


@pytest.mark.parametrize("wire", FILES)
def test_names_of_sessions_are_unique(wire: Wire) -> None:
    names = [entry["name"] for entry in FILES[wire]["sessions"]]
    assert len(names) == len(set(names)) > 20
