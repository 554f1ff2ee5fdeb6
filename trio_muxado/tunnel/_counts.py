"""What a relay counts: plain numbers, which metrics and tests read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

PerTunnel: TypeAlias = "Counter[tuple[str, str]]"


@dataclass
class RelayCounts:
    """What a relay has counted since it began.

    Attributes:
      visitors: by tunnel and how their connection ended: ``"clean"``, ``"broken"``, ``"idle"`` or
        ``"no-agent"``.
      moved: bytes by tunnel and direction: ``"in"`` from visitors, ``"out"`` to them.
      requests: HTTP requests by tunnel and the class of their answer, such as ``"2xx"``.
      passed: visitors passed on between relays, by tunnel: ``"out"`` to another one, ``"in"`` from
        one, and ``"failed"`` if the other one refused them.
      refused: who was turned away: agents by the reason, or ``"no-token"`` without a token, and
        ``"visitor"`` for visitors.
      running: visitors' connections, or requests, that run now, by tunnel.
      is_known: called with the name of a tunnel, says whether it exists, here or at another relay.
        The counts of one that doesn't are dropped with its last visitor.  None keeps all.
    """

    visitors: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    moved: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    requests: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    passed: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    refused: Counter[str] = field(default_factory=Counter[str])
    running: Counter[str] = field(default_factory=Counter[str])
    is_known: Callable[[str], bool] | None = field(default=None, repr=False, compare=False)

    @contextmanager
    def visit(self, name: str) -> Generator[None, None, None]:
        """Count a visitor's connection, or a request, as running within the block.

        Whatever else is counted of it is counted within, as its tunnel may end before it does.
        """
        self.running[name] += 1
        try:
            yield
        finally:
            self.running[name] -= 1
            is_known = self.is_known is None or self.is_known(name)
            if not is_known and not self.running[name]:
                self.forget(name)

    def forget(self, name: str) -> None:
        """Drop what was counted of a tunnel that has ended: agents choose the names."""
        for counter in (self.visitors, self.moved, self.requests, self.passed):
            for key in [key for key in counter if key[0] == name]:
                del counter[key]
        if not self.running[name]:
            del self.running[name]
