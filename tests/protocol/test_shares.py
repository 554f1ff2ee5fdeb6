"""Equal streams get equal windows and equal shares of a link, whenever each of them began.

A client sends bulk on a few streams through a link of a given rate and delay; the time is that of
the simulation.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.events import DataReceived, StreamOpened
from trio_muxado._protocol.stream import Stream

from .driver import BOTH, End, receive

both = pytest.mark.parametrize("wire", BOTH)

BATCH = 252 * 1024
CHUNK = bytes(256 * 1024)


class Link:
    """A client and a server that reads at once, and a link between them."""

    def __init__(self, wire: Wire, *, rate: float, delay: float, **limits: Any) -> None:
        self.client = End(wire, client=True, **limits)
        self.server = End(wire, **limits)
        self._rate = rate
        self._delay = delay
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._sends = False
        self.streams: list[Stream] = []
        self._silent: set[Stream] = set()
        self.received: Counter[int] = Counter()

    def at(self, time: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (time, self._number, what))

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, what = heapq.heappop(self._due)
            what()
        self.now = until

    def open(self) -> None:
        stream = self.client.core.open_stream()
        self.streams.append(stream)
        self._fill(stream)
        self._send()

    def silence(self, streams: Iterable[Stream]) -> None:
        """Nothing more is sent on these, but for what waits."""
        self._silent.update(streams)

    def _fill(self, stream: Stream) -> None:
        if stream.outgoing.size <= len(CHUNK) and stream not in self._silent:
            self.client.core.send(stream, CHUNK)

    def _send(self) -> None:
        if self._sends or not self.client.core.wants_to_send:
            return
        batch, streams = self.client.core.data_to_send(BATCH)
        for stream in streams:
            self._fill(stream)
        data = b"".join(batch)
        self._sends = True
        sent = self.now + len(data) / self._rate
        self.at(sent, self._go_on)
        self.at(sent + self._delay, partial(self._arrive, data))

    def _go_on(self) -> None:
        self._sends = False
        self._send()

    def _arrive(self, data: bytes) -> None:
        core = self.server.core
        for event in receive(core, data, self.now):
            match event:
                case StreamOpened(stream):
                    core.accept(stream)
                case DataReceived(stream, data):
                    self.received[stream.id] += len(data)
                    core.consume(stream, len(data))
        credit = self.server.bytes_sent()
        if credit:
            self.at(self.now + self._delay, partial(self._grant, credit))

    def _grant(self, credit: bytes) -> None:
        self.client.core.receive_data(credit, self.now)
        self._send()

    # ---- what came of it

    def windows(self) -> list[int]:
        live = self.server.core.streams.live
        return [live[stream.id].receive_window.size for stream in self.streams]

    def shares(self, seconds: float) -> list[int]:
        """Bytes of each stream in the next ``seconds``."""
        before = self.received.copy()
        self.run(self.now + seconds)
        return [self.received[stream.id] - before[stream.id] for stream in self.streams]


def ratio(numbers: list[int]) -> float:
    return max(numbers) / min(numbers)


@both
@pytest.mark.parametrize(
    "rate, delay", [(300e6, 30e-6), (100e6, 1e-3), (100e6, 10e-3), (300e6, 20e-3), (12e6, 5e-3)]
)
@pytest.mark.parametrize("gap", [0.0, 0.001, 0.01, 0.1])
def test_four_equal_streams_have_equal_windows_and_shares(
    wire: Wire, rate: float, delay: float, gap: float
) -> None:
    """Where each stream went by its own shortest round alone, windows were up to 8 to 1."""
    link = Link(wire, rate=rate, delay=delay, receive_budget=1 << 28)
    for number in range(4):
        link.at(number * gap, link.open)
    fast = rate > 50e6  # a slow link has fewer turns in a second
    link.run(until=1.0 if fast else 1.5)
    assert ratio(link.windows()) == 1
    assert ratio(link.shares(0.25 if fast else 0.5)) < 1.1


@both
def test_windows_do_not_grow_by_following_each_other(wire: Wire) -> None:
    """Four of them have no more than a few times what is on its way in a round trip."""
    rate, delay = 100e6, 10e-3
    link = Link(wire, rate=rate, delay=delay)
    for number in range(4):
        link.at(number * 0.01, link.open)
    link.run(until=2.0)
    windows = link.windows()
    link.run(until=4.0)
    assert link.windows() == windows
    assert max(windows) <= 4 * rate * 2 * delay


@both
def test_a_budget_that_is_too_small_is_shared_equally(wire: Wire) -> None:
    budget = 40 * wire.initial_window
    link = Link(wire, rate=1e9, delay=10e-3, receive_budget=budget)
    for _ in range(8):
        link.at(0.0, link.open)
    link.run(until=2.0)
    windows = link.windows()
    assert ratio(windows) < 1.1
    # Half of it is for growth, beside what they began with.
    assert sum(windows) > 0.9 * budget / 2
    assert ratio(link.shares(1.0)) < 1.2


@both
def test_a_slow_stream_does_not_follow_a_fast_one(wire: Wire) -> None:
    """A window costs memory, and a stream that does not fill its own needs no larger one."""
    link = Link(wire, rate=100e6, delay=10e-3)
    link.at(0.0, link.open)
    link.at(0.0, link.open)
    slow = 0

    def trickle() -> None:
        nonlocal slow
        slow += 1
        link.client.core.send(link.streams[1], bytes(wire.initial_window // 8))
        link._send()
        link.at(link.now + 0.1, trickle)

    link.run(until=0.0)
    link.silence([link.streams[1]])
    link.at(0.5, trickle)
    link.run(until=10.0)
    fast_window, slow_window = link.windows()
    assert slow > 50
    assert slow_window <= fast_window // 4
