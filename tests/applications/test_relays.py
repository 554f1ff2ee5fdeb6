"""Several relays as they are run: processes, with Redis as their registry and HAProxy in front."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import trio

from trio_muxado import proxy_header

from ..helpers.ports import free_port, free_ports
from ..tunnel.commands import Running, running
from ..tunnel.support import HOST
from .test_tunnel_tool import DEADLINE, daemon, files, wait_for_port

pytestmark = pytest.mark.applications

ROOT = Path(__file__).parents[2]
DEPLOYMENT = ROOT / "examples" / "deployment"
CONFIGURATION = DEPLOYMENT / "haproxy.cfg"
HOSTS = ("127.0.0.2", "127.0.0.3")
"""Of the relays: their ports are the same, as they are on two machines."""
EXPIRY = 3.0

Program = Callable[[str], str]


class Relays:
    """Two of them, and what they share."""

    def __init__(self, redis: int, ports: range, tmp_path: Path) -> None:
        self.redis = redis
        self.ports = ports
        self.tmp_path = tmp_path
        self.agents, self.http, self.status = free_port(), free_port(), free_port()
        self.processes: dict[str, Running] = {}

    @contextlib.asynccontextmanager
    async def relay(self, host: str, *options: object) -> AsyncGenerator[Running, None]:
        address = f"{host}:{self.agents}"
        ports = f"{self.ports.start}-{self.ports.stop - 1}"
        arguments: tuple[object, ...] = (
            *("--agents", address, "--relay-address", address, "--host", host, "--ports", ports),
            *("--http", f"{host}:{self.http}", "--status", f"{host}:{self.status}"),
            *("--registry", f"redis://{HOST}:{self.redis}/0", "--registry-expiry", EXPIRY),
        )
        async with running("relay", *arguments, *options) as relay:
            await relay.expect("listening: ")
            self.processes[host] = relay
            yield relay

    @contextlib.asynccontextmanager
    async def expose(
        self, service: int, host: str, *options: object, port: int | None = None
    ) -> AsyncGenerator[Running, None]:
        relay = f"{host}:{self.agents if port is None else port}"
        arguments = (service, "--relay", relay, "--longest-pause", 0.3, *options)
        async with running("expose", *arguments) as agent:
            await agent.expect(r"(\S+) is at ")
            yield agent

    async def metrics(self, host: str) -> str:
        return (await fetch(host, self.status, "localhost", "/metrics")).decode()


@contextlib.asynccontextmanager
async def two_relays(
    program: Program, tmp_path: Path, *options: object
) -> AsyncGenerator[Relays, None]:
    redis = free_port()
    command = (program("redis-server"), "--port", redis, "--bind", HOST, "--save", "")
    async with daemon(redis, *command, cwd=tmp_path):
        relays = Relays(redis, free_ports(10), tmp_path)
        async with relays.relay(HOSTS[0], *options), relays.relay(HOSTS[1], *options):
            yield relays


async def fetch(host: str, port: int, name: str, path: str = "/", *, header: bytes = b"") -> bytes:
    """What HTTP says at an address; a connection for each request."""
    with trio.fail_after(DEADLINE):
        async with await trio.open_tcp_stream(host, port) as stream:
            request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            await stream.send_all(header + request.encode())
            return b"".join([bytes(chunk) async for chunk in stream])


@contextlib.asynccontextmanager
async def site(tmp_path: Path, word: str) -> AsyncGenerator[int, None]:
    """A web server whose page says one word."""
    folder = tmp_path / word
    folder.mkdir()
    (folder / "index.html").write_text(word)
    async with files(folder) as port:
        yield port


async def test_a_visitor_at_either_reaches_an_agent_at_either(
    program: Program, tmp_path: Path
) -> None:
    async with (
        two_relays(program, tmp_path) as relays,
        site(tmp_path, "first") as first,
        site(tmp_path, "second") as second,
    ):
        ports = relays.ports
        tcp = ("--name", "tcp", "--port", ports[0]), ("--name", "other", "--port", ports[1])
        web = ("--name", "web", "--host", "www.example.org")
        async with (
            relays.expose(first, HOSTS[0], *tcp[0]),
            relays.expose(second, HOSTS[1], *tcp[1]),
            relays.expose(second, HOSTS[1], *web),
        ):
            for host in HOSTS:
                assert (await fetch(host, ports[0], "x")).endswith(b"first")
                assert (await fetch(host, ports[1], "x")).endswith(b"second")
                assert (await fetch(host, relays.http, "www.example.org")).endswith(b"second")
            metrics = await relays.metrics(HOSTS[0])
            assert 'trio_muxado_relay_passed_total{tunnel="other",way="out"} 1.0' in metrics
            assert 'trio_muxado_relay_passed_total{tunnel="web",way="out"} 1.0' in metrics
            assert 'trio_muxado_relay_passed_total{tunnel="tcp",way="in"} 1.0' in metrics
            assert "trio_muxado_relay_relays 1.0" in metrics
            assert "trio_muxado_relay_registry_up 1.0" in metrics


async def test_a_name_at_both_relays(program: Program, tmp_path: Path) -> None:
    """A third relay, without an agent, uses them in turn."""
    third = "127.0.0.4"
    async with (
        two_relays(program, tmp_path) as relays,
        relays.relay(third),
        site(tmp_path, "first") as first,
        site(tmp_path, "second") as second,
    ):
        port = ("--port", relays.ports[3])
        async with (
            relays.expose(first, HOSTS[0], *port),
            relays.expose(second, HOSTS[1], *port),
        ):
            answers = [await fetch(third, relays.ports[3], "x") for _ in range(10)]
            words = Counter(answer.rpartition(b"\r\n")[2] for answer in answers)
            assert words == {b"first": 5, b"second": 5}


async def test_redis_dies_and_comes_back(program: Program, tmp_path: Path) -> None:
    redis = free_port()
    command = (program("redis-server"), "--port", redis, "--bind", HOST, "--save", "")
    relays = Relays(redis, free_ports(10), tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(site(tmp_path, "first"))
        # A relay begins without it, too.
        await stack.enter_async_context(relays.relay(HOSTS[0]))
        await stack.enter_async_context(relays.relay(HOSTS[1]))
        agent = relays.expose(first, HOSTS[0], "--port", relays.ports[0])
        await stack.enter_async_context(agent)
        assert (await fetch(HOSTS[0], relays.ports[0], "x")).endswith(b"first")
        for end in (signal.SIGKILL, signal.SIGSTOP):
            async with daemon(redis, *command, cwd=tmp_path) as process:
                with trio.fail_after(DEADLINE):
                    while not await reaches(HOSTS[1], relays.ports[0]):
                        await trio.sleep(0.1)
                process.send_signal(end)
                for _ in range(30):  # for longer than what it knows would live
                    assert (await fetch(HOSTS[0], relays.ports[0], "x")).endswith(b"first")
                    await trio.sleep(EXPIRY / 20)
                metrics = await relays.metrics(HOSTS[0])
                assert "trio_muxado_relay_registry_up 0.0" in metrics
                process.kill()


async def reaches(host: str, port: int) -> bool:
    try:
        return (await fetch(host, port, "x")).endswith(b"first")
    except (OSError, trio.BrokenResourceError):
        return False


@contextlib.asynccontextmanager
async def haproxy(program: Program, relays: Relays) -> AsyncGenerator[dict[str, int], None]:
    """HAProxy with the configuration of the examples, but for names and ports."""
    front = {"agents": free_port(), "http": free_port()}
    ports = f"{relays.ports.start}-{relays.ports.stop - 1}"
    text = CONFIGURATION.read_text("utf-8")
    for old, new in (
        ("bind :4440", f"bind {HOST}:{front['agents']}"),
        ("bind :80", f"bind {HOST}:{front['http']}"),
        ("bind :20000-20009", f"bind {HOST}:{ports}"),
        ("port 9100", f"port {relays.status}"),
        (":4440", f":{relays.agents}"),
        (":8080", f":{relays.http}"),
        ("relay1 relay1", f"relay1 {HOSTS[0]}"),
        ("relay2 relay2", f"relay2 {HOSTS[1]}"),
    ):
        assert old in text
        text = text.replace(old, new)
    file = relays.tmp_path / "haproxy.cfg"
    file.write_text(text)
    command = (program("haproxy"), "-f", file)
    async with daemon(front["http"], *command, cwd=relays.tmp_path):
        await wait_for_port(front["agents"])
        yield front


async def test_a_relay_dies_behind_haproxy(program: Program, tmp_path: Path) -> None:
    """Its agents move to the other one, and visitors are served again."""
    async with (
        two_relays(program, tmp_path, "--accept-proxy-protocol") as relays,
        haproxy(program, relays) as front,
        site(tmp_path, "first") as first,
    ):
        options = ("--host", "www.example.org", "--name", "web")
        tcp = ("--tunnels", f"name=tcp,service={first},port={relays.ports[0]}")
        agents = front["agents"]
        async with relays.expose(first, HOST, *options, *tcp, port=agents) as agent:
            for _ in range(4):  # both relays
                assert (await fetch(HOST, front["http"], "www.example.org")).endswith(b"first")
                assert (await fetch(HOST, relays.ports[0], "x")).endswith(b"first")
            passed = [await relays.metrics(host) for host in HOSTS]
            (has_it,) = [
                host
                for host, text in zip(HOSTS, passed, strict=True)
                if 'trio_muxado_relay_agents{tunnel="web"} 1.0' in text
            ]
            (other,) = set(HOSTS) - {has_it}
            relays.processes[has_it].process.kill()
            await agent.expect(r"(web|tcp) is at ")
            with trio.fail_after(DEADLINE):
                while not await reaches(HOST, relays.ports[0]):
                    await trio.sleep(0.1)
            for _ in range(6):
                answer = await fetch(HOST, front["http"], "www.example.org")
                assert answer.endswith(b"first"), answer
            # The visitor's own address gets through HAProxy and both relays.
            header = proxy_header("v2", ("192.0.2.7", 777), ("192.0.2.8", 80))
            direct = await fetch(other, relays.http, "www.example.org", header=header)
            assert direct.endswith(b"first")


async def test_a_relay_that_is_stopped_loses_no_request(program: Program, tmp_path: Path) -> None:
    """SIGTERM of one relay while visitors come: all are served, by it or by the other one."""
    async with (
        two_relays(program, tmp_path, "--accept-proxy-protocol") as relays,
        haproxy(program, relays) as front,
        site(tmp_path, "first") as first,
    ):
        options = ("--host", "www.example.org")
        async with (
            relays.expose(first, HOST, *options, port=front["agents"]),
            relays.expose(first, HOST, *options, port=front["agents"]),
        ):
            answers: Counter[bytes] = Counter()

            async def come(times: int) -> None:
                for _ in range(times):
                    answer = await fetch(HOST, front["http"], "www.example.org")
                    answers[answer.rpartition(b"\r\n")[2]] += 1

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(come, 50)
                await trio.sleep(0.3)
                stopped = relays.processes[HOSTS[0]]
                stopped.process.send_signal(signal.SIGTERM)
            code, said = await stopped.wait()
            assert code == 0, said
            assert answers == {b"first": 200}


def test_the_configuration_of_haproxy_is_right(program: Program, tmp_path: Path) -> None:
    text = CONFIGURATION.read_text("utf-8")
    for name, host in zip(("relay1", "relay2"), HOSTS, strict=True):
        text = text.replace(f"{name} {name}", f"{name} {host}")
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    done = subprocess.run(
        [program("haproxy"), "-c", "-f", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_haproxy_starts_without_a_relay_whose_name_is_unknown(
    program: Program, tmp_path: Path
) -> None:
    """As that of a container is which is stopped."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(re.sub("(relay[12]) relay[12]", r"\1 \1.invalid", CONFIGURATION.read_text()))
    done = subprocess.run(
        [program("haproxy"), "-c", "-f", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("could not resolve address 'relay1.invalid'") == 3


@pytest.mark.parametrize("command", ["relay", "expose"])
def test_systemd_understands_the_units(program: Program, tmp_path: Path, command: str) -> None:
    unit = tmp_path / f"trio-muxado-{command}.service"
    text = (DEPLOYMENT / unit.name).read_text("utf-8")
    text, count = re.subn("^ExecStart=\\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    assert count == 1
    unit.write_text(text)
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    # It reads what else is installed on the machine, too.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
    assert not ours
    assert done.returncode == 0, done.stderr


def test_compose_understands_its_file(program: Program) -> None:
    done = subprocess.run(
        [program("docker-compose"), "-f", str(DEPLOYMENT / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRIO_MUXADO_TOKEN": "a secret of the tests"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("TRIO_MUXADO_TOKEN: a secret of the tests") == 2
