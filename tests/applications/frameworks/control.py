"""What a test decides for the service, and hears of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio


class Control:
    """``await control.at(phase)`` in the service does there what the test wants."""

    def __init__(self) -> None:
        self.reached = trio.Event()
        self.fails = False
        self.running: Counter[str] = Counter()
        self.notes: list[Any] = []

    async def at(self, phase: str) -> None:
        """Stay for ever, or fail."""
        self.running[phase] += 1
        self.reached.set()
        try:
            if self.fails:
                raise ValueError(f"a bug of the application, {phase}")
            await trio.sleep_forever()
        finally:
            self.running[phase] -= 1
