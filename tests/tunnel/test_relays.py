"""Several relays: a visitor at any of them reaches an agent at any of them."""

import logging
import math
import socket
import ssl
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import trustme

from trio_muxado import MuxadoStream, client_session
from trio_muxado.tunnel import (
    AddressService,
    AsgiService,
    Claim,
    ClientTls,
    RedisRegistry,
    Relay,
    RelayConfig,
    ServerTls,
    SharedRegistry,
    Token,
    Tunnel,
    TunnelRefusedError,
    expose,
    forward_port,
)
from trio_muxado.tunnel._agent import say_hello
from trio_muxado.tunnel._config import session_config
from trio_muxado.tunnel._messages import Hello, Refused, encode

from ..helpers.ports import free_port, free_ports
from .relays import OF_RELAYS, Memory, MemoryRegistry, address_of, clustered
from .support import (
    EVERYTHING,
    HOST,
    SECRET,
    TCP,
    ask,
    config,
    exposed,
    reverse,
    running_relay,
    saying,
    service,
    until,
    visit,
)
from .test_agents import no_relay


class Pair:
    """Two relays that share a memory, and the same ports on two addresses."""

    def __init__(self, memory: Memory, relays: list[Any]) -> None:
        self.memory = memory
        self.one, self.two = relays


HOSTS = ("127.0.0.1", "127.0.0.2")


class two_relays(AsyncExitStack):
    """``async with two_relays() as pair``; their ports of visitors are those of different hosts."""

    def __init__(self, *tokens: Token, **options: Any) -> None:
        super().__init__()
        self._tokens = tokens or (EVERYTHING,)
        self._options = options

    async def __aenter__(self) -> Pair:  # type: ignore[override]
        await super().__aenter__()
        memory, ports = Memory(), free_ports(10)
        relays = [
            await self.enter_async_context(
                clustered(
                    memory,
                    *self._tokens,
                    host=host,
                    **{"ports": ports, "http": f"{HOST}:0", **self._options},
                )
            )
            for host in HOSTS
        ]
        return Pair(memory, relays)


async def hello_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})


async def ask_at(host: str, port: int, data: bytes = b"?") -> bytes:
    async with await trio.open_tcp_stream(host, port) as visitor:
        await visitor.send_all(data)
        await visitor.send_eof()
        return b"".join([bytes(chunk) async for chunk in visitor])


async def get(port: int, host: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=None) as client:
        url = f"http://{HOST}:{port}/"
        return await client.get(url, headers={"Host": host}, **options)


async def test_a_visitor_at_either_reaches_an_agent_at_either() -> None:
    async with (
        service(reverse) as behind,
        two_relays() as pair,
        exposed(pair.one, {Tunnel(name="first", port=0): behind}) as first,
        exposed(pair.two, {Tunnel(name="second", port=0): behind}) as second,
    ):
        assert first.port("first") != second.port("second")
        for name, agent in (("first", first), ("second", second)):
            for host in HOSTS:
                data = bytes(number % 256 for number in range(300_000))
                assert await ask_at(host, agent.port(name), data) == data[::-1]
        one, two = pair.one.relay, pair.two.relay
        assert one.counts.passed == {("second", "out"): 1, ("first", "in"): 1}
        assert two.counts.passed == {("first", "out"): 1, ("second", "in"): 1}
        assert one.counts.visitors == {("first", "clean"): 1, ("second", "clean"): 1}
        # One agent each, and one session for both directions between the relays.
        assert [each.cluster.others.connected for each in (one, two)] == [1, 1]
        assert len(one._sessions) + len(two._sessions) == 3


async def test_http_by_host_name_at_the_wrong_relay() -> None:
    async with (
        two_relays() as pair,
        exposed(pair.one, {Tunnel(name="web", host="www.example.org"): AsgiService(hello_app)}),
    ):
        for relay in (pair.one, pair.two):
            answer = await get(relay.http, "www.example.org")
            assert answer.status_code == 200
            answer = await get(relay.http, "other.example.org")
            assert answer.status_code == 502
        assert pair.two.relay.counts.passed["web", "out"] == 1
        assert pair.two.relay.counts.requests["web", "2xx"] == 1


async def test_the_visitors_address_is_kept() -> None:
    heard: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        heard.append(bytes(await stream.receive_some()))
        await stream.send_all(b"!")

    async with (
        service(note) as behind,
        two_relays() as pair,
        exposed(
            pair.one, {TCP: AddressService(behind.host, behind.port, proxy_protocol="v1")}
        ) as agent,
        await trio.open_tcp_stream(HOSTS[1], agent.port()) as visitor,
    ):
        host, port = visitor.socket.getsockname()
        await visitor.send_all(b"?")
        assert await visitor.receive_some() == b"!"
        assert heard[0].startswith(b"PROXY TCP4 %s 127.0.0.2 %d " % (host.encode(), port))


async def test_a_client_reaches_a_tunnel_of_another_relay() -> None:
    async with (
        service(saying(b"yes")) as behind,
        two_relays() as pair,
        exposed(pair.one, {Tunnel(name="db"): behind}),
        trio.open_nursery() as nursery,
    ):

        async def run(task_status: Any) -> None:
            await forward_port("db", *pair.two.ports.agents, token=SECRET, task_status=task_status)

        (_, port) = await nursery.start(run)
        assert await ask(port) == b"yes"
        nursery.cancel_scope.cancel()


async def test_a_name_at_two_relays_is_used_at_both_in_turn() -> None:
    async with AsyncExitStack() as stack:
        pair = await stack.enter_async_context(two_relays())
        third = await stack.enter_async_context(
            clustered(pair.memory, EVERYTHING, host="127.0.0.3", ports=pair.one.relay.config.ports)
        )
        for relay, word in ((pair.one, b"one"), (pair.two, b"two")):
            behind = await stack.enter_async_context(service(saying(word)))
            agent = await stack.enter_async_context(exposed(relay, {TCP: behind}))
        port = agent.port()  # of both, though each asked for any
        found = Counter([await ask_at("127.0.0.3", port) for _ in range(6)])
        assert found == {b"one": 3, b"two": 3}
        assert await ask_at(HOSTS[0], port) == b"one"  # whoever has an agent uses it
        assert third.relay.counts.passed == {("tcp", "out"): 6}


async def test_an_agent_that_moves_is_found_at_its_new_relay() -> None:
    async with (
        service(saying(b"here")) as behind,
        two_relays(agent_patience=20) as pair,
    ):
        async with exposed(pair.one, {TCP: behind}) as agent:
            port = agent.port()
            assert await ask_at(HOSTS[1], port) == b"here"
        # Visitors come while it is on its way.
        async with trio.open_nursery() as nursery:
            answers: list[bytes] = []

            async def come(host: str) -> None:
                answers.append(await ask_at(host, port))

            for host in HOSTS:
                nursery.start_soon(come, host)
            await trio.sleep(0.1)
            async with exposed(pair.two, {TCP: behind}) as agent:
                assert agent.port() == port
                await until(lambda: len(answers) == 2)
        assert answers == [b"here"] * 2


async def test_a_relay_that_died_is_passed_over_and_then_forgotten() -> None:
    memory = Memory()
    dead = Claim("127.0.0.1:1", "tcp", "")  # nothing listens there
    async with (
        service(saying(b"alive")) as behind,
        clustered(memory, EVERYTHING, ports=None) as relay,
        clustered(memory, EVERYTHING, ports=None) as other,
        exposed(other, {Tunnel(name="tcp"): behind}),
        trio.open_nursery() as nursery,
    ):
        memory.claims[dead] = trio.current_time() + 1

        async def run(task_status: Any) -> None:
            await forward_port("tcp", *relay.ports.agents, token=SECRET, task_status=task_status)

        (_, port) = await nursery.start(run)
        for _ in range(4):
            assert await ask(port) == b"alive"
        counts = relay.relay.counts.passed
        assert counts["tcp", "out"] == 4
        assert counts["tcp", "failed"] >= 1
        await until(lambda: dead not in memory.living())
        nursery.cancel_scope.cancel()


async def test_another_relay_that_refuses_and_stays_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse_and_stay(stream: MuxadoStream) -> None:
        await stream.receive_some()
        # Who waits for the answer has begun to, with more time.
        monkeypatch.setattr("trio_muxado.tunnel._agent.HELLO_TIMEOUT", 0.05)
        await stream.send_all(encode(Refused("stopping", "in a moment")))
        await trio.sleep_forever()

    memory = Memory()
    async with (
        no_relay(refuse_and_stay) as other,
        clustered(memory, EVERYTHING, http=f"{HOST}:0", agent_patience=0.2) as relay,
    ):
        host, port = other.agents
        claim = Claim(f"{host}:{port}", "web", "host:www.example.org")
        memory.claims[claim] = math.inf
        assert (await get(relay.http, "www.example.org")).status_code == 502
        await until(lambda: any("does not end the session" in line for line in caplog.messages))


async def test_what_another_relays_agent_has_is_refused() -> None:
    async with (
        service(reverse) as behind,
        two_relays() as pair,
        exposed(pair.one, {Tunnel(name="web", host="www.example.org"): behind}),
        exposed(pair.one, {Tunnel(name="db", port=0): behind}) as db,
    ):
        for wanted in (
            Tunnel(name="other", host="www.example.org"),
            Tunnel(name="web", host="other.example.org"),
            Tunnel(name="other", port=db.port("db")),
            Tunnel(name="db", host="db.example.org"),
        ):
            async with exposed(pair.two, {wanted: behind}, wait=False) as agent:
                refusal = await agent.wait_for("refused")
            assert refusal.reason == "taken"
            assert address_of(pair.one) in str(refusal)
        # Nothing of it stays behind.
        await until(lambda: {claim.name for claim in pair.memory.living()} == {"web", "db"})


async def test_each_tunnel_of_an_agent_has_a_port_of_its_own() -> None:
    """Whether the relay is to choose them, or the agent wants one port for two."""
    one, two = Tunnel(name="one", port=0), Tunnel(name="two", port=0)
    async with clustered(Memory(), EVERYTHING, keep_tunnel=0.05) as relay:
        async with service(saying(b"1")) as first, service(saying(b"2")) as second:
            async with exposed(relay, {one: first, two: second}) as agent:
                assert await ask(agent.port("one")) == b"1"
                assert await ask(agent.port("two")) == b"2"
            await until(lambda: not list(relay.relay.registry.tunnels))
            port = relay.relay.config.port_range[0]
            both = {Tunnel(name=name, port=port): first for name in ("one", "two")}
            async with exposed(relay, both, wait=False) as agent:
                refused = await agent.wait_for("refused")
                assert refused.reason == "taken"
            async with exposed(relay, {one: first}) as agent:
                assert await ask(agent.port("one")) == b"1"


async def test_a_token_is_checked_before_the_registry_is_asked() -> None:
    small = Token(secret="only for one name", names=("web",))
    async with service(reverse) as behind, two_relays(small) as pair:
        with pytest.raises(TunnelRefusedError, match="does not allow the name"):
            await expose({Tunnel(name="db"): behind}, *pair.one.ports.agents, token=small.secret)
        assert "claim" not in pair.memory.asked


async def test_while_the_registry_is_away_own_agents_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        service(saying(b"yes")) as behind,
        two_relays() as pair,
        exposed(pair.one, {TCP: behind}) as agent,
    ):
        assert await ask_at(HOSTS[1], agent.port()) == b"yes"
        assert (await get(pair.one.http, "nobody.example.org")).status_code == 502
        assert "host:nobody.example.org" in pair.memory.asked
        pair.memory.is_away = True
        pair.memory.claims.clear()  # it forgets all, too
        assert await ask_at(HOSTS[0], agent.port()) == b"yes"
        await until(lambda: not pair.two.relay.cluster.is_up)
        # What was known last is still used.
        assert await ask_at(HOSTS[1], agent.port()) == b"yes"
        # Agents come meanwhile.
        async with exposed(pair.one, {Tunnel(name="late", port=0): behind}) as late:
            assert await ask_at(HOSTS[0], late.port("late")) == b"yes"
            for _ in range(20):  # nobody waits for a registry that is known to be away
                assert (await get(pair.one.http, "unknown.example.org")).status_code == 502
            assert pair.memory.asked.count("host:unknown.example.org") <= 1
            pair.memory.is_away = False
            await until(lambda: len(pair.memory.living()) == 2 and pair.two.relay.cluster.is_up)
            assert await ask_at(HOSTS[1], late.port("late")) == b"yes"
    assert "the registry is away" in caplog.text
    assert caplog.text.count("the registry is there") >= 2


async def test_claims_are_renewed_and_withdrawn_at_the_end() -> None:
    memory = Memory()
    async with service(reverse) as behind, clustered(memory, EVERYTHING) as relay:
        async with exposed(relay, {TCP: behind}) as agent:
            (claim,) = memory.living()
            assert claim == Claim(address_of(relay), "tcp", f"port:{agent.port()}")
            first = memory.claims[claim]
            await until(lambda: memory.claims[claim] > first + 0.5)
        await until(lambda: not memory.living())
        async with exposed(relay, {TCP: behind}):
            assert memory.living()
            relay.stop.set()
            await relay.ended.wait()
            assert not memory.living()


async def test_two_that_were_granted_while_it_was_away_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        service(saying(b"one")) as one,
        service(saying(b"two")) as two,
        two_relays() as pair,
    ):
        pair.memory.is_away = True
        await until(lambda: not (pair.one.relay.cluster.is_up or pair.two.relay.cluster.is_up))
        async with (
            exposed(pair.one, {Tunnel(name="one", port=0): one}) as first,
            exposed(pair.two, {Tunnel(name="two", port=0): two}) as second,
        ):
            assert first.port("one") == second.port("two")
            pair.memory.is_away = False
            await until(lambda: "is in the way" in caplog.text)
            assert await ask_at(HOSTS[0], first.port("one")) == b"one"
            assert await ask_at(HOSTS[1], second.port("two")) == b"two"


async def test_only_a_relay_passes_visitors_on() -> None:
    ordinary = Token(secret="an ordinary token", names=("*",), targets=("*",))
    async with two_relays(ordinary) as pair:
        for secret, tunnels in (
            (ordinary.secret, ()),
            (OF_RELAYS.secret, (Tunnel(name="web"),)),
        ):
            stream = await trio.open_tcp_stream(*pair.one.ports.agents)
            async with client_session(stream, config=session_config()) as session:
                with pytest.raises(TunnelRefusedError, match="not for relays"):
                    await say_hello(session, Hello(secret, "me", tunnels, relay="127.0.0.1:1"))
    async with running_relay(OF_RELAYS) as alone:
        stream = await trio.open_tcp_stream(*alone.ports.agents)
        async with client_session(stream, config=session_config()) as session:
            with pytest.raises(TunnelRefusedError, match="not for relays"):
                await say_hello(session, Hello(OF_RELAYS.secret, "me", relay="127.0.0.1:1"))


async def test_relays_that_do_not_know_each_others_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = Memory()
    stranger = Token(secret="of another family", relay=True)
    async with (
        service(reverse) as behind,
        clustered(memory, EVERYTHING, http=f"{HOST}:0") as one,
        clustered(memory, EVERYTHING, http=f"{HOST}:0", agent_patience=0.5) as two,
        exposed(one, {Tunnel(name="web", host="www.example.org"): behind}),
    ):
        two.relay.set_tokens([stranger])
        assert (await get(two.http, "www.example.org")).status_code == 502
        await until(lambda: "does not know this token" in caplog.text)


async def test_relays_speak_tls_with_each_other(authority: trustme.CA, tmp_path: Path) -> None:
    """As agents do: with a certificate for the relay's address, and one of their own to show."""
    ca, chain = tmp_path / "ca.pem", tmp_path / "chain.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(chain)
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(chain)
    tls = ServerTls(chain, client_ca=ca)
    async with (
        service(saying(b"yes")) as behind,
        two_relays(agents_tls=tls, relays_tls=context) as pair,
        exposed(pair.one, {TCP: behind}, ssl_context=context) as agent,
    ):
        for host in HOSTS:
            assert await ask_at(host, agent.port()) == b"yes"


async def test_certificates_for_other_relays_are_read_again(tmp_path: Path) -> None:
    """One that is dialled anew gets the new one, whether there was a session or not."""
    ca, chain = tmp_path / "ca.pem", tmp_path / "chain.pem"

    def write() -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(chain)

    write()
    tls, relays = ServerTls(chain, client_ca=ca), ClientTls(ca, certificate=chain)
    async with (
        service(saying(b"yes")) as behind,
        two_relays(agents_tls=tls, relays_tls=relays) as pair,
        exposed(pair.one, {TCP: behind}, ssl_context=relays.context) as agent,
    ):
        for _ in range(3):
            write()
            pair.two.relay.reload_certificates()  # both have the same files
            pair.one.relay.reload_certificates()
            assert await ask_at(HOSTS[1], agent.port()) == b"yes"
            assert pair.two.relay.cluster is not None
            others = pair.two.relay.cluster.others
            (other,) = others._by_address.values()
            for session in other.pool.sessions:
                await trio.aclose_forcefully(session)


async def test_a_port_without_a_tunnel_turns_visitors_away() -> None:
    async with two_relays() as pair:
        ports: Any = pair.one.relay.config.ports
        async with visit(ports[0]) as visitor:
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()


def test_wrong_arguments() -> None:
    memory = MemoryRegistry(Memory())
    config = RelayConfig(relay_address="127.0.0.1:4440")
    with pytest.raises(TypeError, match="relays_tls must be a ClientTls, an SSLContext or None"):
        Relay(RelayConfig(), [OF_RELAYS], relays_tls=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="shared_registry must be a SharedRegistry"):
        Relay(config, [OF_RELAYS], shared_registry="redis://")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="relay_address must be given where shared_registry is"):
        Relay(config, [OF_RELAYS])
    with pytest.raises(ValueError, match="relay_address must be given where shared_registry is"):
        Relay(RelayConfig(), [OF_RELAYS], shared_registry=memory)
    with pytest.raises(ValueError, match="tokens must have one that is for relays"):
        Relay(config, [EVERYTHING], shared_registry=memory)
    with pytest.raises(ValueError, match="relay_address must be HOST:PORT"):
        RelayConfig(relay_address="somewhere")
    with pytest.raises(TypeError, match="relay must be a bool"):
        Token(secret="a long enough secret", relay="yes")  # type: ignore[arg-type]
    for url in ("http://here", "redis:/0", "redis://:secret@", "redis://here/x", "redis://here:0"):
        with pytest.raises(ValueError, match="url must be such as redis://") as raised:
            RedisRegistry(url)
        assert "secret" not in str(raised.value)
    with pytest.raises(TypeError, match="url must be a str"):
        RedisRegistry(None)  # type: ignore[arg-type]


async def test_a_visitor_who_came_too_early_keeps_nobody_out() -> None:
    async with service(saying(b"yes")) as behind, two_relays() as pair:
        ports: Any = pair.one.relay.config.ports
        with pytest.raises(trio.BrokenResourceError):
            await ask_at(HOSTS[1], ports[0])
        async with exposed(pair.one, {TCP: behind}) as agent:
            assert agent.port() == ports[0]
            assert await ask_at(HOSTS[1], ports[0]) == b"yes"


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_a_relay_whose_registry_does_not_begin_leaves_no_port_open(how: str) -> None:
    class Broken(MemoryRegistry):
        async def __aenter__(self) -> SharedRegistry:
            if how == "fails":
                raise LookupError("a bug")
            await trio.sleep_forever()
            raise AssertionError

    port = free_port()
    options = config(agents=f"{HOST}:{port}", relay_address=f"{HOST}:{port}")
    relay = Relay(options, (OF_RELAYS,), shared_registry=Broken(Memory()))
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with suppress(LookupError):
                await relay.run()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for number in (port, *relay.config.port_range):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, number))
            probe.listen()  # which two can't do
