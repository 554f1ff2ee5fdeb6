"""A sender without window asks whether the peer still has the stream."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import StreamBroken
from trio_muxado._protocol.frames import Data
from trio_muxado._protocol.outbox import PROBES_IN_A_ROW
from trio_muxado._protocol.stream import Stream

from .driver import BOTH, End, failed, only, pipe

both = pytest.mark.parametrize("wire", BOTH)


def starve(end: End, more: int = 1) -> Stream:
    """A stream of this end that has used its window up and has more to send."""
    stream = end.open()
    end.core.send(stream, bytes(end.wire.initial_window + more))
    end.sent()
    return stream


@both
def test_a_probe_is_an_empty_frame_without_an_end(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = starve(end)
    assert not end.core.probe()  # it may have been without window for no time at all
    assert end.core.probe()
    assert end.core.wants_to_send
    assert end.sent() == [Data(stream.id, 0, b"", syn=False, fin=False)]


def looks_until_asked(end: End) -> int:
    """How often the streams without window are looked at before the next probe."""
    for looks in range(1, 1000):
        if end.core.probe():
            end.sent()
            return looks
    raise AssertionError("nothing was asked")


@both
def test_a_stream_is_probed_again_after_twice_as_long(wire: Wire) -> None:
    """A model found it: who was asked once, and closes afterwards, left the sender waiting."""
    end = End(wire, client=True)
    starve(end)
    assert [looks_until_asked(end) for _ in range(6)] == [2, 2, 4, 8, 16, 32]


@both
def test_window_begins_it_anew(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = starve(end, more=10)
    assert looks_until_asked(end) == 2
    end.core.send(stream, b"more")
    assert looks_until_asked(end) == 2
    end.core.withdraw(stream, keep=10)
    assert looks_until_asked(end) == 4
    end.feed(end.wndinc(stream.id, 5))
    end.sent()
    assert looks_until_asked(end) == 2


@both
def test_a_peer_that_has_closed_the_stream_answers_and_it_breaks(wire: Wire) -> None:
    """As Go v2 does, which gives no credit back when it closes a stream that nobody has read."""
    end = End(wire, client=True)
    stream = starve(end)
    assert looks_until_asked(end) == 2
    broken = only(end.feed(end.rst(stream.id, ErrorCode.STREAM_CLOSED)))
    assert isinstance(broken, StreamBroken)
    assert broken.stream is stream
    assert not any(end.core.probe() for _ in range(8))


@both
@pytest.mark.parametrize("what", ["nothing to send", "window", "unopened", "ended", "over"])
def test_only_a_stream_without_window_is_probed(wire: Wire, what: str) -> None:
    end = End(wire, client=True)
    if what == "unopened":
        stream = end.core.open_stream()
        end.core.send(stream, b"x")
    else:
        stream = end.open()
        if what == "window":
            end.core.send(stream, b"x")
        elif what == "ended":
            end.core.end_sending(stream)
        elif what == "over":
            end.core.send(stream, bytes(2 * wire.initial_window))
            end.sent()
            end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
    assert not any(end.core.probe() for _ in range(8))


@both
def test_a_stream_that_is_closed_here_and_waits_for_window_is_probed_as_well(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = starve(end)
    end.core.close(stream)
    assert looks_until_asked(end) == 2


@both
def test_many_probes_are_no_flood(wire: Wire) -> None:
    end = End(wire, client=True, max_outbound_streams=None)
    peer = End(wire)
    streams = [starve(end) for _ in range(200)]
    for stream in streams[:200:7]:
        assert not failed(peer.feed(peer.syn(stream.id)))
    assert not failed(pipe(end, peer))
    asked: set[int] = set()
    for _ in range(20):
        for _ in range(4):
            end.core.probe()
        probes = [frame for frame in end.sent() if isinstance(frame, Data)]
        asked |= {frame.stream_id for frame in probes}
        assert len(probes) <= PROBES_IN_A_ROW
        assert not failed(peer.feed(*(end.data(frame.stream_id) for frame in probes)))
        end.core.end_sending(end.open())
        assert not failed(pipe(end, peer))
    assert asked == {stream.id for stream in streams}


@both
def test_a_peer_of_ours_that_has_the_stream_ignores_a_probe(wire: Wire) -> None:
    end, peer = End(wire, client=True), End(wire)
    stream = end.core.open_stream()
    end.core.send(stream, bytes(wire.initial_window + 1))
    pipe(end, peer)
    assert [end.core.probe(), end.core.probe()] == [False, True]
    assert pipe(end, peer) == []
    assert peer.sent() == []
