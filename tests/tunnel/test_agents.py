"""The agents' port: peers that are no agents, no relays, or both at once."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from trio_muxado import (
    ErrorCode,
    MuxadoSession,
    MuxadoStream,
    client_session,
    serve_muxado,
)
from trio_muxado.tunnel import (
    AddressService,
    Relay,
    RelayPorts,
    ServerTls,
    Token,
    Tunnel,
    TunnelRefusedError,
    expose,
    forward_port,
)
from trio_muxado.tunnel._config import session_config
from trio_muxado.tunnel._control import CONTROL_TYPE, receive_message
from trio_muxado.tunnel._messages import (
    LONGEST_TEXT,
    MOST_TUNNELS,
    Accepted,
    Granted,
    Hello,
    Message,
    Opened,
    Refused,
    Target,
    encode,
)

from ..helpers.ports import free_port
from .support import (
    HOST,
    SECRET,
    TCP,
    Running,
    SlowBinding,
    ask,
    config,
    exposed,
    reverse,
    running_relay,
    saying,
    service,
    until,
)

HELLO = Hello(SECRET, "by hand", (TCP,))


@asynccontextmanager
async def by_hand(relay: Running) -> AsyncGenerator[MuxadoSession, None]:
    """A session with a relay."""
    tcp = await trio.open_tcp_stream(*relay.ports.agents)
    async with client_session(tcp, config=session_config()) as session:
        yield session


async def say(session: MuxadoSession, message: Message, type: int = CONTROL_TYPE) -> MuxadoStream:
    """A stream that begins with a message."""
    stream = await session.open_stream(type=type)
    await stream.send_all(encode(message))
    return stream


# ---- peers of a relay


async def test_as_many_tunnels_as_there_may_be_with_the_longest_names() -> None:
    host = ".".join(["a" * 59] * 4)
    services = {
        Tunnel(name=f"{n:03}{'n' * 60}", host=f"h{n:03}.{host}"): AddressService(HOST, 1)
        for n in range(MOST_TUNNELS)
    }
    async with running_relay(http=f"{HOST}:0") as relay, exposed(relay, services) as agent:
        assert len(agent.addresses) == MOST_TUNNELS
        one_more = {**services, Tunnel(name="one-more"): AddressService(HOST, 1)}
        with pytest.raises(ValueError, match="services"):
            await expose(one_more, *relay.ports.agents, token=SECRET)


async def test_a_bug_that_an_agent_finds_is_logged_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(saying(b"here")) as behind, running_relay() as relay:
        async with exposed(relay, {TCP: behind}) as agent, by_hand(relay) as session:

            async def claim(*arguments: object) -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(relay.relay.registry, "claim", claim)
            control = await say(session, HELLO)
            with pytest.raises(trio.BrokenResourceError, match="INTERNAL_ERROR"):
                await control.receive_some()
            assert await ask(agent.port()) == b"here"
        assert [line for line in caplog.messages if "failed" in line]


async def test_a_session_says_hello_on_one_stream() -> None:
    """Or each would keep memory, and the same tunnels twice."""
    async with running_relay() as relay, by_hand(relay) as session:
        unfinished = await session.open_stream(type=CONTROL_TYPE)
        await unfinished.send_all(encode(HELLO)[:10])
        await session.ping()  # the relay has begun with it
        second = await say(session, HELLO)
        with pytest.raises(trio.BrokenResourceError, match="REFUSED"):
            await second.receive_some()
        await unfinished.send_all(encode(HELLO)[10:])
        assert isinstance(await receive_message(unfinished), Accepted)
        await unfinished.aclose()
        await until(lambda: not relay.relay.registry.agents)
        third = await say(session, HELLO)
        answer = await receive_message(third)
        assert answer == Refused("message", "a session has one control stream")
        assert (await session.wait_closed()).clean


async def test_a_version_that_the_relay_does_not_know() -> None:
    async with running_relay() as relay, by_hand(relay) as session:
        control = await session.open_stream(type=CONTROL_TYPE)
        body = b'{"type":"hello","version":2}'
        await control.send_all(len(body).to_bytes(4, "big") + body)
        answer = await receive_message(control)
        assert isinstance(answer, Refused)
        assert answer.reason == "version"


@pytest.mark.parametrize(
    "sent, reason",
    [
        (encode(Opened()), "message"),
        (b"\0\0\0\2{}", "message"),
        (b"", "message"),
        (encode(Target("nobody")), "unknown"),
        (encode(Target(f"{HOST}:1")), "not-allowed"),
        (encode(Target("'\"" * (LONGEST_TEXT // 2))), "unknown"),
    ],
)
async def test_streams_that_lead_nowhere(sent: bytes, reason: str) -> None:
    async with running_relay() as relay, by_hand(relay) as session:
        await receive_message(await say(session, Hello(SECRET, "a client")))
        stream = await session.open_stream(type=1)
        await stream.send_all(sent)
        await stream.send_eof()
        answer = await receive_message(stream)
        assert isinstance(answer, Refused)
        assert answer.reason == reason


async def test_a_target_where_nobody_listens() -> None:
    target = f"{HOST}:{free_port()}"
    token = Token(secret="it may go to a target", targets=(target,))
    async with running_relay(token, allow_targets=(target,)) as relay, by_hand(relay) as session:
        await receive_message(await say(session, Hello(token.secret, "a client")))
        answer = await receive_message(await say(session, Target(target), type=1))
        assert isinstance(answer, Refused)
        assert answer.reason == "unreachable"


async def test_a_tunnel_whose_agent_has_gone_is_no_target() -> None:
    async with running_relay(agent_patience=0.01) as relay, by_hand(relay) as session:
        await receive_message(await say(session, Hello(SECRET, "a client")))
        async with exposed(relay, {TCP: AddressService(HOST, 1)}):
            pass
        answer = await receive_message(await say(session, Target(TCP.name), type=1))
        assert answer == Refused("unreachable", "no agent of 'tcp' is connected")


async def test_clients_are_visitors_as_well() -> None:
    async with (
        service(reverse) as behind,
        running_relay(max_visitors=1) as relay,
        exposed(relay, {TCP: behind}),
        by_hand(relay) as session,
    ):
        await receive_message(await say(session, Hello(SECRET, "a client")))
        first = await say(session, Target(TCP.name), type=1)
        assert await receive_message(first) == Opened()
        second = await say(session, Target(TCP.name), type=1)
        assert await receive_message(second) == Refused("busy", "too many visitors")


# ---- who has a tunnel


async def test_a_tunnel_whose_time_is_over_while_it_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = Tunnel(name="new", port=0)
    async with service(saying(b"here")) as behind, running_relay(keep_tunnel=0.05) as relay:
        async with exposed(relay, {TCP: behind}) as agent:
            port = agent.port()
            agent.stop.set()
            await agent.ended.wait()
        slow = SlowBinding(monkeypatch)
        async with exposed(relay, {TCP: behind, new: behind}, wait=False) as agent:
            await slow.has_begun.wait()
            await trio.sleep(0.1)  # the old one would be over by now
            slow.go_on.set()
            await agent.wait_for("connected")
            assert agent.port() == port
            assert await ask(port) == b"here"


async def test_a_name_is_free_for_other_plans_once_its_agents_have_gone() -> None:
    web = Tunnel(name=TCP.name, host="web.example.org")
    async with service(saying(b"here")) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {TCP: behind}) as agent:
            async with exposed(relay, {web: behind}, wait=False) as other:
                refusal = await other.wait_for("refused")
                assert refusal.reason == "taken"
                assert f"tcp://{HOST}:{agent.port()}" in str(refusal)
                agent.scope.cancel()
                await other.wait_for("connected")
                assert other.addresses == {TCP.name: "http://web.example.org"}
                same_host = Tunnel(name="another", host=web.host)
                async with exposed(relay, {same_host: behind}, wait=False) as third:
                    assert "web.example.org" in str(await third.wait_for("refused"))


@pytest.mark.parametrize("number, reason", [(0, "busy"), (1, "taken")])
async def test_a_port_that_another_program_has(number: int, reason: str) -> None:
    with trio.socket.socket() as taken:
        await taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = Tunnel(name="tcp", port=number and port)
        async with running_relay(ports=port) as relay:
            async with exposed(relay, {wanted: AddressService(HOST, 1)}, wait=False) as agent:
                assert (await agent.wait_for("refused")).reason == reason


async def test_a_relay_has_so_many_tunnels() -> None:
    async with running_relay(max_tunnels=1) as relay:
        behind = AddressService(HOST, 1)
        async with exposed(relay, {Tunnel(name="one"): behind}) as agent:
            assert agent.addresses == {"one": "one"}
            async with exposed(relay, {Tunnel(name="two"): behind}, wait=False) as other:
                assert (await other.wait_for("refused")).reason == "busy"


# ---- peers of an agent


@asynccontextmanager
async def no_relay(handle: Callable[[MuxadoStream], Awaitable[Any]]) -> AsyncGenerator[Any, None]:
    """A server of muxado that answers hellos in its own way."""

    async def serve(session: MuxadoSession) -> None:
        await session.serve_streams(handle)

    async with trio.open_nursery() as nursery:
        run = partial(serve_muxado, serve, 0, host=HOST, config=session_config())
        (listener,) = await nursery.start(run)
        yield RelayPorts(agents=listener.socket.getsockname())
        nursery.cancel_scope.cancel()


async def refuse(stream: MuxadoStream) -> None:
    await stream.reset(ErrorCode.STREAM_REFUSED)


async def echo(stream: MuxadoStream) -> None:
    await stream.send_all(await stream.receive_some())


async def hang_up(stream: MuxadoStream) -> None:
    await stream.receive_some()


async def give_nothing(stream: MuxadoStream) -> None:
    await stream.receive_some()
    await stream.send_all(encode(Accepted((Granted("other", 1, "nowhere"),))))


@pytest.mark.parametrize(
    "handle, words",
    [
        (refuse, "refuses agents"),
        (echo, "something else"),
        (hang_up, "ended after 0 of 4"),
        (give_nothing, "not given all"),
    ],
)
async def test_what_is_no_relay(
    handle: Callable[[MuxadoStream], Awaitable[Any]], words: str
) -> None:
    async with no_relay(handle) as ports:
        with pytest.raises(TunnelRefusedError, match=words) as caught:
            await expose({TCP: AddressService(HOST, 1)}, *ports.agents, token=SECRET)
        assert caught.value.is_final


async def test_what_does_not_answer_is_no_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(stream: MuxadoStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("trio_muxado.tunnel._agent.HELLO_TIMEOUT", 0.05)
    async with no_relay(wait) as ports:
        with pytest.raises(TunnelRefusedError, match="does not answer"):
            await expose({TCP: AddressService(HOST, 1)}, *ports.agents, token=SECRET)


async def test_a_relay_that_fails_is_dialled_again() -> None:
    async def fail(stream: MuxadoStream) -> None:
        await stream.reset(ErrorCode.INTERNAL_ERROR)
        await stream.session.aclose()

    async with no_relay(fail) as ports:
        async with exposed(ports, {TCP: AddressService(HOST, 1)}, wait=False) as agent:
            assert not (await agent.wait_for("refused", times=2)).is_final


@pytest.mark.parametrize("role", ["agent", "client"])
async def test_what_refuses_and_stays_is_no_relay(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(stream: MuxadoStream) -> None:
        await stream.receive_some()
        # Who waits for the answer has begun to, with more time.
        monkeypatch.setattr("trio_muxado.tunnel._agent.HELLO_TIMEOUT", 0.05)
        await stream.send_all(encode(Refused("stopping", "in a moment")))
        await trio.sleep_forever()

    async with no_relay(wait) as ports:
        with pytest.raises(TunnelRefusedError, match="does not end") as caught:
            if role == "agent":
                await expose({TCP: AddressService(HOST, 1)}, *ports.agents, token=SECRET)
            else:
                await forward_port("tcp", *ports.agents, token=SECRET)
        assert caught.value.is_final


# ---- whoever has no token


@pytest.mark.parametrize("secure", [False, True])
async def test_whoever_shows_no_token_keeps_nobody_out(
    secure: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    authority: trustme.CA,
    client_context: ssl.SSLContext,
) -> None:
    """Not even in their handshake: of these the oldest are ended, and no agent."""
    monkeypatch.setattr("trio_muxado.tunnel._newcomers.MOST_NEWCOMERS", 3)
    chain = tmp_path / "chain.pem"
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(chain)
    tls = ServerTls(chain) if secure else None
    options: dict[str, Any] = {"ssl_context": client_context} if secure else {}
    async with (
        service(saying(b"yes")) as behind,
        running_relay(max_agents=1, agents_tls=tls) as relay,
        AsyncExitStack() as stack,
    ):
        silent: list[trio.SocketStream] = []

        async def connect(times: int) -> None:
            for _ in range(times):
                silent.append(await trio.open_tcp_stream(*relay.ports.agents))
                await stack.enter_async_context(silent[-1])

        await connect(3)
        async with exposed(relay, {TCP: behind}, **options) as agent:
            await connect(5)
            for stream in silent[:5]:
                async for _ in stream:  # to its end
                    pass
            assert await ask(agent.port()) == b"yes"
            counts = relay.relay.counts
            assert counts.refused["no-token"] == 5
            async with exposed(relay, {TCP: behind}, wait=False, **options) as second:
                refusal = await second.wait_for("refused")
                assert (refusal.reason, refusal.is_final) == ("busy", False)
                assert "as many agents" in str(refusal)
                agent.scope.cancel()
                await second.wait_for("connected")
                assert await ask(second.port()) == b"yes"
        assert counts.refused["no-token"] >= 5


# ---- certificates


async def test_certificates_are_read_again_all_or_none(
    authority: trustme.CA, tmp_path: Path, client_context: ssl.SSLContext
) -> None:
    files = [tmp_path / "agents.pem", tmp_path / "https.pem"]

    def write(host: str) -> None:
        for file in files:
            authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(file)

    write(HOST)
    agents_tls, https_tls = map(ServerTls, files)
    relay = Relay(config(https=f"{HOST}:0"), [], agents_tls=agents_tls, https_tls=https_tls)
    before = agents_tls.context, https_tls.context
    write("new.example.org")
    files[1].write_text("nonsense")
    with pytest.raises(OSError, match=r"PEM|SSL"):
        relay.reload_certificates()
    assert (agents_tls.context, https_tls.context) == before
    agents_tls.reload()  # by itself it can
    assert agents_tls.context is not before[0]
