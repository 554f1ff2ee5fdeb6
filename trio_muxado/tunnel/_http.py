"""HTTP by host name: what all connections of visitors have in common."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Protocol

from ._config import RelayConfig
from ._counts import RelayCounts
from ._names import host_of
from ._opening import NoAgentError
from ._pages import NO_TUNNEL, WHY, Page, page
from ._routes import Route, Routes
from ._visitors import Arrivals, Slots, Visitor

logger = logging.getLogger("trio_muxado.tunnel")


class Connection(Protocol):
    """A visitor's, of either version of HTTP."""

    async def run(self) -> None:
        """Serve it to its end."""

    def stop(self) -> None:
        """Take no further requests."""


class HttpFront:
    """Where visitors of HTTP tunnels come in."""

    def __init__(
        self,
        config: RelayConfig,
        routes: Routes,
        counts: RelayCounts,
        slots: Slots,
        arrivals: Arrivals,
    ) -> None:
        self.config = config
        self.counts = counts
        self._routes = routes
        self.stopping = False
        self.slots = slots
        self.connections: set[Connection] = set()
        self.arrivals = arrivals

    def stop(self) -> None:
        """Take no further requests; those that run are answered."""
        self.stopping = True
        for connection in self.connections:
            connection.stop()

    async def find(self, authority: bytes) -> tuple[Route | None, str]:
        """The tunnel that a request is for, and the host it names."""
        text = authority.decode("ascii", "replace")
        host = host_of(text)
        return (None, text) if host is None else (await self._routes.by_host(host), host)

    # ---- answers of the relay's own

    def no_tunnel(self, host: str) -> Page:
        """For a host that no tunnel has."""
        self.counts.requests["", "5xx"] += 1
        return page(HTTPStatus.BAD_GATEWAY, NO_TUNNEL.format(host=host[:300]))

    def no_agent(self, route: Route, visitor: Visitor, error: NoAgentError) -> Page:
        """For a tunnel whose service can't be reached."""
        self.note_failure(route, visitor, str(error))
        return page(HTTPStatus.BAD_GATEWAY, WHY[error.reason])

    def no_answer(self, route: Route, visitor: Visitor, why: str) -> Page:
        """For a service that has ended the connection instead of an answer."""
        self.note_failure(route, visitor, why)
        return page(
            HTTPStatus.BAD_GATEWAY, "The service behind the tunnel ended without an answer."
        )

    def too_slow(self, route: Route, visitor: Visitor) -> Page:
        """For a service that does not answer at all."""
        self.note_failure(route, visitor, "the service does not answer")
        return page(HTTPStatus.GATEWAY_TIMEOUT, "The service behind the tunnel does not answer.")

    def note_failure(self, route: Route, visitor: Visitor, why: str) -> None:
        """Count and log a request without a whole answer."""
        self.counts.requests[route.name, "5xx"] += 1
        extra = {"visitor": str(visitor), "tunnel": route.name}
        logger.info("%s: a request of %s failed: %s", route.name, visitor, why, extra=extra)

    def note_answer(self, route: Route, visitor: Visitor, status: int, agent: object) -> None:
        """Count a whole answer."""
        self.counts.requests[route.name, f"{status // 100}xx"] += 1
        extra = {"visitor": str(visitor), "tunnel": route.name, "agent": str(agent)}
        logger.debug("%s: %s by %s: %d", route.name, visitor, agent, status, extra=extra)
