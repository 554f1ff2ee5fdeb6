"""A relay and agents in this process, over TCP on loopback, where alone ports and RST exist."""

import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio

from trio_muxado import Backoff
from trio_muxado.tunnel import (
    AddressService,
    Relay,
    RelayConfig,
    RelayPorts,
    Token,
    Tunnel,
    expose,
)
from trio_muxado.tunnel._services import Service

from ..helpers.ports import free_ports
from ..helpers.programs import DEADLINE

HOST = "127.0.0.1"
SECRET = "everything is allowed"
EVERYTHING = Token(secret=SECRET, names=("*",), hosts=("*",), ports=("1-65535",), targets=("*",))
TCP = Tunnel(name="tcp", port=0)
"""A tunnel with any port of the relay's."""
QUICK = Backoff(first=0.02, longest=0.1)
PATIENCE = DEADLINE
"""Seconds after which a test hangs."""


def config(**options: Any) -> RelayConfig:
    """A relay's, with ports that are free."""
    return RelayConfig(**{"agents": f"{HOST}:0", "ports": free_ports(10), **options})


class Running:
    """A relay that runs."""

    def __init__(self, relay: Relay, ports: RelayPorts, stop: trio.Event, ended: trio.Event):
        self.relay = relay
        self.ports = ports
        self.stop = stop
        self.ended = ended

    @property
    def http(self) -> int:
        """The port of HTTP's visitors."""
        assert self.ports.http is not None
        return self.ports.http[1]

    @property
    def https(self) -> int:
        """The same over TLS."""
        assert self.ports.https is not None
        return self.ports.https[1]


@asynccontextmanager
async def running_relay(
    *tokens: Token, cancel: bool = True, **options: Any
) -> AsyncGenerator[Running, None]:
    """A relay; without tokens, with one that allows all."""
    made = {
        name: options.pop(name)
        for name in ("https_tls", "agents_tls", "heartbeat", "shared_registry", "relays_tls")
        if name in options
    }
    relay = Relay(config(**options), tokens or (EVERYTHING,), **made)
    stop, ended = trio.Event(), trio.Event()

    async def run(task_status: Any) -> None:
        await relay.run(stop=stop, task_status=task_status)
        ended.set()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            ports = await nursery.start(run)
            yield Running(relay, ports, stop, ended)
            if cancel:
                nursery.cancel_scope.cancel()


class SlowBinding:
    """From now on nobody listens on a port before ``go_on`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun = trio.Event()
        self.go_on = trio.Event()
        self._listen = trio.open_tcp_listeners
        monkeypatch.setattr(trio, "open_tcp_listeners", self)

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.has_begun.set()
        await self.go_on.wait()
        return await self._listen(*arguments, **options)


class Exposed:
    """An agent that runs."""

    def __init__(self) -> None:
        self.news: list[tuple[str, Any]] = []
        self.stop = trio.Event()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self._changed = trio.Event()

    def on_state(self, state: str, news: Any) -> None:
        self.news.append((state, news))
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, state: str, times: int = 1) -> Any:
        while sum(said == state for said, _ in self.news) < times:
            await self._changed.wait()
        return [news for said, news in self.news if said == state][-1]

    @property
    def addresses(self) -> dict[str, str]:
        (*_, granted) = [news for said, news in self.news if said == "connected"]
        return {each.name: each.address for each in granted}

    def port(self, name: str = "tcp") -> int:
        return int(self.addresses[name].rpartition(":")[2])


@asynccontextmanager
async def exposed(
    relay: Running | RelayPorts,
    services: Mapping[Tunnel, Service],
    *,
    token: str = SECRET,
    wait: bool = True,
    **options: Any,
) -> AsyncGenerator[Exposed, None]:
    """An agent of a relay, once its tunnels are there."""
    ports = relay.ports if isinstance(relay, Running) else relay
    agent = Exposed()

    async def run() -> None:
        with agent.scope:
            await expose(
                services,
                *ports.agents,
                token=token,
                stop=agent.stop,
                on_state=agent.on_state,
                **{"backoff": QUICK, "agent": "an agent", **options},
            )
        agent.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        if wait:
            await agent.wait_for("connected")
        yield agent
        nursery.cancel_scope.cancel()


Handler = Callable[[trio.SocketStream], Awaitable[Any]]


@asynccontextmanager
async def service(handler: Handler) -> AsyncGenerator[AddressService, None]:
    """A TCP service on loopback."""

    async def guarded(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, OSError):
            await handler(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, guarded, 0, host=HOST))
        yield AddressService(HOST, listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def saying(word: bytes) -> Handler:
    """A service that answers with one word, once it was asked."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(word)

    return answer


async def reverse(stream: trio.SocketStream) -> None:
    """Sends back, the wrong way round, what it has read to the end."""
    data = b"".join([bytes(chunk) async for chunk in stream])
    await stream.send_all(data[::-1])


async def until(condition: Callable[[], Any]) -> None:
    """Wait until it is true; the test's own deadline ends what hangs."""
    while not condition():
        await trio.sleep(0.005)


@asynccontextmanager
async def visit(port: int) -> AsyncGenerator[trio.SocketStream, None]:
    """A visitor's connection."""
    async with await trio.open_tcp_stream(HOST, port) as visitor:
        yield visitor


async def ask(port: int, data: bytes = b"?") -> bytes:
    """What a visitor of a port is answered."""
    async with await trio.open_tcp_stream(HOST, port) as visitor:
        await visitor.send_all(data)
        await visitor.send_eof()
        return b"".join([bytes(chunk) async for chunk in visitor])


def reset_on_close(stream: trio.SocketStream) -> None:
    """Have a connection end by RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
