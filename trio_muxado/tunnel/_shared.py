"""What several relays know of each other: which of them holds an agent of which tunnel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType


class RegistryError(Exception):
    """The shared registry does not answer, or not as it should."""


@dataclass(frozen=True)
class Claim:
    """A relay says that it has an agent of a tunnel."""

    relay: str
    """HOST:PORT where other relays reach it."""
    name: str
    """Of the tunnel."""
    place: str = ""
    """Where visitors find the tunnel: ``"host:www.example.org"`` or ``"port:20000"``; empty where
    only clients reach it, by its name."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What the claim is found by."""
        return (f"name:{self.name}", *([self.place] if self.place else []))

    def stands_in_the_way_of(self, other: Claim) -> bool:
        """Whether the other one can't be granted: one name at two places, or one place for two."""
        if self.name == other.name:
            return self.place != other.place
        return bool(self.place) and self.place == other.place


def place_of(host: str | None, port: int | None) -> str:
    """Where visitors find a tunnel, as a claim has it."""
    if host is not None:
        return f"host:{host}"
    return f"port:{port}" if port is not None else ""


class SharedRegistry(ABC):
    """Which relay has an agent of which tunnel, for all relays that share it.

    :class:`RedisRegistry` is one.  A relay enters it with ``async with`` while it runs, and calls
    it from several tasks.  Every method raises :class:`RegistryError` where it can't do its work,
    and does so within seconds; a relay goes on with its own agents then.
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

        Gives for each the other relay's claim that stands in its way, and then it is not entered;
        or None.  No two relays may both be granted what stands in each other's way.
        """

    @abstractmethod
    async def withdraw(self, claims: Sequence[Claim]) -> None:
        """Remove claims; those that are not there are skipped."""

    @abstractmethod
    async def find(self, key: str) -> list[Claim]:
        """The claims that live, by one of their :attr:`~Claim.keys`."""
