"""The counters of a connection."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.counts import Counts

from .driver import BOTH, V1, V2, End

both = pytest.mark.parametrize("wire", BOTH)


def changed(end: End, before: Counts) -> dict[str, int]:
    """What has been counted since."""
    now, then = dataclasses.asdict(end.core.counts), dataclasses.asdict(before)
    return {name: now[name] - then[name] for name in now if now[name] != then[name]}


def snapshot(end: End) -> Counts:
    return dataclasses.replace(end.core.counts)


@both
def test_frames_are_counted_and_not_their_pieces(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    before = snapshot(end)
    frames = end.data(3, bytes(100)) + end.goaway(0, 0, b"a debug text")
    end.feed(*(frames[i : i + 1] for i in range(len(frames))))
    assert changed(end, before) == {"frames_received": 2}


@both
def test_streams_of_both_ends_are_counted(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    end.core.open_stream()
    end.core.open_stream()
    assert (end.core.counts.offered, end.core.counts.opened) == (1, 2)


@both
@pytest.mark.parametrize("limit", ["max_inbound_streams", "accept_backlog"])
def test_refused_streams_are_counted(wire: Wire, limit: str) -> None:
    limits: dict[str, Any] = {limit: 1}
    end = End(wire, **limits)
    end.feed(end.syn(3), end.syn(5), end.syn(7))
    assert (end.core.counts.offered, end.core.counts.refused) == (1, 2)
    assert end.core.counts.resets_sent == 2


@both
def test_resets_are_counted(wire: Wire) -> None:
    end = End(wire)
    mine, _ = end.accept(3), end.accept(5)
    before = snapshot(end)
    end.core.reset(mine, 7)
    end.feed(end.rst(5))
    end.sent()
    assert changed(end, before) == {
        "resets_sent": 1,
        "resets_received": 1,
        "frames_received": 1,
        "frames_sent": 1,
    }


def test_a_reset_that_nobody_needs_is_not_counted() -> None:
    end = End(V2, client=True)
    end.core.reset(end.core.open_stream(), 7)
    assert (end.core.counts.resets_sent, end.core.counts.frames_sent) == (0, 0)


@pytest.mark.parametrize("wire, frames", [(V1, 3), (V2, 2)])
def test_every_frame_that_leaves_is_counted(wire: Wire, frames: int) -> None:
    end = End(wire, client=True, receive_window=1_000_000)
    end.core.send(end.core.open_stream(), b"hello")
    assert len(end.sent()) == frames == end.core.counts.frames_sent


@both
def test_each_frame_of_a_run_is_counted(wire: Wire) -> None:
    end = End(wire)
    end.accept(3)
    before = snapshot(end)
    end.feed(end.data(3, bytes(4096)) * 10)
    assert changed(end, before) == {"frames_received": 10}
