"""What is logged once a second at most, however often it happens."""

from __future__ import annotations

import math

import trio

LOG_INTERVAL = 1.0
"""Seconds between two lines that say the same."""


class Seldom:
    """Says when such a line is due."""

    def __init__(self) -> None:
        self._logged_at = -math.inf

    def is_due(self) -> bool:
        """Whether to log now, which counts as done."""
        now = trio.current_time()
        if now - self._logged_at < LOG_INTERVAL:
            return False
        self._logged_at = now
        return True
