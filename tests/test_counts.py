"""What a request and a session cost, in counts, held at what they are: a change shows here.

`python -m benchmarks.against REV` compares the same counts, made by the same code, between two
versions. Whoever changes one changes it here, and says why in the commit; the failure shows the
row as it is to be. "calls" are ours and trio's together; both sides are counted.
"""

from __future__ import annotations

import sys
from functools import cache

import pytest

from benchmarks import _counting
from benchmarks._counting import of_connection

# Frames: one that opens the stream, and FIN, with the data in either; back, one that is data and
# FIN.  Writes: one from each end, and of 64 at once one carries a burst.  Task switches: ten are
# the checkpoints that trio's rules ask of the calls, six of the client's, three of the handler's
# and its start; the rest moves the frames.  One alone is written in the steps of the tasks
# themselves, and its handler is started by the reader.
#
# Exact on Python 3.10 and 3.11.  Later ones call no function for a comprehension.
REQUEST = {  # calls of ours, calls, task switches, frames, transport writes
    ("v1", 1): (164.0, 489.45, 14.15, 3, 2),
    ("v2", 1): (169.0, 494.45, 14.15, 3, 2),
    ("v1", 64): (110.58, 279.45, 10.71, 3, 0.12),
    ("v2", 64): (115.6, 284.47, 10.71, 3, 0.12),
}
SESSION = {  # nurseries, cancel scopes, tasks, turns, calls of ours, calls
    "v1": (3, 5, 8, 17, 675, 1897),
    "v2": (3, 4, 8, 17, 588, 1754),
}
CONNECTION = (1, 4, 2, 8)  # nurseries, cancel scopes, tasks, turns

INLINED = 0.01
"""The share of our calls that may be missing from Python 3.12 on: those of comprehensions."""
OF_REQUEST_BY_TRIO, OF_SESSION_BY_TRIO = 0.02, 0.05
"""The share by which all calls may differ: trio's are other ones with its version, and Python's."""


# Each is counted once for all tests of it, and once more to see that it is the same every time.
of_request = cache(_counting.of_request)
of_session = cache(_counting.of_session)


def check(counts: dict[str, float], held: tuple[float, ...], by_trio: float) -> None:
    row = tuple(counts.values())
    for name, now, before in zip(counts, row, held, strict=True):
        message = f"{name}: {before} before; the row is now {row}"
        if name == "calls":
            assert now == pytest.approx(before, rel=by_trio), message
        elif name == "calls, ours" and sys.version_info >= (3, 12):
            assert (1 - INLINED) * before <= now <= before, message
        else:
            assert now == before, message


@pytest.mark.parametrize("wire, at_once", REQUEST)
def test_counts_of_a_request(wire: str, at_once: int) -> None:
    check(of_request(wire, at_once), REQUEST[wire, at_once], OF_REQUEST_BY_TRIO)


@pytest.mark.parametrize("wire", SESSION)
def test_counts_of_a_session(wire: str) -> None:
    check(of_session(wire), SESSION[wire], OF_SESSION_BY_TRIO)


def test_counts_of_a_connection_without_a_session() -> None:
    """What trio alone takes for it; it also shows that the counting counts what it says."""
    assert tuple(of_connection().values()) == CONNECTION


@pytest.mark.parametrize("wire", SESSION)
def test_counts_are_the_same_every_time(wire: str) -> None:
    assert _counting.of_session(wire) == of_session(wire)
    assert _counting.of_request(wire, 1) == of_request(wire, 1)
