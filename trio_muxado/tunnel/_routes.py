"""The ways from a visitor to an agent of its tunnel, at this relay or at another one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import trio

from .. import MuxadoStream
from ._cluster import Cluster
from ._config import RelayConfig
from ._counts import RelayCounts
from ._opening import NoAgentError, open_to_agent
from ._registry import LiveTunnel, Registry
from ._shared import Claim
from ._visitors import Visitor

logger = logging.getLogger("trio_muxado.tunnel")

POLL = 0.25
"""Seconds between two looks for an agent that may come back at any relay."""

FRESH_ENOUGH = 5.0
"""Seconds for which the other agents of a tunnel that has some here are not asked for again."""


class Holder(Protocol):
    """Where a visitor has been let in: an agent, or another relay."""

    @property
    def extra(self) -> Mapping[str, str]:
        """For records of a log."""
        ...


class Routes:
    """Finds them: agents of this relay come first, and then those of other relays in turn."""

    def __init__(self, config: RelayConfig, registry: Registry, counts: RelayCounts) -> None:
        self.registry = registry
        self.counts = counts
        self.cluster: Cluster | None = None
        self._keep = config.keep_tunnel
        self._turns: Counter[str] = Counter()
        self._used: dict[str, float] = {}

    async def by_host(self, host: str) -> Route | None:
        """For a request that names a host."""
        return await self._find(self.registry.find_host(host), f"host:{host}")

    async def by_port(self, port: int) -> Route | None:
        """For a visitor of a TCP port."""
        return await self._find(self.registry.find_port(port), f"port:{port}")

    async def by_name(self, name: str) -> Route | None:
        """For a client."""
        return await self._find(self.registry.find(name), f"name:{name}")

    def is_known(self, name: str) -> bool:
        """Whether a tunnel is there, or was lately at another relay."""
        return name in self._used or self.registry.find(name) is not None

    async def _find(self, live: LiveTunnel | None, key: str) -> Route | None:
        if live is None and self.cluster is not None:
            for claim in await self.cluster.find(key):
                return Route(self, claim.name, None)
        return None if live is None else Route(self, live.name, live)

    def in_turn(self, name: str, claims: Sequence[Claim]) -> list[Claim]:
        """As they are to be tried: another one first each time."""
        if not claims:
            return []
        self._used[name] = trio.current_time()
        start = self._turns[name] % len(claims)
        self._turns[name] += 1
        return [*claims[start:], *claims[:start]]

    def forget_unused(self) -> None:
        """Drop what was kept of tunnels that other relays have, or had: agents choose the names."""
        before = trio.current_time() - self._keep
        for name in [name for name, at in self._used.items() if at < before]:
            if not self.counts.running[name]:
                del self._used[name], self._turns[name]
                if self.registry.find(name) is None:
                    self.counts.forget(name)


class Route:
    """A tunnel, and whoever may hold an agent of it when a visitor comes."""

    def __init__(self, routes: Routes, name: str, live: LiveTunnel | None) -> None:
        self.name = name
        self._routes = routes
        self._live = live

    async def open(
        self, visitor: Visitor, patience: float, first: bytes = b""
    ) -> tuple[MuxadoStream, Holder]:
        """Open a stream to a service of the tunnel that is there; see :func:`open_to_agent`.

        Raises:
          NoAgentError: none is there within ``patience`` seconds, or each service refused.
        """
        routes, live = self._routes, self._live
        if routes.cluster is None:
            assert live is not None
            return await open_to_agent(live, visitor, patience, first)
        failure = NoAgentError("agent", f"no agent of {self.name!r} is connected")
        deadline = trio.current_time() + patience
        while True:
            try:
                with trio.fail_at(deadline):
                    return await self._try(routes.cluster, visitor, deadline, first)
            except NoAgentError as error:
                failure = error
            except trio.TooSlowError:
                raise NoAgentError("silent", f"nothing came for {patience:g} s") from None
            if failure.reason == "service" or trio.current_time() + POLL > deadline:
                raise failure
            await trio.sleep(POLL)

    async def _try(
        self,
        cluster: Cluster,
        visitor: Visitor,
        deadline: float,
        first: bytes,
    ) -> tuple[MuxadoStream, Holder]:
        """Ask everyone once who may have an agent."""
        name, key = self.name, f"name:{self.name}"
        live = self._routes.registry.find(name)
        is_here = live is not None and bool(live.pool.sessions)
        claims = await cluster.find(key, FRESH_ENOUGH) if is_here else await cluster.find(key)
        failure = NoAgentError("agent", f"no agent of {name!r} is connected to any relay")
        left = len(claims) + is_here
        if live is not None and is_here:
            patience = (deadline - trio.current_time()) / left
            try:
                return await open_to_agent(live, visitor, patience, first)
            except NoAgentError as error:
                failure = error
                left -= 1
        passed = self._routes.counts.passed
        for claim in self._routes.in_turn(name, claims):
            try:
                with trio.fail_after((deadline - trio.current_time()) / left):
                    found = await cluster.others.open(claim.relay, name, visitor, first)
            except NoAgentError as error:
                failure = error
            except trio.TooSlowError:
                failure = NoAgentError("silent", f"nothing came from the relay {claim.relay}")
            else:
                passed[name, "out"] += 1
                return found
            left -= 1
            passed[name, "failed"] += 1
            cluster.doubt(key)
            extra = {"visitor": str(visitor), "tunnel": name}
            logger.info("%s: %s is not passed on: %s", name, visitor, failure, extra=extra)
        raise failure
