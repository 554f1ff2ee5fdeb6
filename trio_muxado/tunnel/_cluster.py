"""What a relay enters in the shared registry, and what it finds there of other relays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import trio

from ._config import RelayConfig
from ._errors import TunnelRefusedError
from ._names import Tunnel
from ._registry import Agent, LiveTunnel, Registry
from ._relays import OtherRelays
from ._shared import Claim, RegistryError, SharedRegistry, place_of

logger = logging.getLogger("trio_muxado.tunnel")

FRESH = 1.0
"""Seconds for which what the registry has said is not asked again."""

RETRY = 1.0
"""Seconds between attempts while the registry can't be reached."""

MOST_KNOWN = 10_000
"""Keys whose claims are remembered."""

AT_ONCE = 500
"""Claims that are renewed in one go."""

LAST_WORDS = 1.0
"""Seconds to withdraw what the relay holds, when it ends."""


@dataclass(frozen=True)
class _Known:
    at: float
    claims: Sequence[Claim]


class Cluster:
    """One relay's part in the shared registry.

    Claims in there are those of the tunnels that have an agent here; a task compares the two, so
    whatever has failed is made good later.  While the registry is away nothing waits for it.
    """

    def __init__(
        self,
        shared: SharedRegistry,
        relay: str,
        config: RelayConfig,
        registry: Registry,
        others: OtherRelays,
        every_renewal: Callable[[], None],
    ) -> None:
        self.others: OtherRelays = others
        """To which visitors are passed on."""
        self.is_up: bool = False
        """Whether the registry has answered when it was asked last."""
        self._shared = shared
        self._relay = relay
        self._expiry = config.registry_expiry
        self._registry = registry
        self._every_renewal = every_renewal
        self._published: set[Claim] = set()
        self._reserved: Counter[Claim] = Counter()
        self._in_the_way: set[Claim] = set()
        self._known: dict[str, _Known] = {}
        self._changed = trio.Event()
        registry.on_change = self._wake

    # ---- what this relay holds

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the claims of this relay until cancelled, and withdraw them then."""
        async with self._shared:
            try:
                renew_at = trio.current_time()
                await self._publish(all_of_them=True)
                task_status.started()
                while True:
                    renew_at += self._expiry / 3
                    while trio.current_time() < renew_at:
                        changed = self._changed
                        pause = RETRY if not self.is_up else renew_at - trio.current_time()
                        with trio.move_on_after(pause):
                            await changed.wait()
                        await self._publish(all_of_them=not self.is_up)
                    await self._publish(all_of_them=True)
                    self._every_renewal()
                    renew_at = max(renew_at, trio.current_time())
            finally:
                with trio.move_on_after(LAST_WORDS, shield=True), suppress(RegistryError):
                    await self._shared.withdraw(list(self._published))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _publish(self, *, all_of_them: bool) -> None:
        wanted = {self._claim_of(live) for live in self._registry.tunnels if live.agents}
        wanted |= set(self._reserved)
        self._in_the_way &= wanted
        try:
            if gone := self._published - wanted:
                await self._shared.withdraw(list(gone))
                self._published -= gone
            new = list(wanted if all_of_them else wanted - self._published)
            for start in range(0, len(new), AT_ONCE):
                part = new[start : start + AT_ONCE]
                others = await self._shared.claim(part, self._expiry)
                for claim, other in zip(part, others, strict=True):
                    self._note_claim(claim, other)
            if all_of_them and not new:
                await self._shared.find(f"relay:{self._relay}")  # whether it is there at all
        except RegistryError as error:
            self._note_answer(error)
        else:
            self._note_answer(None)

    def _note_claim(self, claim: Claim, other: Claim | None) -> None:
        if other is None:
            self._published.add(claim)
            self._in_the_way.discard(claim)
        elif claim not in self._in_the_way:  # both were granted while the registry was away
            self._in_the_way.add(claim)
            text = "%s at %s is only found at this relay: %s of the relay %s is in the way"
            logger.warning(text, claim.name, claim.place or "no place", other.name, other.relay)

    def _note_answer(self, error: RegistryError | None) -> None:
        if self.is_up and error is not None:
            logger.error("the registry is away, own agents are served: %s", error)
        elif not self.is_up and error is None:
            logger.info("the registry is there")
        self.is_up = error is None

    def _claim_of(self, live: LiveTunnel) -> Claim:
        return Claim(self._relay, live.name, place_of(live.host, live.port))

    # ---- what an agent asks for

    @asynccontextmanager
    async def reserved(
        self, agent: Agent, wanted: Sequence[Tunnel]
    ) -> AsyncGenerator[list[Tunnel], None]:
        """Claim all tunnels for an agent that is about to get them; gives them with their ports.

        While the registry is away, it gives what was wanted.

        Raises:
          TunnelRefusedError: another relay's agent has a name, a host or a port.
        """
        claims: list[Claim] = []
        try:
            tunnels: list[Tunnel] = []
            for tunnel in wanted:
                why = agent.token.why_not(tunnel)
                if why is not None:
                    raise TunnelRefusedError("not-allowed", why)
                tunnels.append(await self._reserve(agent, tunnel, claims))
            yield tunnels
        finally:
            self._reserved.subtract(claims)
            self._reserved += Counter()  # only what is positive stays
            self._wake()

    async def _reserve(self, agent: Agent, tunnel: Tunnel, claims: list[Claim]) -> Tunnel:
        for candidate in await self._candidates(agent, tunnel):
            claim = Claim(self._relay, candidate.name, place_of(candidate.host, candidate.port))
            self._reserved[claim] += 1
            claims.append(claim)
            try:
                (other,) = await self._shared.claim([claim], self._expiry)
            except RegistryError as error:
                self._note_answer(error)
                return tunnel
            if other is None:
                self._published.add(claim)
                return candidate
            claims.remove(claim)
            self._reserved[claim] -= 1
            if tunnel.port != 0 or other.name == tunnel.name:
                text = f"another agent has {other.name!r} at {other.place or other.name}"
                raise TunnelRefusedError("taken", f"{text}, at the relay {other.relay}")
        raise TunnelRefusedError("busy", "no port is free of those that the token allows")

    async def _candidates(self, agent: Agent, tunnel: Tunnel) -> list[Tunnel]:
        """The tunnel, with each port that it may get."""
        if tunnel.port != 0:
            return [tunnel]
        live = self._registry.find(tunnel.name)
        if live is not None and live.port is not None:
            return [replace(tunnel, port=live.port)]
        for claim in await self.find(f"name:{tunnel.name}", 0):
            kind, _, number = claim.place.partition(":")
            if kind == "port" and number.isdecimal():
                return [replace(tunnel, port=int(number))]
        # What is reserved for others is not in the registry yet, and their relay is this one.
        reserved = {claim.place for claim in self._reserved if claim.name != tunnel.name}
        ports = self._registry.free_ports(agent.token)
        return [
            replace(tunnel, port=port) for port in ports if place_of(None, port) not in reserved
        ] or [tunnel]

    # ---- what others hold

    async def find(self, key: str, fresh: float = FRESH) -> Sequence[Claim]:
        """The claims of other relays, by one of their keys, as they were ``fresh`` seconds ago.

        While the registry is away, as they were known last.
        """
        known = self._known.get(key)
        if known is not None and (not self.is_up or trio.current_time() - known.at < fresh):
            return known.claims
        if not self.is_up:
            return ()
        try:
            found = await self._shared.find(key)
        except RegistryError as error:
            self._note_answer(error)
            return () if known is None else known.claims
        claims = sorted((each for each in found if each.relay != self._relay), key=str)
        self._known.pop(key, None)
        if not claims and fresh <= FRESH:
            return claims  # the next visitor may already find one
        self._known[key] = _Known(trio.current_time(), claims)
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return claims

    def doubt(self, key: str) -> None:
        """Ask the registry anew next time."""
        known = self._known.get(key)
        if known is not None:
            self._known[key] = replace(known, at=-1e9)
