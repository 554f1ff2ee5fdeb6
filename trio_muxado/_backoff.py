"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ._protocol.checks import check_int, check_number


@dataclass(frozen=True)
class Backoff:
    """Pauses between attempts: each is longer than the one before, and a little random.

    The first is ``first`` seconds; each that follows is ``factor`` times as long, up to
    ``longest``.  Each is shortened by a random part, ``jitter`` of it at most, so that many clients
    that lost one server do not come back at once.

    Raises:
      TypeError: one of them is not a number.
      ValueError: ``first`` is not positive, ``factor`` below 1, ``longest`` below ``first`` or
        infinite, or ``jitter`` not between 0 and 1.
    """

    first: float = 0.5
    """Seconds before the second attempt."""
    factor: float = 2.0
    """How many times as long each pause is as the one before."""
    longest: float = 60.0
    """Seconds that no pause exceeds."""
    jitter: float = 0.2
    """The part of a pause that may be left out: 0 for none, 1 for all of it."""

    def __post_init__(self) -> None:
        check_number("first", self.first)
        check_number("factor", self.factor, least=1)
        check_number("longest", self.longest, least=self.first)
        check_number("jitter", self.jitter, least=0)
        if self.jitter > 1:
            raise ValueError(f"jitter must be between 0 and 1, not {self.jitter!r}")

    def pause(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row, counted from 1.

        Raises:
          TypeError, ValueError: ``failures`` is not an int, or less than 1.
        """
        check_int("failures", failures, 1)
        try:
            pause = min(self.longest, self.first * float(self.factor) ** (failures - 1))
        except OverflowError:
            pause = self.longest
        return self.shortened(pause)

    def longest_pause(self) -> float:
        """Seconds to wait after a failure that an early retry can't fix."""
        return self.shortened(self.longest)

    def shortened(self, pause: float) -> float:
        """``pause`` without a random part of it."""
        return pause * (1 - self.jitter * random.random())
