"""Whoever leaves at the wrong moment, and what is left of a tunnel that is over."""

import pickle
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import trio

from trio_muxado import MuxadoSession, MuxadoStream, proxy_header
from trio_muxado.tunnel import (
    Relay,
    Token,
    Tunnel,
    TunnelRefusedError,
    forward_port,
)
from trio_muxado.tunnel._control import receive_message
from trio_muxado.tunnel._messages import Accepted, Granted, Hello, Refused, Target, encode
from trio_muxado.tunnel._registry import shown_peer

from ..helpers.ports import free_port
from .support import (
    HOST,
    QUICK,
    SECRET,
    TCP,
    ask,
    config,
    exposed,
    running_relay,
    saying,
    service,
    until,
)
from .test_agents import by_hand, no_relay, say
from .test_no_peer import accepting
from .web import WEB


class Slow:
    """A connection that takes until it is told."""

    def __init__(self) -> None:
        self.is_connecting, self.go_on = trio.Event(), trio.Event()
        self.ends: list[bytes | None] = []

    async def connect(self, host: str, port: int) -> trio.SocketStream:
        self.is_connecting.set()
        await self.go_on.wait()
        return await trio.open_tcp_stream(host, port)

    async def note_end(self, stream: trio.SocketStream) -> None:
        try:
            self.ends.append(await stream.receive_some())
        except trio.BrokenResourceError:
            self.ends.append(None)


async def test_a_visitor_that_leaves_while_his_service_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow()
    monkeypatch.setattr("trio_muxado.tunnel._services.connect_tcp", slow.connect)

    async def leave(session: MuxadoSession) -> None:
        stream = await session.open_stream(type=1)
        await stream.send_all(proxy_header("v2", None, None))
        await slow.is_connecting.wait()
        await stream.reset()
        await session.ping()  # so the agent has heard of it
        slow.go_on.set()
        await session.wait_closed()

    granted = Accepted((Granted(TCP.name, 1, "somewhere"),))
    async with service(slow.note_end) as behind, accepting(granted, leave) as ports:
        async with exposed(ports, {TCP: behind}):
            await until(lambda: slow.ends)
    assert slow.ends == [None]


async def test_a_client_that_leaves_while_his_target_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow()
    monkeypatch.setattr("trio_muxado.tunnel._targets.connect_tcp", slow.connect)
    async with service(slow.note_end) as behind:
        target = str(behind)
        token = Token(secret="it may go to a target", targets=(target,))
        async with running_relay(token, allow_targets=(target,)) as relay:
            async with by_hand(relay) as session:
                await receive_message(await say(session, Hello(token.secret, "a client")))
                stream = await say(session, Target(target), type=1)
                await slow.is_connecting.wait()
                await stream.reset()
                await session.ping()  # so the relay has heard of it
                slow.go_on.set()
                await until(lambda: slow.ends)
            assert not relay.relay.counts.running[target]
    assert len(slow.ends) == 1


async def test_a_bug_that_a_client_finds_is_logged_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find(name: str) -> None:
        raise ZeroDivisionError

    async with running_relay() as relay, by_hand(relay) as session:
        await receive_message(await say(session, Hello(SECRET, "a client")))
        monkeypatch.setattr(relay.relay.registry, "find", find)
        stream = await say(session, Target("db"), type=1)
        with pytest.raises(trio.BrokenResourceError, match="INTERNAL_ERROR"):
            await stream.receive_some()
        await session.ping()
    assert "a client's stream failed" in caplog.messages


async def test_a_client_that_names_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_muxado.tunnel._targets.HELLO_TIMEOUT", 0.05)
    async with running_relay() as relay, by_hand(relay) as session:
        await receive_message(await say(session, Hello(SECRET, "a client")))
        stream = await session.open_stream(type=1)
        await stream.send_all(b"\0")
        assert await receive_message(stream) == Refused("message", "no message came in time")


async def test_a_client_comes_back_to_a_relay_that_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    came: list[MuxadoStream] = []

    async def refuse(stream: MuxadoStream) -> None:
        came.append(stream)
        await receive_message(stream)
        await stream.send_all(encode(Refused("stopping", "in a moment")))
        await stream.session.aclose()

    async with no_relay(refuse) as ports, trio.open_nursery() as nursery:
        run = partial(forward_port, "db", *ports.agents, token=SECRET, backoff=QUICK)
        await nursery.start(run)
        await until(lambda: len(came) > 1)
        nursery.cancel_scope.cancel()
    assert "the relay refuses: in a moment" in caplog.messages


async def test_what_was_counted_of_a_tunnel_ends_with_it() -> None:
    tunnels = (TCP, Tunnel(name="private"), Tunnel(name="web", host="web.example.org"))
    async with service(saying(b"here")) as behind:
        async with running_relay(keep_tunnel=0.05, http=f"{HOST}:0") as relay:
            registry, counts = relay.relay.registry, relay.relay.counts
            async with exposed(relay, dict.fromkeys(tunnels, behind)) as agent:
                assert await ask(agent.port()) == b"here"
                await until(lambda: counts.visitors[TCP.name, "clean"])
            await until(lambda: not list(registry.tunnels))
            assert not counts.visitors
            assert not counts.moved
            assert TCP.name not in counts.running
            assert registry.find_host("web.example.org") is None


async def test_a_relay_listens_everywhere_or_nowhere() -> None:
    with trio.socket.socket() as taken:
        await taken.bind((HOST, 0))
        taken.listen()
        free = free_port()
        http = f"{HOST}:{taken.getsockname()[1]}"
        relay = Relay(config(agents=f"{HOST}:{free}", http=http), [])
        with pytest.raises(OSError, match="in use"):
            await relay.run()
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream(HOST, free)


def test_a_refusal_can_be_pickled() -> None:
    copied = pickle.loads(pickle.dumps(TunnelRefusedError("busy", "full")))
    assert (copied.reason, str(copied), copied.is_final) == ("busy", "full", False)


@pytest.mark.parametrize(
    "address, words",
    [
        (("192.0.2.1", 5), "192.0.2.1:5"),
        (("2001:db8::1", 5, 0, 0), "[2001:db8::1]:5"),
        ("/run/socket", "/run/socket"),
        (None, "an unknown address"),
    ],
)
def test_addresses_in_a_log(address: Any, words: str) -> None:
    assert shown_peer(address) == words


HTTP_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes"


@pytest.mark.parametrize("way", ["port", "http", "client"])
@pytest.mark.parametrize("agents", [1, 2])
async def test_nothing_is_kept_of_a_tunnel_that_ends_before_its_visitors(
    way: str, agents: int
) -> None:
    """Nor are the counts of one lost that another agent still serves."""
    asked, answer = trio.Event(), trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        asked.set()
        await answer.wait()
        await stream.send_all(HTTP_ANSWER)

    tunnel = WEB if way == "http" else TCP
    request = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % str(WEB.host).encode()
    answers: list[bytes] = []

    async def visit_once(port: int) -> None:
        answers.append(await ask(port, request))

    async with (
        service(slow) as behind,
        running_relay(http=f"{HOST}:0", keep_tunnel=0.05) as relay,
        trio.open_nursery() as nursery,
    ):
        registry, counts = relay.relay.registry, relay.relay.counts
        async with exposed(relay, {tunnel: behind}) as agent:
            port = relay.http if way == "http" else agent.port()
            if way == "client":
                client = partial(forward_port, tunnel.name, *relay.ports.agents, token=SECRET)
                _, port = await nursery.start(client)
            nursery.start_soon(visit_once, port)
            await asked.wait()
            async with exposed(relay, {tunnel: behind}) if agents == 2 else nullcontext():
                agent.stop.set()
                if agents == 1:
                    await until(lambda: registry.find(tunnel.name) is None)
                assert counts.running == {tunnel.name: 1}
                answer.set()
                await agent.ended.wait()
                await until(lambda: not counts.running[tunnel.name])
                await until(lambda: answers)
                assert answers[0].endswith(b"yes")
                counted = counts.visitors + counts.moved + counts.requests
                assert bool(counted) == (agents == 2 and way != "client")
                assert (tunnel.name in counts.running) == (agents == 2)
        nursery.cancel_scope.cancel()
