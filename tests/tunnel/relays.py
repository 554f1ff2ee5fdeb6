"""Several relays in this process, with a registry in its memory in place of Redis."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_muxado.tunnel import Claim, RegistryError, SharedRegistry, Token

from ..helpers.ports import free_port
from .support import HOST, Running, running_relay

SECRET = "what relays show to each other"
OF_RELAYS = Token(secret=SECRET, relay=True)


class Memory:
    """What relays share: claims with the moment at which each ends."""

    def __init__(self) -> None:
        self.claims: dict[Claim, float] = {}
        self.is_away = False
        self.asked: list[str] = []

    def living(self) -> list[Claim]:
        now = trio.current_time()
        self.claims = {claim: end for claim, end in self.claims.items() if end > now}
        return list(self.claims)


class MemoryRegistry(SharedRegistry):
    """One relay's way to it."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def _ask(self, what: str) -> Memory:
        await trio.lowlevel.checkpoint()
        self._memory.asked.append(what)
        if self._memory.is_away:
            raise RegistryError("the memory is away")
        return self._memory

    async def claim(self, claims: Sequence[Claim], seconds: float) -> list[Claim | None]:
        memory = await self._ask("claim")
        found: list[Claim | None] = []
        for claim in claims:
            others = (other for other in memory.living() if other.relay != claim.relay)
            other = next((each for each in others if each.stands_in_the_way_of(claim)), None)
            if other is None:
                memory.claims[claim] = trio.current_time() + seconds
            found.append(other)
        return found

    async def withdraw(self, claims: Sequence[Claim]) -> None:
        memory = await self._ask("withdraw")
        for claim in claims:
            memory.claims.pop(claim, None)

    async def find(self, key: str) -> list[Claim]:
        memory = await self._ask(key)
        return [claim for claim in memory.living() if key in claim.keys]


def address_of(relay: Running) -> str:
    """What other relays know it by."""
    assert relay.relay.config.relay_address is not None
    return relay.relay.config.relay_address


@asynccontextmanager
async def clustered(
    memory: Memory, *tokens: Token, **options: Any
) -> AsyncGenerator[Running, None]:
    """One of several relays.  Its expiry is short, so that tests needn't wait, but longer than a
    busy machine stands still."""
    address = f"{HOST}:{free_port()}"
    async with running_relay(
        *tokens,
        OF_RELAYS,
        agents=options.pop("agents", address),
        relay_address=address,
        shared_registry=MemoryRegistry(memory),
        **{"registry_expiry": 3, **options},
    ) as relay:
        yield relay
