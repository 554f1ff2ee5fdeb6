"""Playing the session vectors to a peer, and finding out which it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trio_muxado._check import Result, Vector, echo_vectors, play_all
from trio_muxado._check.vectors import VERSIONS, Version

from .ending import Failed
from .options import Address
from .peer import Connections, Peer

SPECIFICATION = "docs/specification"

FIRST = ("echo", "echo-typed")
"""The vectors that are played first, alone: who does not pass them is not an echo peer."""


@dataclass
class Check:
    """What is played, in which way, and what came of it."""

    peer: Peer
    vectors: Sequence[Vector]
    at_once: int
    timeout: float
    tick: Callable[[Result], Any]
    _results: list[Result] = field(default_factory=list[Result], init=False)

    async def run(self) -> None:
        """Play all vectors, and fill ``results``."""
        async with self.peer.connections(len(self.vectors)) as connections:
            first = [v for v in self.vectors if v.name in FIRST]
            (result,) = await self._play(first, connections)
            if result.difference is not None:
                wire = result.vector.version
                raise no_echo_peer(self.peer.address, {wire: result.difference})
            await self._play([v for v in self.vectors if v is not result.vector], connections)

    async def _play(self, vectors: Sequence[Vector], connections: Connections) -> list[Result]:
        return await play_all(
            vectors,
            connections,
            at_once=self.at_once,
            timeout=self.timeout,
            on_result=self._note,
        )

    @property
    def results(self) -> list[Result]:
        """What came so far, in the order of the vectors."""
        return sorted(self._results, key=lambda result: self.vectors.index(result.vector))

    def _note(self, result: Result) -> None:
        self._results.append(result)
        self.tick(result)


async def spoken_versions(
    peer: Peer, *, typed: bool, timeout: float
) -> Mapping[Version, str | None]:
    """What is wrong with each protocol version as a peer that is dialled speaks it."""
    found: dict[Version, str | None] = {}
    async with peer.connections(len(VERSIONS)) as connections:
        for wire in VERSIONS:
            vectors = echo_vectors(wire, role="server", typed=typed)
            first = [v for v in vectors if v.name in FIRST]
            for result in await play_all(first, connections, timeout=timeout):
                found[wire] = result.difference
    return found


def no_echo_peer(address: Address, differences: Mapping[Version, str | None]) -> Failed:
    """What to raise where no echo comes."""
    reasons = "; ".join(f"{wire}: {difference}" for wire, difference in differences.items())
    needed = f"which is needed ({SPECIFICATION}/vectors.md#an-echo-peer)"
    return Failed(f"{address} is not an echo peer, {needed}. As a peer of muxado {reasons}")
