"""``relay``, ``expose`` and ``forward``, as processes of their own, as users run them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
import trustme

from trio_muxado._command.status import RelayCollector
from trio_muxado.tunnel import Relay, RelayConfig

from ..helpers.ports import free_port
from ..helpers.programs import DEADLINE, ENVIRONMENT
from ..tunnel.commands import APPLICATION, SECRET, TOKEN, relaying, running, terminated
from ..tunnel.support import HOST, ask, reverse, saying, service, visit
from .support import invoke, module, ordinary_module

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="a process cannot be sent SIGTERM there"
)


async def test_a_tcp_tunnel_from_end_to_end() -> None:
    port = free_port()
    async with service(reverse) as behind, relaying("--ports", port) as (relay, agents):
        expose = ("expose", f"{HOST}:{behind.port}", "--relay", agents, "--port", port)
        async with running(*expose, "--name", "tcp") as agent:
            await agent.expect(rf"tcp is at tcp://{HOST}:{port}")
            assert await ask(port, b"abc") == b"cba"
            async with running("forward", 0, "tcp", "--relay", agents) as client:
                local = int((await client.expect(r"listening: [\d.]+:(\d+)"))[1])
                assert await ask(local, b"abc") == b"cba"
                client.process.send_signal(signal.SIGTERM)
                assert (await client.wait())[0] == 0
            for program in (agent, relay):
                program.process.send_signal(signal.SIGTERM)
                code, said = await program.wait()
                assert code == 0, said
                assert "Traceback" not in said


HELLO = (
    APPLICATION
    + """\
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["path"].encode()})
"""
)


async def test_an_application_by_host_name_and_a_file_of_options(tmp_path: Path) -> None:
    (tmp_path / "hello_app.py").write_text(HELLO)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[token]]\nsecret = "{SECRET}"\nnames = ["web"]\nhosts = ["*.test"]\n')
    (tmp_path / "token").write_text(f"{SECRET}\n")
    config = tmp_path / "relay.toml"
    config.write_text(
        f'[relay]\nagents = "{HOST}:0"\nhttp = "{HOST}:0"\ntokens-file = "{tokens}"\n'
        'log-format = "json"\nlog-level = "debug"\n'
    )
    async with running("--config", config, "relay", env={}) as relay:
        listening = await relay.expect(r"agents ([\d.]+:\d+), http [\d.]+:(\d+)")
        agent_config = tmp_path / "agent.toml"
        agent_config.write_text(
            f'[expose]\nrelay = "{listening[1]}"\ntoken-file = "{tmp_path / "token"}"\n'
            'tunnels = [{name = "web", service = "hello_app:app", host = "a.test"}]\n'
        )
        async with running("--config", agent_config, "expose", env={}, cwd=tmp_path) as agent:
            await agent.expect("web is at http://a.test")
            request = b"GET /here HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
            answer = await ask(int(listening[2]), request)
            assert b" 200 " in answer
            assert b"/here" in answer
            await relay.expect(r'"visitor": "127.0.0.1:\d+"')
            agent.process.send_signal(signal.SIGTERM)
            assert (await agent.wait())[0] == 0
        relay.process.send_signal(signal.SIGTERM)
        code, said = await relay.wait()
        assert code == 0
        lines = [line for line in said.splitlines() if line.startswith("{")]
        records = [json.loads(line) for line in lines]
        assert {"web"} == {record["tunnel"] for record in records if "tunnel" in record}
        assert any("agent" in record and "visitor" in record for record in records)


# ---- what is refused


@pytest.mark.parametrize(
    "arguments, env, words",
    [
        (("--name", "tcp"), {"TRIO_MUXADO_TOKEN": "a wrong secret altogether"}, "this token"),
        (("--name", "other"), TOKEN, "the name 'other'"),
        (("--name", "tcp", "--port", "1"), TOKEN, "port"),
        (("--name", "tcp", "--host", "a.test"), TOKEN, "host"),
    ],
)
async def test_a_refusal_is_one_line_and_exit_code_1(
    arguments: tuple[str, ...], env: dict[str, str], words: str, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[token]]\nsecret = "{SECRET}"\nnames = ["tcp"]\n')
    async with relaying("--tokens-file", tokens, "--ports", "20000-20001") as (relay, agents):
        async with running("expose", "1", "--relay", agents, *arguments, env=env) as agent:
            code, said = await agent.wait()
        assert code == 1
        (line,) = said.splitlines()
        assert line.startswith("trio-muxado: the relay refuses: ")
        assert words in line
        await relay.expect("is refused: ")
        assert relay.said.count("is refused") == 1


async def test_a_relay_that_is_away_is_dialled_again() -> None:
    port = free_port()
    expose = ("expose", "1", "--relay", f"{HOST}:{port}", "--longest-pause", "0.2")
    async with running(*expose) as agent:
        await agent.expect("no relay: .*; again in 0.[12] s")
        await agent.expect("no relay: .*; again in 0.[12] s")
        async with running("relay", "--agents", f"{HOST}:{port}"):
            await agent.expect("main is at main")


async def test_a_relay_without_tls_is_told_in_words() -> None:
    async with (
        relaying() as (_, agents),
        running("expose", "1", "--relay", agents, "--tls") as agent,
    ):
        await agent.expect("no relay: the TLS handshake failed: .*; the server .* TLS.*; again in")
        assert "[SSL" not in agent.said
        assert "_ssl.c" not in agent.said


async def test_a_status_that_cannot_be_served_says_where() -> None:
    with socket.create_server((HOST, 0)) as taken:
        status = f"{HOST}:{taken.getsockname()[1]}"
        async with running("relay", "--agents", f"{HOST}:0", "--status", status) as relay:
            code, said = await relay.wait()
    assert code == 1
    # hypercorn leaves the socket that it could not bind to the garbage collector, which says so.
    assert said.startswith(f"trio-muxado: cannot listen on {status}: Address already in use\n")


async def test_ctrl_c_ends_each_at_once() -> None:
    async with relaying() as (relay, agents):
        async with running("expose", "1", "--relay", agents) as agent:
            await agent.expect("main is at")
            async with running("forward", "0", "main", "--relay", agents) as client:
                await client.expect("listening")
                for program in (client, agent, relay):
                    program.process.send_signal(signal.SIGINT)
                    code, said = await program.wait()
                    assert code == 130
                    assert said.endswith("interrupted\n")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("relay",), "TRIO_MUXADO_TOKEN"),
        (("relay", "--ports", "high"), "--ports"),
        (("relay", "--http", "nowhere"), "--http"),
        (("relay", "--https", "127.0.0.1:0"), "--https-cert"),
        (("relay", "--agents-key", __file__), "--agents-cert"),
        (("relay", "--agents-cert", __file__), "--agents-cert"),
        (("relay", "--tokens-file", __file__), "--tokens-file"),
        (("relay", "--max-visitors", "0"), "--max-visitors"),
        (("relay", "--status", "9100"), "'9100' has no host"),
        (("relay", "--status", "127.0.0.1:99999"), "the port must be from 0 to 65535"),
        (("relay", "--status", "::1:9100"), "stands in brackets"),
        (("expose", "--relay", "127.0.0.1:1"), "nothing to expose"),
        (("expose", "what?", "--relay", "127.0.0.1:1"), "is not a service"),
        (("expose", "nowhere_at_all:app", "--relay", "127.0.0.1:1"), "no module"),
        (("expose", "json:nothing", "--relay", "127.0.0.1:1"), "has no 'nothing'"),
        (("expose", "json:__name__", "--relay", "127.0.0.1:1"), "not an application"),
        (("expose", "json:loads", "--relay", "127.0.0.1:1"), "must be an ASGI application"),
        (("expose", "1", "--relay", "127.0.0.1:1", "--name", "UPPER"), "name must be"),
        (("expose", "--tunnels", "a", "--relay", "127.0.0.1:1"), "--tunnels"),
        (("expose", "--tunnels", "service=1,colour=red", "--relay", "127.0.0.1:1"), "colour"),
        (("expose", "1", "--port", "1", "--host", "a", "--relay", "127.0.0.1:1"), "host"),
        (("expose", "--tunnels", "name=a", "--relay", "127.0.0.1:1"), "has no service"),
        (("expose", "--tunnels", "service=1,port=x", "--relay", "127.0.0.1:1"), "must be a number"),
        (("expose", "--tunnels", "service=1,port=70000", "--relay", "127.0.0.1:1"), "port must be"),
        (
            ("expose", "--tunnels", f"service=1,port={'9' * 5000}", "--relay", "127.0.0.1:1"),
            "must be a number",
        ),
        (("expose", "--tunnels", "service=1,service=2", "--relay", "127.0.0.1:1"), "twice"),
        (("expose", "1", "--tunnels", "service=2", "--relay", "127.0.0.1:1"), "two tunnels"),
        (
            ("expose", "json:loads", "--proxy-protocol", "v1", "--relay", "127.0.0.1:1"),
            "without --proxy-protocol",
        ),
        (("expose", "unix:", "--relay", "127.0.0.1:1"), "host must not be empty"),
        (("expose", "--port", "1", "--relay", "127.0.0.1:1"), "need a SERVICE"),
        (("expose", "1", "--key", __file__, "--relay", "127.0.0.1:1"), "--key needs --cert"),
        (
            ("expose", "1", "--cert", __file__, "--relay", "127.0.0.1:1"),
            "no certificate with",
        ),
        (("expose", "1", "--ca", __file__, "--relay", "127.0.0.1:1"), "no certificates in"),
        (("expose", "1", "--token-file", os.devnull, "--relay", "127.0.0.1:1"), "is empty"),
        (("forward", "port", "db", "--relay", "127.0.0.1:1"), "local port"),
        (("forward", "0", "a b", "--relay", "127.0.0.1:1"), "target"),
        (("forward", "0", "db"), "--relay"),
        (("relay", "--registry", "redis://127.0.0.1"), "--registry and --relay-address need"),
        (("relay", "--relay-address", "127.0.0.1:1"), "--registry and --relay-address need"),
        (
            ("relay", "--registry", "redis://:secret@", "--relay-address", "127.0.0.1:1"),
            "--registry must be such as redis://HOST:6379/0",
        ),
        (
            ("relay", "--registry", "redis://127.0.0.1", "--relay-address", "somewhere"),
            "--relay-address must be HOST:PORT",
        ),
        (("relay", "--registry-expiry", "0"), "--registry-expiry"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    env = {} if arguments == ("relay",) else TOKEN
    done = invoke(*arguments, env={"TRIO_MUXADO_TOKEN": "", **env})
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert words in line
    assert SECRET not in line


def test_an_agent_needs_a_token() -> None:
    done = invoke("expose", "1", "--relay", "127.0.0.1:1", env={"TRIO_MUXADO_TOKEN": ""})
    assert (done.exit_code, "a token is needed" in done.output) == (2, True)


def test_a_relay_s_only_token_is_checked_as_well() -> None:
    done = invoke("relay", env={"TRIO_MUXADO_TOKEN": "short"})
    assert (done.exit_code, "TRIO_MUXADO_TOKEN: secret" in done.output) == (2, True)
    assert "short" not in done.output


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "at least one table [[token]]"),
        ("token = 5", "at least one table [[token]]"),
        ("[other]", "no 'other'"),
        ("token = [5]", "token 1: must be a table"),
        ('[[token]]\nnames = ["a"]', "token 1: secret is missing"),
    ],
)
def test_a_file_of_tokens_that_has_none(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(content)
    done = invoke("relay", "--tokens-file", str(path))
    assert (done.exit_code, words in done.output) == (2, True), done.output


def test_a_file_that_is_no_text_has_no_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xff")
    done = invoke("expose", "1", "--relay", "127.0.0.1:1", "--token-file", str(path))
    assert (done.exit_code, "utf-8" in done.output) == (2, True), done.output


def test_an_application_that_needs_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    arguments = ("expose", "needs_more:app", "--relay", "127.0.0.1:1")
    done = invoke(*arguments, env=TOKEN)
    assert (done.exit_code, "needs not_there_at_all" in done.output) == (2, True), done.output


async def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        address = f"{HOST}:{taken.getsockname()[1]}"
        async with running("relay", "--agents", address) as relay:
            code, said = await relay.wait()
        assert code == 1
        assert said == f"trio-muxado: cannot listen: Address already in use: {address}\n"


# ---- while it runs


async def test_sighup_reads_tokens_and_certificates_again(
    authority: trustme.CA, tmp_path: Path
) -> None:
    chain, ca = tmp_path / "chain.pem", tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(chain)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[[token]]\nsecret = "somebody else\'s secret"\nnames = ["*"]\n')
    arguments = ("--tokens-file", tokens, "--agents-cert", chain)
    async with relaying(*arguments) as (relay, agents):
        expose = ("expose", "1", "--relay", agents, "--ca", ca)
        async with running(*expose) as agent:
            assert (await agent.wait())[0] == 1
        tokens.write_text(f'[[token]]\nsecret = "{SECRET}"\nnames = ["*"]\n')
        relay.process.send_signal(signal.SIGHUP)
        await relay.expect("were read again")
        async with running(*expose) as agent:
            await agent.expect("main is at")
            tokens.write_text("nonsense")
            relay.process.send_signal(signal.SIGHUP)
            await relay.expect("nothing is changed by SIGHUP")
        async with running(*expose) as agent:
            await agent.expect("main is at")


def test_metrics_have_who_was_turned_away() -> None:
    relay = Relay(RelayConfig(), [])
    relay.counts.refused["token"] += 2
    (family,) = [each for each in RelayCollector(relay).collect() if "refused" in each.name]
    assert [(each.labels, each.value) for each in family.samples] == [({"reason": "token"}, 2)]


async def test_a_second_sigterm_waits_for_nobody() -> None:
    port = free_port()
    options = ("--ports", port, "--max-tunnels", "1")
    async with service(reverse) as behind, relaying(*options) as (relay, agents):
        expose = ("expose", behind.port, "--relay", agents)
        async with running(*expose, "--port", port) as agent, contextlib.AsyncExitStack() as stack:
            await agent.expect("main is at")
            visitor = await stack.enter_async_context(visit(port))
            await visitor.send_all(b"first")
            async with running(*expose, "--name", "other") as other:
                await other.expect("the relay refuses, for now: .*as many tunnels")
            for program in (agent, relay):
                program.process.send_signal(signal.SIGTERM)
                await program.expect("stopping, when")
            relay.process.send_signal(signal.SIGTERM)
            code, said = await relay.wait()
            assert code == 1
            assert "by a second SIGTERM" in said


async def test_forward_says_in_one_line_why_it_ends() -> None:
    async with relaying() as (_, agents):
        wrong = {"TRIO_MUXADO_TOKEN": "a wrong secret altogether"}
        async with running("forward", "0", "db", "--relay", agents, env=wrong) as client:
            code, said = await client.wait()
        assert (code, "the relay refuses: " in said) == (1, True)
        async with running("forward", agents, "db", "--relay", agents) as client:
            code, said = await client.wait()
        assert (code, "cannot listen on" in said) == (1, True)


async def test_metrics_and_health() -> None:
    port, status = free_port(), free_port()
    async with (
        service(saying(b"hello")) as behind,
        relaying("--ports", port, "--status", f"{HOST}:{status}") as (relay, agents),
        running("expose", behind.port, "--relay", agents, "--port", port) as agent,
    ):
        await agent.expect("main is at")

        async def get(path: str) -> tuple[str, str]:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            head, _, body = (await ask(status, request.encode())).decode().partition("\r\n\r\n")
            return head.split()[1], body

        assert await ask(port) == b"hello"
        assert await get("/healthz") == ("200", "ok\n")
        assert (await get("/other"))[0] == "404"
        _, metrics = await get("/metrics")
        assert 'trio_muxado_relay_agents{tunnel="main"} 1.0' in metrics
        assert 'trio_muxado_relay_visitors_total{end="clean",tunnel="main"} 1.0' in metrics
        assert 'trio_muxado_relay_bytes_total{tunnel="main",way="out"} 5.0' in metrics
        async with visit(port):
            relay.process.send_signal(signal.SIGTERM)
            await relay.expect("stopping")
            assert await get("/healthz") == ("503", "stopping\n")


async def test_an_agent_that_stops_serves_its_visitors_to_the_end() -> None:
    port = free_port()
    async with service(reverse) as behind, relaying("--ports", port) as (_, agents):
        expose = ("expose", behind.port, "--relay", agents, "--port", port)
        async with running(*expose) as agent, contextlib.AsyncExitStack() as stack:
            await agent.expect("main is at")
            visitor = await stack.enter_async_context(visit(port))
            await visitor.send_all(b"first ")
            await trio.sleep(0.2)
            agent.process.send_signal(signal.SIGTERM)
            await agent.expect("stopping")
            await visitor.send_all(b"last")
            await visitor.send_eof()
            assert b"".join([bytes(chunk) async for chunk in visitor]) == b"tsal tsrif"
            assert (await agent.wait())[0] == 0


async def test_what_does_not_finish_in_time_is_broken_and_said() -> None:
    port = free_port()
    async with service(reverse) as behind, relaying("--ports", port) as (_, agents):
        expose = ("expose", behind.port, "--relay", agents, "--port", port)
        patience = ("--drain-timeout", "0.2")
        async with running(*expose, *patience) as agent, contextlib.AsyncExitStack() as stack:
            await agent.expect("main is at")
            visitor = await stack.enter_async_context(visit(port))
            await visitor.send_all(b"and then?")
            await trio.sleep(0.2)
            agent.process.send_signal(signal.SIGTERM)
            code, said = await agent.wait()
            assert code == 1
            assert "was broken" in said
            with pytest.raises(trio.BrokenResourceError):
                await visitor.receive_some()


# ---- who hears of it


@contextlib.asynccontextmanager
async def unheard(*arguments: object) -> AsyncGenerator[trio.Process, None]:
    """A command whose standard error nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = await trio.lowlevel.open_process(
            module(*map(str, arguments)), stderr=writer, env={**ENVIRONMENT, **TOKEN}
        )
    finally:
        os.close(writer)
    try:
        with trio.fail_after(DEADLINE):
            yield process
    finally:
        await terminated(process)


async def test_commands_go_on_where_nobody_reads_what_they_say() -> None:
    """Such as ``2>&1 | head``, or a log on a full disk: no visitor has to do with that."""
    port, agents = free_port(), free_port()
    expose = ("--relay", f"{HOST}:{agents}", "--port", port, "--longest-pause", "0.2")
    async with service(reverse) as behind, unheard("expose", behind.port, *expose) as agent:
        (listener,) = await trio.open_tcp_listeners(agents, host=HOST)
        async with listener:
            for _ in range(2):  # it says that there is no relay, and dials again
                await (await listener.accept()).aclose()
        async with unheard("relay", "--agents", f"{HOST}:{agents}", "--ports", port) as relay:
            async with await _visitor(port) as visitor:
                await visitor.send_all(b"first ")
                await trio.sleep(0.2)
                for process in (agent, relay):
                    process.send_signal(signal.SIGTERM)  # it says that it stops
                await visitor.send_all(b"last")
                await visitor.send_eof()
                assert b"".join([bytes(chunk) async for chunk in visitor]) == b"tsal tsrif"
            assert [await process.wait() for process in (agent, relay)] == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is known of another process")
async def test_a_relay_without_descriptors_says_so_in_its_log_and_recovers() -> None:
    """And not ten times a second, with a traceback each, beside its log."""
    import resource

    port = free_port()
    options = ("--ports", port, "--log-format", "json")
    async with (
        service(reverse) as behind,
        relaying(*options, start=ordinary_module) as (relay, agents),
    ):
        expose = ("expose", behind.port, "--relay", agents, "--port", port)
        async with running(*expose) as agent:
            await agent.expect("main is at")
            number, before = relay.process.pid, resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.prlimit(number, resource.RLIMIT_NOFILE, (1, before[1]))
            async with visit(port) as visitor:
                await relay.expect('"accept returned EMFILE[^}]*}\n')
                await relay.expect('"accept returned EMFILE[^}]*}\n')
                resource.prlimit(number, resource.RLIMIT_NOFILE, before)
                await visitor.send_all(b"abc")
                await visitor.send_eof()
                assert b"".join([bytes(chunk) async for chunk in visitor]) == b"cba"
        relay.process.send_signal(signal.SIGTERM)
        assert (await relay.wait())[0] == 0
    said = [line for line in relay.said.splitlines() if "EMFILE" in line or "Trace" in line]
    assert "exc_info" not in {key for line in said for key in json.loads(line)}


async def _visitor(port: int) -> trio.SocketStream:
    """Once the port is there."""
    while True:
        with contextlib.suppress(OSError):
            return await trio.open_tcp_stream(HOST, port)
        await trio.sleep(0.05)
