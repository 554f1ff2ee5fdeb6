"""Pauses that grow, up to a bound, and differ."""

import dataclasses
from typing import Any

import pytest

from trio_muxado import Backoff


def test_pauses_grow_up_to_the_longest() -> None:
    backoff = Backoff(first=1, factor=3, longest=20, jitter=0)
    assert [backoff.pause(n) for n in range(1, 6)] == [1, 3, 9, 20, 20]
    assert backoff.longest_pause() == 20


def test_a_million_failures_are_no_overflow() -> None:
    assert Backoff(jitter=0).pause(1_000_000) == 60


@pytest.mark.parametrize("failures", [1, 2, 100])
def test_a_pause_is_shortened_by_a_part_of_it_at_most(failures: int) -> None:
    exact = Backoff(jitter=0).pause(failures)
    backoff = Backoff(jitter=0.2)
    pauses = {backoff.pause(failures) for _ in range(1000)}
    assert len(pauses) > 900
    assert min(pauses) >= exact * 0.8
    assert max(pauses) <= exact
    assert min(pauses) < exact * 0.82
    assert max(pauses) > exact * 0.98


@pytest.mark.parametrize(
    "choices, error",
    [
        ({"first": 0}, ValueError),
        ({"first": -1.0}, ValueError),
        ({"first": float("nan")}, ValueError),
        ({"first": True}, TypeError),
        ({"first": "1"}, TypeError),
        ({"factor": 0.5}, ValueError),
        ({"factor": None}, TypeError),
        ({"longest": 0.1}, ValueError),
        ({"longest": float("inf")}, ValueError),
        ({"longest": float("nan")}, ValueError),
        ({"jitter": -0.1}, ValueError),
        ({"jitter": 1.1}, ValueError),
        ({"jitter": b""}, TypeError),
    ],
)
def test_a_wrong_choice_is_named(choices: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"\b{next(iter(choices))}\b"):
        Backoff(**choices)


def test_it_is_immutable_and_can_be_varied() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Backoff().first = 1  # type: ignore[misc]
    assert dataclasses.replace(Backoff(), longest=5).longest == 5
