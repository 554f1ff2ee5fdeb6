"""Two sessions over a link that delays, splits, freezes and is cut, whatever their users do.

hypothesis chooses what both users do, call by call, and when each call is cancelled: also at the
very moment at which the link delivers something to that side, and a few turns of the loop after it.
Nothing is lost, doubled or reordered; what was cut never looks whole; nothing hangs; and when all
is over, every count is what it was.
"""

from __future__ import annotations

import gc
import math
import os
import random
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from trio.testing import wait_all_tasks_blocked

from trio_muxado import (
    Heartbeat,
    HeartbeatError,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    NoMoreStreamsError,
    OpenStreamError,
    SessionClosedError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
    client_session,
    server_session,
)
from trio_muxado._protocol.wire import WIRES
from trio_muxado.testing import Link

from ..helpers import V1, V2, V2_TYPED, HalfCloseable, Kind
from .counts import check_counts, live_on
from .loop import Loop
from .model import Direction, End, Name, Talk

pytestmark = pytest.mark.proofs

EXAMPLES = 2_000 if os.environ.get("LONG") else 60
STEPS = 40

LATENCY = 0.125
"""Seconds, and a sum of powers of two: so moments that should be the same are the same."""

PATIENCE = 10.0
"""Seconds that a link may be frozen without anybody giving up."""

ENOUGH = 60.0
"""Seconds in which all that can still happen has happened."""

NAMES: tuple[Name, Name] = ("client", "server")
OTHER: dict[Name, Name] = {"client": "server", "server": "client"}


class Cancel(NamedTuple):
    """When a call is cancelled.

    Never; or so many latencies after it began; or when the link delivers so many things to its
    side.  With ``turns`` it is that many turns of the loop later, else by a deadline.
    """

    latencies: int | None = None
    arrivals: int | None = None
    turns: int = 0


NEVER = Cancel()
cancels = st.one_of(
    st.just(NEVER),
    st.builds(Cancel, st.integers(0, 4), st.none(), st.integers(0, 5)),
    st.builds(Cancel, st.none(), st.integers(1, 4), st.integers(0, 5)),
)
sides = st.sampled_from(NAMES)
numbers = st.integers(0, 5)
afterwards = st.sampled_from(["go on", "go on", "eof", "close"])


@dataclass(eq=False)
class Hunter:
    """A call that is to be cancelled when something arrives."""

    arrivals: int
    turns: int
    scope: trio.CancelScope


class InPieces(HalfCloseable):
    """Receives a few bytes at a time."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, seed: int) -> None:
        super().__init__(inner)
        self._random = random.Random(seed)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        # Few small pieces: a large window would take forever otherwise.
        size = self._random.choice((1, 2, 3, 7, 8, 9, 100, 5_000, 65_536, 65_536))
        return await self.inner.receive_some(size)


class Side:
    """One session and its user."""

    def __init__(self, name: Name) -> None:
        self.name: Name = name
        self.session: MuxadoSession
        self.ends: list[End] = []
        self.hunters: list[Hunter] = []
        self.leave = trio.Event()
        self.gone = False
        self.pinging = 0


def has_streams(machine: Sessions) -> bool:
    return any(side.ends for side in machine.sides.values())


class Sessions(RuleBasedStateMachine):
    """Rules are what users and links do; the model says what may come of it."""

    # ---- the beginning

    @initialize(
        kind=st.sampled_from([V1, V2, V2_TYPED]),
        latency=st.sampled_from([0.0, LATENCY, LATENCY]),
        bandwidth=st.sampled_from([math.inf, math.inf, 1 << 20]),
        pieces=st.one_of(st.none(), st.integers(0, 99)),
        slots=st.sampled_from([1, 2, 100]),
        backlog=st.sampled_from([1, 2, 128]),
        send_buffer=st.sampled_from([1, 5_000, 262_144]),
        budget=st.sampled_from([1 << 20, 1 << 26]),
        heartbeat=st.booleans(),
        streams=st.lists(sides, max_size=4),
        mood=st.sampled_from(["calm", "calm", "calm", "going", "violent"]),
        stays_frozen=st.booleans(),
    )
    def begin(
        self,
        kind: Kind,
        latency: float,
        bandwidth: float,
        pieces: int | None,
        slots: int,
        backlog: int,
        send_buffer: int,
        budget: int,
        heartbeat: bool,
        streams: list[Name],
        mood: str,
        stays_frozen: bool,
    ) -> None:
        self.kind = kind
        self.latency = latency
        self.window = WIRES[kind.wire].initial_window
        self.mood = mood  # what may happen to the sessions
        self.stays_frozen = stays_frozen
        self.config = kind.config(
            max_outbound_streams=slots,
            max_inbound_streams=max(slots - 1, 1),
            accept_backlog=backlog,
            send_buffer=send_buffer,
            receive_budget=budget,
            heartbeat=Heartbeat() if heartbeat else None,
        )
        self.talks: dict[int, Talk] = {}
        self.references: list[weakref.ref[Any]] = []
        self.calls = 0  # that have not returned
        self.excused = False  # something was done that may end the sessions
        self.frozen: dict[Name, float] = {}  # directions, and since when
        self.link = Link(latency, bandwidth, tap=self.delivers)
        self.loop = Loop()
        self.sides = {name: Side(name) for name in NAMES}
        self.loop.run(partial(self.open_sessions, pieces))
        for name in streams:
            self.open(name, type=0, priority=0, cancel=NEVER)
            self.accept(OTHER[name], NEVER)
        self.pass_time(4)

    async def open_sessions(self, pieces: int | None) -> None:
        near, far = self.link.client, self.link.server
        if pieces is not None:
            near, far = InPieces(near, pieces), InPieces(far, pieces + 1)
        for name, transport in zip(NAMES, (near, far), strict=True):
            await self.loop.nursery.start(self.hold_session, self.sides[name], transport)
        await wait_all_tasks_blocked()

    async def hold_session(
        self, side: Side, transport: trio.abc.Stream, *, task_status: trio.TaskStatus[None]
    ) -> None:
        make = client_session if side.name == "client" else server_session
        async with make(transport, config=self.config) as session:
            side.session = session
            self.references.append(weakref.ref(session))
            task_status.started()
            await side.leave.wait()
        side.gone = True

    # ---- time

    def delivers(self, sender: Name, data: bytes) -> None:
        """Something has been put on the line, and arrives after the latency."""
        side = self.sides[OTHER[sender]]
        for hunter in list(side.hunters):
            hunter.arrivals -= 1
            if not hunter.arrivals:
                side.hunters.remove(hunter)
                self.cancel_at(trio.current_time() + self.latency, hunter.turns, hunter.scope)

    def cancel_at(self, moment: float, turns: int, scope: trio.CancelScope) -> None:
        if turns:
            self.loop.nursery.start_soon(self.cancel_later, moment, turns, scope)
        else:
            scope.deadline = moment

    async def cancel_later(self, moment: float, turns: int, scope: trio.CancelScope) -> None:
        await trio.sleep_until(moment)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
        await wait_all_tasks_blocked()

    # ---- calls

    def start(self, side: Side, cancel: Cancel, call: Callable[[], Awaitable[None]]) -> None:
        """Let a task make the call, and go on when nothing moves any more."""

        async def begin() -> None:
            self.begin_call(side, cancel, call)
            await wait_all_tasks_blocked()

        self.loop.run(begin)

    def begin_call(self, side: Side, cancel: Cancel, call: Callable[[], Awaitable[None]]) -> None:
        self.calls += 1
        self.loop.nursery.start_soon(self.make, side, cancel, call)

    async def make(self, side: Side, cancel: Cancel, call: Callable[[], Awaitable[None]]) -> None:
        try:
            with trio.CancelScope() as scope:
                if cancel.latencies is not None:
                    moment = trio.current_time() + cancel.latencies * LATENCY
                    self.cancel_at(moment, cancel.turns, scope)
                if cancel.arrivals is not None:
                    hunter = Hunter(cancel.arrivals, cancel.turns, scope)
                    side.hunters.append(hunter)
                await call()
        finally:
            self.calls -= 1
            if cancel.arrivals is not None and hunter in side.hunters:
                side.hunters.remove(hunter)

    # ---- streams begin

    @rule(name=sides, type=st.integers(0, 3), priority=st.integers(0, 2), cancel=cancels)
    def open(self, name: Name, type: int, priority: int, cancel: Cancel) -> None:
        side = self.sides[name]
        if not (self.kind.typed or self.kind.wire == "v1"):
            type = 0

        async def call() -> None:
            try:
                stream = await side.session.open_stream(type=type, priority=priority)
            except (OpenStreamError, SessionClosedError, SessionEndedError) as error:
                failed = error
            else:
                self.opened(side, stream, type, priority)
                return
            assert self.excused
            assert failed.safe_to_retry

        self.start(side, cancel, call)

    def opened(self, side: Side, stream: MuxadoStream, type: int, priority: int) -> None:
        ways = {name: Direction(stream.id * 2 + number) for number, name in enumerate(NAMES)}
        assert stream.id not in self.talks
        talk = self.talks[stream.id] = Talk(stream.id, type, priority, ways)
        self.take(side, stream, talk)

    def take(self, side: Side, stream: MuxadoStream, talk: Talk) -> None:
        self.references.append(weakref.ref(stream))
        end = End(stream, talk, talk.ways[side.name], talk.ways[OTHER[side.name]])
        side.ends.append(end)

    @rule(name=sides, cancel=cancels)
    def accept(self, name: Name, cancel: Cancel) -> None:
        self.start(self.sides[name], cancel, partial(self.accepted, self.sides[name]))

    async def accepted(self, side: Side) -> None:
        try:
            stream = await side.session.accept_stream()
        except (NoMoreStreamsError, SessionClosedError, SessionEndedError):
            assert self.excused
            return
        talk = self.talks[stream.id]
        assert not talk.accepted, "accepted twice"
        assert stream.type == talk.type
        assert stream.priority == (talk.priority if self.kind.wire == "v1" else 0)
        talk.accepted = True
        self.take(side, stream, talk)

    # ---- streams go on

    def end_of(self, name: Name, number: int) -> tuple[Side, End] | None:
        """One that this side has not closed; now and then one that it has."""
        side = self.sides[name]
        ends = [end for end in side.ends if not end.left] if number else side.ends
        return (side, ends[number % len(ends)]) if ends else None

    @precondition(has_streams)
    @rule(
        name=sides,
        number=numbers,
        size=st.sampled_from([0, 1, 100, 8_192, 8_193]),
        mutable=st.booleans(),
        then=afterwards,
        cancel=cancels,
    )
    def send(
        self, name: Name, number: int, size: int, mutable: bool, then: str, cancel: Cancel
    ) -> None:
        if found := self.end_of(name, number):
            self.start(found[0], cancel, partial(self.uploaded, found[1], size, mutable, then))

    @precondition(has_streams)
    @rule(
        name=sides,
        number=numbers,
        windows=st.sampled_from([1, 1, 3]),
        more=st.integers(-5, 1),
        mutable=st.booleans(),
        then=afterwards,
        cancel=cancels,
    )
    def send_windows(
        self,
        name: Name,
        number: int,
        windows: int,
        more: int,
        mutable: bool,
        then: str,
        cancel: Cancel,
    ) -> None:
        self.send(name, number, windows * self.window + more, mutable, then, cancel)

    async def uploaded(self, end: End, size: int, mutable: bool, then: str) -> None:
        try:
            await self.sent(end, size, mutable)
            if then == "eof":
                await self.ended(end)
        finally:
            if then == "close":  # as the end of a block does, cancelled or not
                await self.closed(end)

    async def sent(self, end: End, size: int, mutable: bool) -> None:
        busy, ended = end.sending, end.out.end is not None or end.dead
        if busy or ended:
            with pytest.raises(trio.BusyResourceError if busy else MuxadoError):
                await end.stream.send_all(bytes(size))
            return
        chunk = end.out.chunk(size)
        end.sending = chunk.cut = True
        data = bytearray(chunk.data) if mutable else chunk.data
        try:
            await end.stream.send_all(data)
            chunk.cut = False
        except MuxadoError as error:
            self.check_error(end, error)
        finally:
            end.sending = False

    @precondition(has_streams)
    @rule(name=sides, number=numbers, cancel=cancels)
    def send_eof(self, name: Name, number: int, cancel: Cancel) -> None:
        if found := self.end_of(name, number):
            self.start(found[0], cancel, partial(self.ended, found[1]))

    async def ended(self, end: End) -> None:
        if end.sending:
            with pytest.raises(trio.BusyResourceError):
                await end.stream.send_eof()
            return
        before, end.sending = end.out.end, True
        if not (before or end.dead):
            end.out.end = "eof"
        try:
            await end.stream.send_eof()
        except MuxadoError as error:
            end.out.end = before
            self.check_error(end, error)
        except trio.Cancelled:
            end.out.end = before
            raise
        finally:
            end.sending = False

    @precondition(has_streams)
    @rule(
        name=sides,
        number=numbers,
        limit=st.sampled_from([None, None, 1, 1_000]),
        cancel=cancels,
    )
    def receive(self, name: Name, number: int, limit: int | None, cancel: Cancel) -> None:
        if found := self.end_of(name, number):
            self.start(found[0], cancel, partial(self.received, found[1], limit, False))

    @precondition(has_streams)
    @rule(
        name=sides,
        number=numbers,
        limit=st.sampled_from([None, None, 1_000]),
        cancel=cancels,
    )
    def read_on(self, name: Name, number: int, limit: int | None, cancel: Cancel) -> None:
        if found := self.end_of(name, number):
            self.start(found[0], cancel, partial(self.received, found[1], limit, True))

    async def received(self, end: End, limit: int | None, on: bool) -> None:
        if end.receiving:
            with pytest.raises(trio.BusyResourceError):
                await end.stream.receive_some()
            return
        end.receiving = True
        try:
            while True:
                data = await end.stream.receive_some(limit)
                assert limit is None or len(data) <= limit
                if not data:
                    if not end.into.ended:
                        end.into.receive_end()
                    return
                end.into.receive(data)
                if not on:
                    return
        except MuxadoError as error:
            self.check_error(end, error, seen=end.into.ended)
        finally:
            end.receiving = False

    @precondition(has_streams)
    @rule(name=sides, number=numbers, cancel=cancels, room=st.booleans())
    def wait(self, name: Name, number: int, cancel: Cancel, room: bool) -> None:
        if found := self.end_of(name, number):
            call = self.waited_for_room if room else self.waited_for_break
            self.start(found[0], cancel, partial(call, found[1]))

    async def waited_for_room(self, end: End) -> None:
        if end.sending:
            with pytest.raises(trio.BusyResourceError):
                await end.stream.wait_send_all_might_not_block()
            return
        end.sending = True
        try:
            await end.stream.wait_send_all_might_not_block()
        except MuxadoError as error:
            self.check_error(end, error)
        finally:
            end.sending = False

    async def waited_for_break(self, end: End) -> None:
        try:
            error = await end.stream.wait_broken()
        except StreamClosedError:
            assert end.left
        else:
            self.check_error(end, error)

    def check_error(self, end: End, error: MuxadoError, *, seen: bool = False) -> None:
        """An error must have a cause: somebody did something on the stream, or to its session.

        An end that this side has ``seen`` stays, until it closes the stream itself.
        """
        assert not seen or isinstance(error, StreamClosedError)
        talk = end.talk
        if isinstance(error, StreamClosedError):
            assert end.left or end.dead or end.out.end is not None
            return
        assert talk.excused or self.excused or not talk.accepted, repr(error)
        if isinstance(error, SessionEndedError | SessionClosedError):
            assert self.excused, repr(error)
        else:
            assert isinstance(error, StreamResetError)
        if error.safe_to_retry:
            assert not talk.accepted, "safe to retry, and accepted"
            talk.retry = True

    # ---- streams end

    @precondition(has_streams)
    @rule(name=sides, number=numbers, cancel=cancels, reset=st.booleans())
    def leave(self, name: Name, number: int, cancel: Cancel, reset: bool) -> None:
        if found := self.end_of(name, number):
            call = self.was_reset if reset else self.closed
            self.start(found[0], cancel, partial(call, found[1]))

    async def closed(self, end: End) -> None:
        end.talk.excused = end.left = True
        before = end.out.end
        if not (before or end.dead):
            end.out.end = "closed"
        try:
            await end.stream.aclose()
        except trio.Cancelled:
            end.out.end = before
            end.dead = True
            raise

    async def was_reset(self, end: End) -> None:
        end.talk.excused = end.left = end.dead = True
        await end.stream.reset(77)

    # ---- sessions

    @rule(name=sides, cancel=cancels, ping=st.booleans())
    def wait_for_peer(self, name: Name, cancel: Cancel, ping: bool) -> None:
        side = self.sides[name]
        self.start(side, cancel, partial(self.pinged if ping else self.waited_for_end, side))

    async def pinged(self, side: Side) -> None:
        try:
            assert await side.session.ping() > 2 * self.latency - 0.001
        except HeartbeatError:
            untyped = self.kind.wire == "v2" and not self.kind.typed
            assert untyped or self.excused
        except (SessionClosedError, SessionEndedError):
            assert self.excused

    async def waited_for_end(self, side: Side) -> None:
        await side.session.wait_closed()
        assert self.excused

    @precondition(lambda self: self.mood != "calm")
    @rule(name=sides, cancel=cancels, drain=st.booleans())
    def go_away(self, name: Name, cancel: Cancel, drain: bool) -> None:
        side = self.sides[name]

        async def call() -> None:
            self.excused = True
            try:
                if drain:
                    await side.session.drain()
                    assert not live_on(side.session), "drained, and not empty"
                else:
                    await side.session.goaway()
            except (SessionClosedError, SessionEndedError):
                pass

        self.start(side, cancel, call)

    @precondition(lambda self: self.mood == "violent")
    @rule(name=sides, cancel=cancels)
    def close_session(self, name: Name, cancel: Cancel) -> None:
        self.excused = True
        side = self.sides[name]
        self.start(side, cancel, side.session.aclose)

    # ---- the link

    @precondition(lambda self: self.mood == "violent")
    @rule()
    def cut(self) -> None:
        async def cut() -> None:
            self.excused = True
            self.link.cut(OSError("the link was cut"))
            await wait_all_tasks_blocked()

        self.loop.run(cut)

    @rule(to=sides)
    def freeze(self, to: Name) -> None:
        """Freeze a direction, or let it go on."""

        async def change() -> None:
            if (since := self.frozen.pop(to, None)) is None:
                self.frozen[to] = trio.current_time()
                self.link.freeze(to)
            else:
                self.thaw(to, since)
            await wait_all_tasks_blocked()

        self.loop.run(change)

    def thaw(self, to: Name, since: float) -> None:
        self.excused |= trio.current_time() - since > PATIENCE
        self.link.thaw(to)

    @rule(seconds=st.one_of(st.integers(1, 8), st.sampled_from([0.001, 2.0, 70.0])))
    def pass_time(self, seconds: float) -> None:
        """So many latencies, or seconds."""
        if isinstance(seconds, int):
            seconds *= LATENCY
        elif self.mood != "violent":
            seconds = min(seconds, 2.0)
        self.excused |= bool(self.frozen) and seconds > PATIENCE
        self.loop.run(partial(self.sleep, seconds))

    # ---- the end

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.loop.run(self.settle)
            self.loop.run(self.end_all)
            self.check_references()
        finally:
            self.loop.close()

    async def settle(self) -> None:
        """Whoever still has a stream reads it to its end; then all that was sent has come."""
        if self.frozen and self.mood == "violent" and self.stays_frozen:
            self.excused = True
            return
        for to, since in self.frozen.items():
            self.thaw(to, since)
        self.frozen.clear()
        # A call that receives once may be waiting, and may be cancelled by what comes then.
        for _ in range(3):
            for side in self.sides.values():
                for end in side.ends:
                    if not (end.left or end.receiving):
                        self.begin_call(side, NEVER, partial(self.received, end, None, True))
                    if not (end.left or end.sending or end.out.end or not end.talk.accepted):
                        self.begin_call(side, NEVER, partial(self.say_the_rest, end))
            await self.sleep(ENOUGH)
        if self.excused:
            return
        for talk in self.talks.values():
            if talk.accepted and not talk.excused:
                for way in talk.ways.values():
                    assert way.complete, f"lost: {way}"
                    assert way.ended == (way.end is not None), f"stream {talk.id}: the end"
        for side in self.sides.values():
            for end in side.ends:
                assert not end.sending or not end.talk.accepted, "a sender hangs"
        await self.close_all()
        for side in self.sides.values():
            assert side.session.close_reason is None, side.session.close_reason
            check_counts(side.session)

    async def say_the_rest(self, end: End) -> None:
        """Whatever was cancelled on it, a stream goes on."""
        await self.sent(end, 5_000, False)
        await self.ended(end)

    async def close_all(self) -> None:
        """All streams end, also those that nobody has accepted and that tasks wait to open."""
        for _ in range(2 + len(self.talks) + self.calls):
            for side in self.sides.values():
                for _ in range(side.session.statistics().waiting):
                    self.begin_call(side, NEVER, partial(self.accepted, side))
                await wait_all_tasks_blocked()
                for end in side.ends:
                    if not end.left:
                        await self.closed(end)
            await self.sleep(1)
        await self.sleep(ENOUGH)

    async def end_all(self) -> None:
        """Both sessions end; then every call has returned, and nothing is left."""
        self.excused = True
        with trio.fail_after(2 * ENOUGH + 10):  # the deadline of closing, twice
            for side in self.sides.values():
                side.leave.set()
            while not all(side.gone for side in self.sides.values()):
                await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert self.calls == 0, "a call hangs"
        for side in self.sides.values():
            for _ in range(side.session.statistics().waiting):
                await self.accepted(side)
            for end in side.ends:
                await self.closed(end)
        for talk in self.talks.values():
            assert not (talk.retry and talk.accepted), "safe to retry, and accepted"
        for side in self.sides.values():
            check_counts(side.session, over=True)

    def check_references(self) -> None:
        for side in self.sides.values():
            del side.session
            side.ends.clear()
        self.loop.close()
        gc.collect()
        assert [reference() for reference in self.references if reference()] == []


def test_two_sessions_over_a_link_that_misbehaves() -> None:
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not os.environ.get("LONG"),
            database=None,
            phases=[Phase.generate, Phase.shrink],
        ),
    )
