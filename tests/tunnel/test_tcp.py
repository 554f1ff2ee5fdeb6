"""TCP tunnels: what visitors get, whoever stops, dies or forgets his side."""

import contextlib
import logging
import math
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from trio_muxado import client_session, proxy_header
from trio_muxado.tunnel import (
    AddressService,
    AsgiService,
    ClientTls,
    Relay,
    RelayConfig,
    ServerTls,
    Token,
    Tunnel,
    TunnelRefusedError,
    expose,
    forward_port,
)
from trio_muxado.tunnel._config import session_config
from trio_muxado.tunnel._control import CONTROL_TYPE
from trio_muxado.tunnel._names import shown_address
from trio_muxado.tunnel._visitors import Porter, _accept_and_close

from ..helpers.ports import free_port, free_ports
from .support import (
    HOST,
    PATIENCE,
    QUICK,
    SECRET,
    TCP,
    ask,
    exposed,
    reset_on_close,
    reverse,
    running_relay,
    saying,
    service,
    until,
    visit,
)


async def test_visitors_reach_the_service() -> None:
    async with (
        service(reverse) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
    ):
        for size in (1, 1000, 300_000):  # the last is more than windows and buffers hold
            data = bytes(number * 7 % 256 for number in range(size))
            assert await ask(agent.port(), data) == data[::-1]
        await until(lambda: relay.relay.counts.visitors == {("tcp", "clean"): 3})
        assert relay.relay.counts.moved["tcp", "in"] == 301_001


async def test_an_agent_without_visitors_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its control stream is a stream: it has said what it is here for."""
    monkeypatch.setattr("trio_muxado.tunnel._relay.HELLO_TIMEOUT", 1)
    async with (
        service(saying(b"here")) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
    ):
        await trio.sleep(1.5)
        assert await ask(agent.port()) == b"here"
        assert [state for state, _ in agent.news] == ["connecting", "connected"]


async def test_many_tunnels_over_one_session() -> None:
    ports = free_ports(10)
    async with AsyncExitStack() as stack:
        services = {
            Tunnel(name=f"t{number}", port=ports[number]): await stack.enter_async_context(
                service(saying(b"%d" % number))
            )
            for number in range(5)
        }
        relay = await stack.enter_async_context(running_relay(ports=ports))
        agent = await stack.enter_async_context(exposed(relay, services))
        for number in range(5):
            assert agent.port(f"t{number}") == ports[number]
            assert await ask(ports[number]) == b"%d" % number
        assert len(relay.relay.registry.agents) == 1


async def test_a_unix_socket_is_a_service(tmp_path: Any) -> None:
    path = str(tmp_path / "service")
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    async with trio.open_nursery() as nursery, running_relay() as relay:
        nursery.start_soon(trio.serve_listeners, saying(b"unix"), [trio.SocketListener(sock)])
        async with exposed(relay, {TCP: AddressService(path)}) as agent:
            assert await ask(agent.port()) == b"unix"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_service_hears_who_the_visitor_is(version: Any) -> None:
    heads: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some()))

    async with service(note) as behind, running_relay() as relay:
        behind = AddressService(HOST, behind.port, proxy_protocol=version)
        async with exposed(relay, {TCP: behind}) as agent:
            async with visit(agent.port()) as visitor:
                here = visitor.socket.getsockname(), visitor.socket.getpeername()
                assert await visitor.receive_some() == b""
    assert heads == [proxy_header(version, *here)]


async def test_a_balancer_in_front_says_who_the_visitor_is() -> None:
    heads: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some()))

    addresses = ("192.0.2.1", 5), ("192.0.2.2", 6)
    header = proxy_header("v2", *addresses)
    async with service(note) as behind, running_relay(accept_proxy_protocol=True) as relay:
        behind = AddressService(HOST, behind.port, proxy_protocol="v2")
        async with exposed(relay, {TCP: behind}) as agent:
            assert await ask(agent.port(), proxy_header("v1", *addresses)) == b""
            with pytest.raises(trio.BrokenResourceError):
                await ask(agent.port(), b"GET / HTTP/1.1\r\n\r\n")
    assert heads == [header]


# ---- several agents


async def test_agents_of_one_name_take_turns() -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running_relay())
        agents = [
            await stack.enter_async_context(
                exposed(relay, {TCP: await stack.enter_async_context(service(saying(word)))})
            )
            for word in (b"one", b"two")
        ]
        port = agents[0].port()
        assert agents[1].port() == port
        assert sorted([await ask(port) for _ in range(6)]) == [b"one"] * 3 + [b"two"] * 3
        agents[1].scope.cancel()  # the newer one
        await agents[1].ended.wait()
        assert {await ask(port) for _ in range(4)} == {b"one"}


async def test_an_agent_that_stops_finishes_its_visitors_and_gets_no_more() -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running_relay())
        going = await stack.enter_async_context(service(reverse))
        staying = await stack.enter_async_context(service(saying(b"staying")))
        agent = await stack.enter_async_context(exposed(relay, {TCP: going}))
        visitors = [await stack.enter_async_context(visit(agent.port())) for _ in range(5)]
        for visitor in visitors:
            await visitor.send_all(b"first ")
        await until(lambda: not (relay.relay.counts.running["tcp"] < 5))
        await stack.enter_async_context(exposed(relay, {TCP: staying}))
        agent.stop.set()
        await trio.sleep(0.1)
        assert {await ask(agent.port()) for _ in range(4)} == {b"staying"}
        for visitor in visitors:
            await visitor.send_all(b"last")
            await visitor.send_eof()
            assert b"".join([bytes(chunk) async for chunk in visitor]) == b"tsal tsrif"
        await agent.ended.wait()


async def test_where_one_service_refuses_another_takes_the_visitor() -> None:
    nobody = AddressService(HOST, free_port())
    async with service(saying(b"here")) as behind, running_relay() as relay:
        async with exposed(relay, {TCP: nobody}) as agent:
            with pytest.raises(trio.BrokenResourceError):
                await ask(agent.port())
            async with exposed(relay, {TCP: behind}):
                assert {await ask(agent.port()) for _ in range(4)} == {b"here"}


async def test_a_visitor_waits_for_an_agent_that_comes_back() -> None:
    answers: list[bytes] = []
    async with service(saying(b"back")) as behind, running_relay() as relay:
        async with exposed(relay, {TCP: behind}) as agent:
            port = agent.port()
        await until(lambda: not relay.relay.registry.agents)

        async def visit() -> None:
            answers.append(await ask(port))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            await trio.sleep(0.1)
            async with exposed(relay, {Tunnel(name="tcp", port=port): behind}):
                await until(lambda: answers)
    assert answers == [b"back"]


async def test_a_visitor_does_not_wait_for_ever() -> None:
    async with service(reverse) as behind, running_relay(agent_patience=0.1) as relay:
        async with exposed(relay, {TCP: behind}) as agent:
            port = agent.port()
        with pytest.raises(trio.BrokenResourceError):
            await ask(port)
        await until(lambda: relay.relay.counts.visitors["tcp", "no-agent"] == 1)


async def test_a_tunnel_without_agents_gives_its_port_back() -> None:
    async with service(reverse) as behind, running_relay(keep_tunnel=0.1) as relay:
        async with exposed(relay, {TCP: behind}) as agent:
            port = agent.port()
        await until(lambda: not (list(relay.relay.registry.tunnels)))
        for _ in range(100):
            try:
                await ask(port)
            except OSError:
                break
            except trio.BrokenResourceError:
                await trio.sleep(0.02)  # its listener is being closed
        else:
            pytest.fail("the port still listens")
        async with exposed(relay, {Tunnel(name="other", port=port): behind}):
            assert await ask(port, b"ab") == b"ba"


# ---- breaks, ends and limits


async def test_a_break_on_either_side_is_a_break_on_the_other() -> None:
    broken = trio.Event()

    async def break_off(stream: trio.SocketStream) -> None:
        first = await stream.receive_some()
        if first == b"service breaks":
            await stream.send_all(b"half of ")
            await stream.receive_some()
            reset_on_close(stream)
            return
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            broken.set()

    async with (
        service(break_off) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
        AsyncExitStack() as stack,
    ):
        visitor = await stack.enter_async_context(visit(agent.port()))
        await visitor.send_all(b"service breaks")
        assert await visitor.receive_some() == b"half of "
        await visitor.send_all(b"now")
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()
        visitor = await trio.open_tcp_stream(HOST, agent.port())
        await visitor.send_all(b"visitor breaks")
        await until(lambda: relay.relay.counts.running["tcp"] == 1)
        await trio.sleep(0.05)
        reset_on_close(visitor)
        await visitor.aclose()
        await broken.wait()


async def test_visitors_that_keep_their_side_open_lock_nobody_out() -> None:
    async def hello(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"hello")

    async with (
        service(hello) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
        AsyncExitStack() as visitors,
    ):
        for _ in range(300):
            visitor = await visitors.enter_async_context(visit(agent.port()))
            await visitor.send_all(b"?")
            assert b"".join([bytes(chunk) async for chunk in visitor]) == b"hello"
        assert await ask(agent.port()) == b"hello"


async def test_each_address_has_its_slots(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_muxado.tunnel._seldom.LOG_INTERVAL", math.inf)  # one line
    async with (
        service(reverse) as behind,
        running_relay(max_visitors_per_address=2) as relay,
        exposed(relay, {TCP: behind}) as agent,
        AsyncExitStack() as visitors,
    ):
        for _ in range(2):
            visitor = await visitors.enter_async_context(visit(agent.port()))
            await visitor.send_all(b"?")
        await until(lambda: not (relay.relay.counts.running["tcp"] < 2))
        with caplog.at_level(logging.INFO, "trio_muxado.tunnel"):
            for _ in range(3):
                with pytest.raises((trio.BrokenResourceError, OSError)):
                    await ask(agent.port())
        assert sum("too many visitors" in line for line in caplog.messages) == 1
        await visitor.aclose()
        await until(lambda: relay.relay.counts.running["tcp"] < 2)
        assert await ask(agent.port(), b"ab") == b"ba"


async def test_visitors_that_say_nothing_hold_up_nobody() -> None:
    """And each of them is served once he speaks."""
    async with (
        service(reverse) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
        AsyncExitStack() as visitors,
    ):
        port = agent.port()
        silent = [await visitors.enter_async_context(visit(port)) for _ in range(100)]
        for _ in range(20):
            assert await ask(port, b"ab") == b"ba"
        assert relay.relay.counts.running["tcp"] >= len(silent)
        for visitor in silent:
            await visitor.send_all(b"ab")
            await visitor.send_eof()
        for visitor in silent:
            assert b"".join([bytes(chunk) async for chunk in visitor]) == b"ba"


async def test_a_visitor_that_falls_silent_is_broken() -> None:
    async with (
        service(reverse) as behind,
        running_relay(idle_timeout=0.2) as relay,
        exposed(relay, {TCP: behind}) as agent,
    ):
        async with visit(agent.port()) as visitor:
            await visitor.send_all(b"and then?")
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()
        await until(lambda: relay.relay.counts.visitors == {("tcp", "idle"): 1})


# ---- the relay stops


async def test_a_relay_that_stops_finishes_its_visitors() -> None:
    async with (
        service(reverse) as behind,
        running_relay(cancel=False) as relay,
        exposed(relay, {TCP: behind}) as agent,
        AsyncExitStack() as stack,
    ):
        visitors = [await stack.enter_async_context(visit(agent.port())) for _ in range(20)]
        for visitor in visitors:
            await visitor.send_all(b"first ")
        late = await stack.enter_async_context(visit(agent.port()))  # waits to be accepted
        await late.send_all(b"late")
        relay.stop.set()
        await trio.sleep(0.05)
        for visitor in visitors:
            await visitor.send_all(b"last")
            await visitor.send_eof()
            assert b"".join([bytes(chunk) async for chunk in visitor]) == b"tsal tsrif"
        await late.send_eof()
        assert b"".join([bytes(chunk) async for chunk in late]) == b"etal"
        await relay.ended.wait()
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream(HOST, agent.port())


async def test_whoever_does_not_finish_in_time_is_broken() -> None:
    async with (
        service(reverse) as behind,
        running_relay(cancel=False, drain_timeout=0.2) as relay,
        exposed(relay, {TCP: behind}) as agent,
        visit(agent.port()) as visitor,
    ):
        await visitor.send_all(b"and then?")
        await until(lambda: not (relay.relay.counts.running["tcp"] < 1))
        relay.stop.set()
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()
        await relay.ended.wait()


async def test_an_agent_comes_back_to_a_relay_that_does() -> None:
    async with service(saying(b"here")) as behind, AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_relay(cancel=False))
        agent = await stack.enter_async_context(exposed(first, {TCP: behind}))
        assert await ask(agent.port()) == b"here"
        first.stop.set()
        await first.ended.wait()
        await agent.wait_for("lost")
        options: Any = {
            "agents": shown_address(*first.ports.agents),
            "ports": first.relay.config.ports,
        }
        await stack.enter_async_context(running_relay(**options))
        await agent.wait_for("connected", times=2)
        assert await ask(agent.port()) == b"here"
        agent.scope.cancel()


# ---- who is refused


LIMITED = Token(secret="names and ports only", names=("mine",), ports=("20000-20010",))


@pytest.mark.parametrize(
    "tunnel, token, reason",
    [
        (TCP, "a wrong token altogether", "token"),
        (TCP, LIMITED.secret, "not-allowed"),
        (Tunnel(name="mine", port=1), LIMITED.secret, "not-allowed"),
        (Tunnel(name="mine", host="example.org"), LIMITED.secret, "not-allowed"),
        (Tunnel(name="tcp", host="example.org"), SECRET, "unsupported"),
        (Tunnel(name="tcp", port=1), SECRET, "not-allowed"),
    ],
)
async def test_what_is_refused_for_good(
    tunnel: Tunnel, token: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    everything = Token(secret=SECRET, names=("*",), hosts=("*",), ports=("1-65535",))
    async with running_relay(everything, LIMITED) as relay:
        with caplog.at_level(logging.INFO, "trio_muxado"):
            with pytest.raises(TunnelRefusedError) as caught:
                services = {tunnel: AddressService(HOST, 1)}
                await expose(services, *relay.ports.agents, token=token, backoff=QUICK)
            assert caught.value.reason == reason
            assert caught.value.is_final
        refusals = [line for line in caplog.messages if "is refused" in line]
        assert len(refusals) == 1
        assert token not in refusals[0]
        assert relay.relay.counts.refused == {reason: 1}
        assert not list(relay.relay.registry.tunnels)


async def test_a_relay_says_which_ports_it_has() -> None:
    port = free_port()
    wanted = {Tunnel(name="tcp", port=1): AddressService(HOST, 1)}
    async with running_relay(ports=str(port)) as relay:
        with pytest.raises(TunnelRefusedError, match=rf"has port {port} for tunnels, not 1$"):
            await expose(wanted, *relay.ports.agents, token=SECRET)


async def test_a_port_that_another_tunnel_has_is_asked_for_again() -> None:
    async with service(saying(b"mine")) as behind, running_relay(keep_tunnel=0.1) as relay:
        async with exposed(relay, {TCP: behind}) as agent:
            wanted = Tunnel(name="other", port=agent.port())
            async with exposed(relay, {wanted: behind}, wait=False) as other:
                refusal = await other.wait_for("refused", times=2)
                assert (refusal.reason, refusal.is_final) == ("taken", False)
                agent.scope.cancel()
                await agent.ended.wait()
                await other.wait_for("connected")
                assert await ask(other.port("other")) == b"mine"


async def test_all_tunnels_are_given_or_none() -> None:
    async with service(saying(b"x")) as behind, running_relay() as relay:
        wanted = {TCP: behind, Tunnel(name="web", host="example.org"): behind}
        with pytest.raises(TunnelRefusedError, match="no HTTP"):
            await expose(wanted, *relay.ports.agents, token=SECRET)
        assert not list(relay.relay.registry.tunnels)
        for port in relay.relay.config.port_range:
            with pytest.raises(OSError, match="all attempts"):
                await trio.open_tcp_stream(HOST, port)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", bytes(100)])
async def test_garbage_for_the_agents_port(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_relay() as relay:
        with caplog.at_level(logging.INFO, "trio_muxado"):
            async with await trio.open_tcp_stream(*relay.ports.agents) as stream:
                await stream.send_all(garbage)
                await stream.send_eof()
                with trio.fail_after(PATIENCE):
                    try:
                        while await stream.receive_some():
                            pass
                    except trio.BrokenResourceError:
                        pass
            await until(lambda: not len(relay.relay._sessions))
        assert len(caplog.messages) <= 1
        assert not relay.ended.is_set()


@pytest.mark.parametrize("garbage", [b"\0\0\0\5hello", b"\xff" * 8, b"\0\0\0\2{}", b""])
async def test_garbage_on_the_control_stream(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_relay() as relay:
        with caplog.at_level(logging.WARNING, "trio_muxado.tunnel"):
            tcp = await trio.open_tcp_stream(*relay.ports.agents)
            async with client_session(tcp, config=session_config()) as session:
                control = await session.open_stream(type=CONTROL_TYPE)
                await control.send_all(garbage)
                await control.send_eof()
                answer = b"".join([chunk async for chunk in control])
                assert b'"refused"' in answer
        assert len(caplog.messages) == 1
        assert relay.relay.counts.refused == {"message": 1}


async def test_streams_of_whoever_has_no_token_are_refused() -> None:
    async with running_relay() as relay:
        tcp = await trio.open_tcp_stream(*relay.ports.agents)
        async with client_session(tcp, config=session_config()) as session:
            stream = await session.open_stream(type=1)
            with pytest.raises(trio.BrokenResourceError, match="REFUSED"):
                await stream.receive_some()


# ---- the other way


async def test_a_local_port_leads_to_a_tunnel_by_its_name() -> None:
    private = Tunnel(name="private")
    async with (
        service(reverse) as behind,
        running_relay() as relay,
        exposed(relay, {private: behind}),
        trio.open_nursery() as nursery,
    ):
        stop = trio.Event()

        async def run(task_status: Any) -> None:
            await forward_port(
                "private", *relay.ports.agents, token=SECRET, stop=stop, task_status=task_status
            )

        _, port = await nursery.start(run)
        assert await ask(port, b"abc") == b"cba"
        async with visit(port) as visitor:
            await visitor.send_all(b"first ")
            await until(lambda: relay.relay.counts.running["private"] == 1)
            stop.set()
            await visitor.send_all(b"last")
            await visitor.send_eof()
            assert b"".join([bytes(chunk) async for chunk in visitor]) == b"tsal tsrif"


async def test_a_target_needs_the_token_and_the_relay() -> None:
    async with service(saying(b"behind the relay")) as behind, AsyncExitStack() as stack:
        target, other = str(behind), f"{HOST}:1"
        token = Token(secret="targets are allowed", targets=(target, other, "t-*"))
        relay = await stack.enter_async_context(running_relay(token, allow_targets=(target,)))
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def start(target: str) -> int:
            async def run(task_status: Any) -> None:
                await forward_port(
                    target, *relay.ports.agents, token=token.secret, task_status=task_status
                )

            _, port = await nursery.start(run)
            return int(port)

        assert await ask(await start(target)) == b"behind the relay"
        for wrong in (other, f"{HOST}:2", "t-unknown", "private"):
            port = await start(wrong)
            with pytest.raises(trio.BrokenResourceError):
                await ask(port)
        await until(lambda: relay.relay.counts.refused == {"not-allowed": 3, "unknown": 1})
        nursery.cancel_scope.cancel()


async def test_a_client_with_a_wrong_token_is_told() -> None:
    async with running_relay() as relay:
        with pytest.raises(TunnelRefusedError, match="token"):
            await forward_port("tcp", *relay.ports.agents, token="a wrong token altogether")


# ---- wrong arguments


class Wsgi:
    """As Flask's applications look."""

    wsgi_app = None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return []


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: RelayConfig(agents="nowhere"), "agents"),
        (lambda: RelayConfig(http=80), "http"),  # type: ignore[arg-type]
        (lambda: RelayConfig(ports="high"), "ports"),
        (lambda: RelayConfig(host=""), "host"),
        (lambda: RelayConfig(host=5), "host"),  # type: ignore[arg-type]
        (lambda: RelayConfig(allow_targets="a:1"), "allow_targets"),  # type: ignore[arg-type]
        (lambda: RelayConfig(allow_targets=("a",)), "allow_targets"),
        (lambda: RelayConfig(accept_proxy_protocol=1), "accept_proxy_protocol"),  # type: ignore[arg-type]
        (lambda: RelayConfig(max_agents=0), "max_agents"),
        (lambda: RelayConfig(max_visitors=1.5), "max_visitors"),  # type: ignore[arg-type]
        (lambda: RelayConfig(idle_timeout=0), "idle_timeout"),
        (lambda: RelayConfig(drain_timeout=True), "drain_timeout"),
        (lambda: Relay(RelayConfig(), ["a token"]), "tokens"),  # type: ignore[list-item]
        (lambda: Relay(None, []), "config"),  # type: ignore[arg-type]
        (lambda: Relay(RelayConfig(https="127.0.0.1:0"), []), "https_tls"),
        (lambda: Relay(RelayConfig(), [], agents_tls=5), "agents_tls"),  # type: ignore[arg-type]
        (lambda: AddressService(""), "host"),
        (lambda: AddressService(5), "host"),  # type: ignore[arg-type]
        (lambda: Relay(RelayConfig(), 5), "tokens"),  # type: ignore[arg-type]
        (lambda: Tunnel(name=5), "name"),  # type: ignore[arg-type]
        (lambda: Tunnel(name=10**5000), "name"),  # type: ignore[arg-type]
        (lambda: Tunnel(name="a", host=5), "host"),  # type: ignore[arg-type]
        (lambda: Tunnel(name="a", port="1"), "port"),  # type: ignore[arg-type]
        (lambda: AddressService("a", 0), "port"),
        (lambda: AddressService("a", 1, proxy_protocol="v3"), "proxy_protocol"),  # type: ignore[arg-type]
        (lambda: AsgiService(5), "app"),
        (lambda: AsgiService(len), "app"),
        (lambda: AsgiService(lambda environ, start_response: []), "app"),
        (lambda: AsgiService(Wsgi()), "TrioWSGIMiddleware"),
        (lambda: Tunnel(name="a b"), "name"),
        (lambda: Tunnel(name="a", port=-1), "port"),
        (lambda: Tunnel(name="a", host="a:80"), "host"),
        (lambda: ServerTls(5), "certificate"),  # type: ignore[arg-type]
        (lambda: ServerTls(None), "certificate"),  # type: ignore[arg-type]
        (lambda: ClientTls(5), "ca"),  # type: ignore[arg-type]
        (lambda: ClientTls(key="key.pem"), "key"),
    ],
)
def test_a_wrong_argument_is_named(make: Callable[[], Any], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        make()


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"services": {}}, "services"),
        ({"services": 5}, "services"),
        ({"services": {TCP: 5}}, "services"),
        ({"services": {5: AddressService(HOST, 1)}}, "services"),
        ({"services": dict.fromkeys([TCP, Tunnel(name="tcp")], AddressService(HOST, 1))}, "names"),
        ({"agent": 5}, "agent"),
        ({"token": ""}, "token"),
        ({"token": 5}, "token"),
        ({"agent": "a\nb"}, "agent"),
        ({"idle_timeout": 0}, "idle_timeout"),
        ({"port": 0}, "port"),
    ],
)
async def test_an_agent_with_a_wrong_argument_dials_nobody(
    arguments: dict[str, Any], name: str
) -> None:
    right: dict[str, Any] = {
        "services": {TCP: AddressService(HOST, 1)},
        "host": HOST,
        "port": 1,
        "token": SECRET,
    }
    with pytest.raises((TypeError, ValueError), match=name) as caught:
        await expose(**{**right, **arguments})
    assert SECRET not in str(caught.value)


async def test_what_waits_as_a_port_closes_is_accepted_and_nothing_after_it() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    address = listener.socket.getsockname()
    with contextlib.ExitStack() as visitors:
        for number in range(3):
            visitor = visitors.enter_context(socket.create_connection(address))
            visitor.sendall(bytes([number]))
        accepted = list(_accept_and_close(listener))
        assert sorted([await tcp.receive_some() for tcp in accepted]) == [b"\0", b"\1", b"\2"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        for tcp in accepted:
            await tcp.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")
async def test_a_port_closes_where_no_descriptor_is_left() -> None:
    """A relay that is full of visitors is stopped: those that it has are still to be served."""
    import resource

    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    address = listener.socket.getsockname()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as taken:
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (listener.socket.fileno() + 1, before[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.enter_context(socket.socket())
        assert list(_accept_and_close(listener)) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_whoever_waits_when_a_relay_stops_is_served() -> None:
    """Whether or not a task was about to accept him in that moment."""

    async def hello(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"hello")
        await tcp.aclose()

    for _ in range(20):
        porter = Porter()
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        with contextlib.ExitStack() as visitors:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(porter.serve, [listener], hello, nursery)
                await trio.testing.wait_all_tasks_blocked()
                address = listener.socket.getsockname()
                waiting = [
                    visitors.enter_context(socket.create_connection(address)) for _ in range(3)
                ]
                porter.stop.set()
                await porter.wait_until_empty()
            assert [visitor.recv(10) for visitor in waiting] == [b"hello"] * 3
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)


async def test_a_port_that_is_cancelled_closes_all_its_addresses() -> None:
    async def handler(tcp: trio.SocketStream) -> None:
        """Nobody connects."""

    listeners = [(await trio.open_tcp_listeners(0, host=host))[0] for host in (HOST, HOST)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Porter().serve, listeners, handler, nursery)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [listener.socket.fileno() for listener in listeners] == [-1, -1]
