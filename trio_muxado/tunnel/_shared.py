"""What several relays know of each other: which of them has an agent for which tunnel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType


class RegistryError(Exception):
    """The shared registry does not answer, or not as it should."""


@dataclass(frozen=True)
class Claim:
    """A relay's entry in the registry: it has an agent for a tunnel.

    Attributes:
      relay: HOST:PORT at which other relays reach it.
      name: the name of the tunnel.
      place: where visitors find the tunnel: ``"host:www.example.org"`` or ``"port:20000"``; empty
        if only clients reach it, by its name.
    """

    relay: str
    name: str
    place: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys under which the claim can be found."""
        return (f"name:{self.name}", *([self.place] if self.place else []))

    def stands_in_the_way_of(self, other: Claim) -> bool:
        """Whether the two conflict: one name at two places, or one place for two names."""
        if self.name == other.name:
            return self.place != other.place
        return bool(self.place) and self.place == other.place


def place_of(host: str | None, port: int | None) -> str:
    """Where visitors find a tunnel, as a claim has it."""
    if host is not None:
        return f"host:{host}"
    return f"port:{port}" if port is not None else ""


class SharedRegistry(ABC):
    """Which relay has an agent for which tunnel, for all relays that share it.

    :class:`RedisRegistry` is one.  A relay enters it with ``async with`` while it runs, and calls
    it from several tasks.  Every method raises :class:`RegistryError` if it can't do its work, and
    does so within seconds; a relay then goes on with its own agents.
    """

    async def __aenter__(self) -> SharedRegistry:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    @abstractmethod
    async def claim(self, claims: Sequence[Claim], seconds: float) -> list[Claim | None]:
        """Enter claims, or renew them, each for that many seconds.

        Returns a list with None for each claim that was entered, or the claim of another relay that
        conflicts with it.  Two claims that conflict must never both be entered.
        """

    @abstractmethod
    async def withdraw(self, claims: Sequence[Claim]) -> None:
        """Remove claims; a claim that is not there is skipped."""

    @abstractmethod
    async def find(self, key: str) -> list[Claim]:
        """The claims with this key that have not expired: see :attr:`~Claim.keys`."""
