"""What a peer may cost us, and the memory of streams that are gone."""

from __future__ import annotations

import dataclasses
import math

import pytest

from trio_muxado._protocol.guards import Allowance, Quota, Tombstones
from trio_muxado._protocol.limits import Limits

# ---- Allowance


def spend_all(allowance: Allowance, now: float) -> int:
    spent = 0
    while allowance.spend(now):
        spent += 1
    return spent


def test_an_allowance_lets_a_burst_pass_and_no_more() -> None:
    assert spend_all(Allowance(10, 2), now=5000.0) == 10


def test_an_allowance_comes_back_with_time() -> None:
    allowance = Allowance(10, 2)
    spend_all(allowance, now=100.0)
    assert not allowance.spend(100.25)
    assert spend_all(allowance, now=103.0) == 6


def test_an_allowance_never_saves_more_than_its_burst() -> None:
    allowance = Allowance(10, 2)
    spend_all(allowance, now=100.0)
    assert spend_all(allowance, now=1e9) == 10


def test_spending_slower_than_it_comes_back_goes_on_for_ever() -> None:
    allowance = Allowance(1, 4)
    assert all(allowance.spend(second) for second in range(1000))


# ---- Quota


def test_places_may_have_a_limit() -> None:
    quota = Quota(2)
    assert quota.bounded
    assert quota.limit == 2


def test_no_limit_is_never_reached() -> None:
    quota = Quota(None)
    assert not quota.bounded
    assert quota.limit == math.inf


# ---- Tombstones


def test_a_stream_that_is_gone_is_remembered() -> None:
    gone = Tombstones()
    gone.add(3, reset=False)
    assert 3 in gone
    assert 5 not in gone


def test_a_stream_is_remembered_with_its_reset() -> None:
    gone = Tombstones()
    gone.add(3, reset=False)
    gone.add(5, reset=True)
    assert [gone.was_reset(stream_id) for stream_id in (3, 5, 7)] == [False, True, False]


def test_a_reset_that_follows_is_remembered_too() -> None:
    gone = Tombstones()
    gone.add(3, reset=False)
    gone.add(3, reset=True)
    assert gone.was_reset(3)


def test_an_id_that_is_in_use_again_is_forgotten() -> None:
    gone = Tombstones()
    gone.add(3, reset=True)
    gone.forget(3)
    gone.forget(5)  # which was never there
    assert 3 not in gone


def test_the_memory_of_gone_streams_is_bounded_and_keeps_the_latest() -> None:
    gone = Tombstones()
    for stream_id in range(Tombstones.CAPACITY + 10):
        gone.add(stream_id, reset=True)
    assert len(gone._reset) == Tombstones.CAPACITY
    assert 9 not in gone
    assert 10 in gone
    assert Tombstones.CAPACITY + 9 in gone


def test_a_full_memory_drops_nothing_for_a_stream_that_it_knows() -> None:
    gone = Tombstones()
    for stream_id in range(Tombstones.CAPACITY):
        gone.add(stream_id, reset=False)
    gone.add(7, reset=True)
    assert 0 in gone


# ---- Limits


@pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)
@pytest.mark.parametrize("wrong", [0, -1])
def test_a_limit_is_a_positive_number(field: dataclasses.Field[object], wrong: int) -> None:
    with pytest.raises(ValueError, match=f"{field.name} must be positive, not {wrong}"):
        Limits(**{field.name: wrong})


@pytest.mark.parametrize("name", ["receive_window", "max_receive_window"])
def test_a_window_is_at_most_what_the_protocol_knows(name: str) -> None:
    assert getattr(Limits(**{name: 2**31 - 1}), name) == 2**31 - 1
    with pytest.raises(ValueError, match=f"{name} is at most"):
        Limits(**{name: 2**31})


def test_limits_cannot_be_changed_behind_a_session() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().accept_backlog = 5  # type: ignore[misc]
