"""Whose frame goes next."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.scheduler import Scheduler
from trio_muxado._protocol.stream import Stream

from .driver import V2


def make_stream(stream_id: int, priority: int = 0) -> Stream:
    stream = Stream(stream_id, V2, local=True)
    stream.priority = priority
    return stream


def turns(scheduler: Scheduler) -> list[int]:
    order = []
    while scheduler.priorities:
        order.append(scheduler.pop().id)
    return order


def test_equals_have_their_turns_in_the_order_in_which_they_came() -> None:
    scheduler = Scheduler()
    for stream_id in (5, 3, 9):
        scheduler.push(make_stream(stream_id))
    assert turns(scheduler) == [5, 3, 9]


def test_a_stream_that_had_its_turn_goes_behind_the_others() -> None:
    scheduler = Scheduler()
    first, second = make_stream(3), make_stream(5)
    scheduler.push(first)
    scheduler.push(second)
    assert scheduler.pop() is first
    scheduler.push(first)
    assert turns(scheduler) == [5, 3]


def test_a_stream_whose_turn_was_cut_short_goes_before_its_equals() -> None:
    scheduler = Scheduler()
    first, second = make_stream(3), make_stream(5)
    scheduler.push(first)
    scheduler.push(second)
    assert scheduler.pop() is first
    scheduler.put_back(first)
    assert turns(scheduler) == [3, 5]


def test_a_stream_whose_turn_was_cut_short_waits_alone() -> None:
    scheduler = Scheduler()
    stream = make_stream(3, priority=7)
    scheduler.push(stream)
    scheduler.put_back(scheduler.pop())
    assert turns(scheduler) == [3]


def test_a_higher_priority_goes_first_whenever_it_came() -> None:
    scheduler = Scheduler()
    for stream_id, priority in (3, 1), (5, 7), (7, 0), (9, 7):
        scheduler.push(make_stream(stream_id, priority))
    assert turns(scheduler) == [5, 9, 3, 7]


def test_a_stream_that_had_its_turn_may_wait_again() -> None:
    scheduler = Scheduler()
    stream = make_stream(3)
    scheduler.push(stream)
    assert scheduler.pop() is stream
    scheduler.push(stream)
    assert turns(scheduler) == [3]


def test_a_stream_can_leave_the_middle_of_a_queue() -> None:
    scheduler = Scheduler()
    streams = [make_stream(stream_id) for stream_id in (3, 5, 7)]
    for stream in streams:
        scheduler.push(stream)
    scheduler.remove(streams[1])
    assert turns(scheduler) == [3, 7]


def test_a_stream_that_left_may_wait_again() -> None:
    scheduler = Scheduler()
    stream = make_stream(3)
    scheduler.push(stream)
    scheduler.remove(stream)
    scheduler.push(stream)
    assert turns(scheduler) == [3]


def test_a_queue_ends_with_its_last_stream() -> None:
    scheduler = Scheduler()
    high, low = make_stream(3, priority=5), make_stream(5)
    scheduler.push(high)
    scheduler.push(low)
    scheduler.remove(high)
    assert turns(scheduler) == [5]


@pytest.mark.parametrize("priority, order", [(0, [5, 7, 3]), (1, [5, 7, 3]), (2, [3, 5, 7])])
def test_a_stream_that_waits_moves_behind_its_new_equals(priority: int, order: list[int]) -> None:
    scheduler = Scheduler()
    moved = make_stream(3, priority=3)
    for stream in (moved, make_stream(5, priority=1), make_stream(7, priority=1)):
        scheduler.push(stream)
    scheduler.move(moved, priority)
    assert moved.priority == priority
    assert turns(scheduler) == order


def test_a_stream_that_does_not_wait_moves_when_it_does() -> None:
    scheduler = Scheduler()
    scheduler.push(make_stream(3, priority=1))
    moved = make_stream(5)
    scheduler.move(moved, 2)
    scheduler.push(moved)
    assert turns(scheduler) == [5, 3]


def test_a_stream_that_moves_to_where_it_is_keeps_its_turn() -> None:
    scheduler = Scheduler()
    streams = [make_stream(stream_id, priority=1) for stream_id in (3, 5)]
    for stream in streams:
        scheduler.push(stream)
    scheduler.move(streams[0], 1)
    assert turns(scheduler) == [3, 5]


def test_removing_a_stream_that_does_not_wait_changes_nothing() -> None:
    scheduler = Scheduler()
    scheduler.push(make_stream(3))
    scheduler.remove(make_stream(5))
    assert turns(scheduler) == [3]


def test_nothing_is_kept_of_streams_that_left() -> None:
    scheduler = Scheduler()
    for priority in range(1000):
        stream = make_stream(3, priority)
        scheduler.push(stream)
        scheduler.remove(stream)
    assert (scheduler._queues, scheduler.priorities) == ({}, [])
