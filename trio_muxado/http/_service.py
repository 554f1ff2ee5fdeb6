"""An ASGI application that is served: its configuration, its lifespan and the calls of it."""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from ._exchange import Exchange
from ._lifespan import Lifespan

App = Callable[..., Awaitable[Any]]


class Service:
    """What all connections of a server share.

    An exchange runs in its nursery, since it may go on when its connection has ended.
    """

    nursery: trio.Nursery

    def __init__(
        self,
        app: App,
        config: Config,
        *,
        ssl_context: ssl.SSLContext | None,
        scheme: Literal["http", "https"] | None,
        proxy_protocol: bool,
    ) -> None:
        self.app = app
        self.config = config
        self.ssl_context = ssl_context
        self.scheme = scheme
        self.proxy_protocol = proxy_protocol
        self.state: dict[str, Any] = {}
        self.lifespan = Lifespan(app, config, self.state)
        self.context = WorkerContext(None)
        self._running: set[Exchange] = set()
        self._ended = trio.Event()
        self.stopping = False
        """No further requests are accepted."""
        self.stops_at = math.inf
        """When everything that still runs is cancelled, on trio's clock."""
        self.fatal: BaseException | None = None
        """What an application raised to end the program, after its response or in its lifespan."""

    async def run_lifespan(self) -> None:
        """Call the application for its lifespan."""
        await self.lifespan.run()
        if self.lifespan.fatal is not None:
            self.fail(self.lifespan.fatal)

    def start(self, exchange: Exchange) -> None:
        """Call the application; the call may outlive its connection."""
        exchange.stop(self.stops_at)
        self._running.add(exchange)
        self.nursery.start_soon(self._run, exchange, name=self.app)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await exchange.run()
        finally:
            self._running.discard(exchange)
            self._ended.set()

    def fail(self, error: BaseException) -> None:
        """End the program."""
        self.fatal = self.fatal or error
        self.nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """Accept no further requests, and cancel after ``graceful_timeout`` what still runs."""
        self.stopping = True
        self.stops_at = trio.current_time() + self.config.graceful_timeout
        await self.context.terminated.set()
        for exchange in self._running:
            exchange.stop(self.stops_at)

    async def end(self, *, gracefully: bool) -> None:
        """End what still runs, and then the application's lifespan."""
        with trio.CancelScope(shield=not gracefully):
            timeout = self.config.shutdown_timeout
            if not gracefully:
                timeout = min(timeout, self.config.graceful_timeout)
            await self._finish_exchanges(self.config.graceful_timeout if gracefully else 0)
            await self.lifespan.shut_down(timeout)

    async def _finish_exchanges(self, timeout: float) -> None:
        """Wait for exchanges that outlived their connections; cancel them after ``timeout``."""
        deadline = trio.current_time() + timeout
        for exchange in self._running:
            exchange.stop(deadline)
        while self._running:
            self._ended = trio.Event()
            await self._ended.wait()
