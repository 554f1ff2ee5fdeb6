"""A relay's metrics in Prometheus' format, and whether it is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]
from prometheus_client import (
    CollectorRegistry,
    make_asgi_app,  # pyright: ignore[reportUnknownVariableType]
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from trio_muxado.tunnel import Relay

from .ending import Failed, in_words, leaves
from .options import Address


class RelayCollector(Collector):
    """What a relay has counted, when it is asked."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def collect(self) -> Iterable[Any]:
        """All metrics."""
        counts, registry = self._relay.counts, self._relay.registry
        yield _counter(
            "visitors", "Visitors' connections by how they ended.", counts.visitors, "end"
        )
        yield _counter("bytes", "Bytes moved, in from visitors, out to them.", counts.moved, "way")
        yield _counter("requests", "HTTP requests by the answer.", counts.requests, "status")
        cluster = self._relay.cluster
        if cluster is not None:
            yield _counter(
                "passed",
                "Visitors passed on, out to other relays, in from them.",
                counts.passed,
                "way",
            )
            yield GaugeMetricFamily(
                "trio_muxado_relay_relays",
                "Other relays with a session.",
                value=cluster.others.connected,
            )
            yield GaugeMetricFamily(
                "trio_muxado_relay_registry_up",
                "Whether the shared registry answers.",
                value=cluster.is_up,
            )
        refused = CounterMetricFamily(
            "trio_muxado_relay_refused",
            "Agents, clients and visitors turned away.",
            labels=["reason"],
        )
        for reason, count in counts.refused.items():
            refused.add_metric([reason], count)
        yield refused
        running = GaugeMetricFamily(
            "trio_muxado_relay_running", "Connections and requests that run.", labels=["tunnel"]
        )
        for tunnel, count in counts.running.items():
            running.add_metric([tunnel], count)
        yield running
        agents = GaugeMetricFamily(
            "trio_muxado_relay_agents", "Agents that serve a tunnel.", labels=["tunnel"]
        )
        for live in registry.tunnels:
            agents.add_metric([live.name], len(live.agents))
        yield agents
        yield GaugeMetricFamily(
            "trio_muxado_relay_stopping",
            "Whether the relay takes no more visitors.",
            value=self._relay.is_stopping,
        )


def _counter(
    name: str, text: str, counts: Counter[tuple[str, str]], label: str
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"trio_muxado_relay_{name}", text, labels=["tunnel", label])
    for (tunnel, value), count in counts.items():
        family.add_metric([tunnel, value], count)
    return family


def status_app(relay: Relay) -> Any:
    """An ASGI application with /metrics and /healthz."""
    registry = CollectorRegistry()
    registry.register(RelayCollector(relay))
    metrics = cast("Any", make_asgi_app(registry))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError("this application has no lifespan")
        path = scope["path"]
        if path == "/metrics":
            await metrics(scope, receive, send)
            return
        status, body = 404, b"there are /metrics and /healthz\n"
        if path == "/healthz":
            status, body = (503, b"stopping\n") if relay.is_stopping else (200, b"ok\n")
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def serve_status(
    relay: Relay, address: Address, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve it until cancelled.

    Raises:
      Failed: the address is taken, or none of this machine.
    """
    config = Config()
    config.bind = [str(address if address.host else f":{address.port}")]
    config.errorlog = None
    forever = trio.Event()
    try:
        await serve(
            status_app(relay),
            config,
            shutdown_trigger=partial(forever.wait),
            task_status=task_status,
        )
    except BaseException as error:  # hypercorn's nurseries make groups
        first = next(leaves(error))
        if isinstance(first, OSError):
            raise Failed(f"cannot listen on {address}: {in_words(first)}") from None
        raise
