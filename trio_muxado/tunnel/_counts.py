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
    """Since the relay began.  Keys are the tunnel's name and a word."""

    visitors: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    """How visitors' connections ended: ``"clean"``, ``"broken"``, ``"idle"``, ``"no-agent"``."""
    moved: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    """``"in"`` from visitors, ``"out"`` to them."""
    requests: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    """HTTP requests by the class of their answer: ``"2xx"``."""
    passed: PerTunnel = field(default_factory=Counter[tuple[str, str]])
    """Visitors passed on between relays: ``"out"`` to another one, ``"in"`` from one, and
    ``"failed"`` where the other one did not take them."""
    refused: Counter[str] = field(default_factory=Counter[str])
    """Who was turned away: agents by the reason, those that have shown no token as
    ``"no-token"``; visitors as ``"visitor"``."""
    running: Counter[str] = field(default_factory=Counter[str])
    """Visitors' connections, or requests, that run now, by tunnel."""

    is_known: Callable[[str], bool] | None = field(default=None, repr=False, compare=False)
    """Says whether a tunnel is there, here or at another relay; what is counted of one that is not
    is dropped with its last visitor.  None keeps all."""

    @contextmanager
    def visit(self, name: str) -> Generator[None, None, None]:
        """A visitor's connection, or a request, for the block.  Whatever is counted of it is
        counted within, as its tunnel may be over before it is."""
        self.running[name] += 1
        try:
            yield
        finally:
            self.running[name] -= 1
            is_known = self.is_known is None or self.is_known(name)
            if not is_known and not self.running[name]:
                self.forget(name)

    def forget(self, name: str) -> None:
        """Drop what was counted of a tunnel that is over: agents choose the names."""
        for counter in (self.visitors, self.moved, self.requests, self.passed):
            for key in [key for key in counter if key[0] == name]:
                del counter[key]
        if not self.running[name]:
            del self.running[name]
