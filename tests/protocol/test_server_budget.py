"""One budget of receive windows for all sessions of a server."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trio_muxado._protocol.budget import GUARANTEED, LOOKS, ReceiveBudget, ServerBudget
from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.frames import Rst
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.stream import Stream
from trio_muxado._protocol.wire import V1, V2

from .driver import BOTH, End

WINDOW = {wire: wire.initial_window for wire in BOTH}


def sharing(wire: Wire, server: ServerBudget, **limits: Any) -> End:
    end = End(wire, max_inbound_streams=1000, accept_backlog=1000, **limits)
    end.core.streams.budget.server = server
    return end


def open_to(end: End, stream_id: int) -> bool:
    """The peer opens a stream; whether it is taken, or refused in words that are safe to retry."""
    end.feed(end.syn(stream_id))
    refusals = [frame for frame in end.sent() if isinstance(frame, Rst)]
    if refusals:
        refused = end.wire.code_from_wire(refusals[0].error_code)
        assert (refusals[0].stream_id, refused) == (stream_id, ErrorCode.STREAM_REFUSED)
    assert (stream_id in end.core.streams.live) == (not refusals)
    return not refusals


def opened(end: End, most: int = 900) -> int:
    """How many streams in a row the peer can open."""
    return next(i for i in range(most) if not open_to(end, 3 + 2 * i))


def test_one_session_gets_half_and_each_later_one_half_of_the_rest() -> None:
    server = ServerBudget(80 * V2.initial_window)
    ends = [sharing(V2, server) for _ in range(6)]
    assert [opened(end) for end in ends] == [40, 20, 10, 5, 3, GUARANTEED]
    assert server.left == 0


def test_who_comes_when_nothing_is_left_can_still_work() -> None:
    server = ServerBudget(1)
    ends = [sharing(wire, server) for wire in BOTH for _ in range(3)]
    assert [opened(end) for end in ends] == [GUARANTEED] * 6
    assert server.left == 1 - 3 * GUARANTEED * (V1.initial_window + V2.initial_window)


def test_what_another_session_gave_back_can_be_had() -> None:
    server = ServerBudget(40 * V2.initial_window)
    one, other = sharing(V2, server), sharing(V2, server)
    assert opened(one) == 20
    assert opened(other) == 10
    for stream in list(one.core.streams.live.values()):
        one.core.reset(stream, ErrorCode.STREAM_CANCELLED)
    assert opened_again(other, 1000) == 10


def opened_again(end: End, first: int) -> int:
    return next(i for i in range(900) if not open_to(end, first + 1 + 2 * i))


def test_a_session_that_is_over_gives_all_of_it_back() -> None:
    server = ServerBudget(40 * V2.initial_window)
    end = sharing(V2, server)
    opened(end)
    server.leave(end.core.streams.budget)
    assert server.left == 40 * V2.initial_window
    for stream in list(end.core.streams.live.values()):  # and does not give it back twice
        end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
    server.look_again()
    assert server.left == 40 * V2.initial_window


def test_windows_that_grow_leave_room_for_streams_that_begin() -> None:
    server = ServerBudget(400 * V2.initial_window)
    end = sharing(V2, server, receive_budget=1 << 40, max_receive_window=1 << 30)
    assert open_to(end, 3)
    stream = end.core.streams.live[3]
    for now in range(100):
        end.core.streams.budget.grow(stream, float(now * 100))
    assert stream.receive_window.size > 50 * V2.initial_window
    assert server.left >= 2 * end.core.streams.budget.held
    assert opened_again(end, 4) > 50


@st.composite
def sessions(draw: st.DrawFn) -> tuple[int, list[Wire]]:
    wires = draw(st.lists(st.sampled_from(BOTH), min_size=1, max_size=5))
    return draw(st.integers(1, 40)) * V2.initial_window, wires


ACTS = ("open", "open here", "send", "read", "end", "close", "reset", "grow", "leave")


@given(sessions(), st.data())
def test_no_order_of_events_takes_more_and_all_comes_back(
    made: tuple[int, list[Wire]], data: st.DataObject
) -> None:
    size, wires = made
    server = ServerBudget(size)
    ends = [sharing(wire, server) for wire in wires]
    local = [0] * len(ends)
    next_id = [3] * len(ends)
    gone: set[int] = set()
    for now in range(data.draw(st.integers(1, 60), label="steps")):
        at = data.draw(st.integers(0, len(ends) - 1), label="session")
        act = data.draw(st.sampled_from(ACTS), label="act")
        if at in gone:
            continue
        end = ends[at]
        if act == "leave":
            server.leave(end.core.streams.budget)
            gone.add(at)
        elif act == "open":
            open_to(end, next_id[at])
            next_id[at] += 2
        elif act == "open here":
            end.core.open_stream()
            local[at] += 1
        elif streams := list(end.core.streams.live.values()):
            stream = data.draw(st.sampled_from(streams), label="stream")
            do(end, stream, act, float(now))
        end.sent()
        slack = sum(
            (GUARANTEED + local[i]) * ends[i].wire.initial_window
            for i in range(len(ends))
            if i not in gone
        )
        held = sum(ends[i].core.streams.budget.held for i in range(len(ends)) if i not in gone)
        assert held <= size + slack
        server.look_again()
        assert server.left >= size - held
    for end in ends:
        for stream in list(end.core.streams.live.values()):
            end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
        assert end.core.streams.budget.held == 0
    server.look_again()
    assert server.left == size


def do(end: End, stream: Stream, act: str, now: float) -> None:
    """Something happens to a stream that lives."""
    window = stream.receive_window
    match act:
        case "send" if stream.state.name in ("OPEN", "HALF_CLOSED_LOCAL"):
            end.feed(end.data(stream.id, bytes(min(window.credit, 10_000))))
        case "read" if window.unconsumed:
            end.core.consume(stream, window.unconsumed)
        case "end" if stream.state.name in ("OPEN", "HALF_CLOSED_LOCAL"):
            end.feed(end.fin(stream.id))
        case "close":
            end.core.close(stream)
        case "reset":
            end.core.reset(stream, ErrorCode.STREAM_CANCELLED)
        case "grow" if stream.state.name in ("OPEN", "HALF_CLOSED_LOCAL"):
            end.core.streams.budget.grow(stream, now)
        case _:
            pass


def test_a_session_of_its_own_has_no_part_in_it() -> None:
    end = End(V2, max_inbound_streams=300, accept_backlog=300)
    assert end.core.streams.budget.server is None
    assert Limits().receive_budget < 301 * V2.initial_window
    assert opened(end, 301) == 300


class SeenBudget(ReceiveBudget):
    """Counts how often it is looked at."""

    looks = 0

    @property
    def held(self) -> int:
        SeenBudget.looks += 1
        return super().held


def test_what_a_refused_stream_costs_is_bounded_however_many_sessions_there_are() -> None:
    server = ServerBudget(10)
    sessions = [SeenBudget(Limits(), {}) for _ in range(100 * LOOKS)]
    for session in sessions:
        session.server, session.initial_window = server, 1
        session.left -= GUARANTEED
        server.note(session, GUARANTEED)
    SeenBudget.looks = 0
    assert not any(sessions[0].admits() for _ in range(1000))
    assert SeenBudget.looks <= 1000 * (LOOKS + 3) + len(sessions)
    for session in sessions[1:]:
        session.left += GUARANTEED
    assert any(sessions[0].admits() for _ in range(100))  # it is seen, if not at once
