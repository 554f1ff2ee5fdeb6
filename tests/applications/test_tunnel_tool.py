"""What people run, through `relay` and `expose` as they are run: processes on one machine."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import trio

from ..command.support import ordinary_module
from ..helpers.ports import free_port
from ..tunnel.commands import APPLICATION, Running, relaying, running, terminated
from ..tunnel.support import HOST

pytestmark = pytest.mark.applications

DEADLINE = 120
"""Seconds after which a program hangs."""

SECONDS = 20 if os.environ.get("LONG") else 4
"""For how long `wrk` visits."""

Program = Callable[[str], str]


async def run(*command: object, cwd: Path | None = None, check: bool = True) -> str:
    """What a program prints; its end is waited for."""
    with trio.fail_after(DEADLINE):
        done = await trio.run_process(
            [*map(str, command)],
            cwd=cwd,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    printed = done.stdout.decode(errors="replace")
    assert done.returncode == 0 or not check, printed
    return printed


def folder_of(program: str) -> Path:
    """Where it really is, with what belongs to it."""
    return Path(program).resolve().parent


async def wait_for_port(port: int) -> None:
    with trio.fail_after(DEADLINE):
        while True:
            try:
                await trio.aclose_forcefully(await trio.open_tcp_stream(HOST, port))
            except OSError:
                await trio.sleep(0.05)
            else:
                return


@contextlib.asynccontextmanager
async def daemon(port: int, *command: object, cwd: Path) -> AsyncGenerator[trio.Process, None]:
    """A service that listens, until it is not needed any more."""
    with (cwd / "daemon.log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            [*map(str, command)], cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        await wait_for_port(port)
        yield process
    finally:
        await terminated(process)


class Tunnel:
    """A relay and an agent in front of a port."""

    def __init__(self, relay: Running, agent: Running, port: int, agents: str) -> None:
        self.relay = relay
        self.agent = agent
        self.port = port
        self.agents = agents

    def check(self) -> None:
        """Both still run."""
        assert self.relay.process.poll() is None, self.relay.said
        assert self.agent.process.poll() is None, self.agent.said


@contextlib.asynccontextmanager
async def tunnel_to(service: int) -> AsyncGenerator[Tunnel, None]:
    port = free_port()
    async with relaying("--ports", port) as (relay, agents):
        expose = ("expose", service, "--relay", agents, "--port", port, "--longest-pause", 0.2)
        async with running(*expose) as agent:
            await agent.expect("main is at")
            tunnel = Tunnel(relay, agent, port, agents)
            yield tunnel
            tunnel.check()
            for each in (agent, relay):
                each.process.send_signal(signal.SIGTERM)
                code, said = await each.wait()
                assert code == 0, said
                assert "Traceback" not in said


@contextlib.asynccontextmanager
async def files(folder: Path) -> AsyncGenerator[int, None]:
    """A web server of files."""
    port = free_port()
    command = (sys.executable, "-m", "http.server", port, "--bind", HOST)
    async with daemon(port, *command, cwd=folder):
        yield port


async def test_curl_fetches_two_hundred_files_at_once(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    contents = [random.Random(number).randbytes(number * 1000) for number in range(200)]
    for number, content in enumerate(contents):
        (folder / str(number)).write_bytes(content)
    async with files(folder) as port, tunnel_to(port) as tunnel:
        got = tmp_path / "got"
        got.mkdir()
        url = f"http://{HOST}:{tunnel.port}/[0-199]"
        await run(program("curl"), "-sS", "--fail", "-Z", "-o", "#1", url, cwd=got)
    assert [(got / str(number)).read_bytes() for number in range(200)] == contents


async def test_wrk_leaves_in_the_middle_of_downloads(program: Program, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    async with files(tmp_path) as port, tunnel_to(port) as tunnel:
        url = f"http://{HOST}:{tunnel.port}/large"
        printed = await run(program("wrk"), "-t2", "-c20", f"-d{SECONDS}s", url)
        found = re.search(r"(\d+) requests in", printed)
        assert found
        assert int(found[1]) > 0
        assert "Non-2xx" not in printed
        tunnel.check()
        assert await run(program("curl"), "-sS", "--fail", "-o", "/dev/null", url) == ""


async def test_git_clones(program: Program, tmp_path: Path) -> None:
    git = program("git")
    origin = tmp_path / "origin"
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    await run(git, "init", "-q", origin)
    (origin / "large").write_bytes(random.Random(1).randbytes(5_000_000))
    await run(git, "-C", origin, "add", ".")
    await run(git, "-C", origin, *identity, "commit", "-qm", "first")
    port = free_port()
    options = (f"--port={port}", f"--listen={HOST}", "--export-all", f"--base-path={tmp_path}")
    async with daemon(port, git, "daemon", "--reuseaddr", *options, tmp_path, cwd=tmp_path):
        async with tunnel_to(port) as tunnel:
            url = f"git://{HOST}:{tunnel.port}/origin/.git"
            await run(git, "clone", "-q", url, tmp_path / "clone")
    await run(git, "-C", tmp_path / "clone", "fsck", "--full")
    assert (tmp_path / "clone" / "large").read_bytes() == (origin / "large").read_bytes()


async def test_redis_benchmark(program: Program, tmp_path: Path) -> None:
    port = free_port()
    options = ("--port", port, "--bind", HOST, "--save", "", "--appendonly", "no")
    async with daemon(port, program("redis-server"), *options, cwd=tmp_path):
        async with tunnel_to(port) as tunnel:
            load = ("-n", 2000, "-c", 50, "-q", "-t", "set,get,lpush")
            printed = await run(program("redis-benchmark"), "-p", tunnel.port, *load)
            assert printed.count("requests per second") == 3
            assert "rror" not in printed


async def test_psql_copies_in_and_out(program: Program, tmp_path: Path) -> None:
    psql, postgres = program("psql"), folder_of(program("postgres"))
    as_user: tuple[str, ...] = ()
    data = tmp_path / "data"
    data.mkdir()
    if os.geteuid() == 0:  # which postgres refuses to be
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam("postgres")
            os.chown(data, user.pw_uid, user.pw_gid)
            for folder in (tmp_path, *tmp_path.parents[:3]):
                folder.chmod(0o755)
            as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    await run(*as_user, postgres / "initdb", "-D", data, "-A", "trust", "-U", "tester")
    port = free_port()
    options = ("-p", port, "-h", HOST, "-k", data)
    async with daemon(port, *as_user, postgres / "postgres", "-D", data, *options, cwd=tmp_path):
        async with tunnel_to(port) as tunnel:
            connect = (
                psql,
                "-h",
                HOST,
                "-p",
                tunnel.port,
                "-U",
                "tester",
                "-d",
                "postgres",
                "-qtA",
            )
            rows = "".join(f"{number}\t{number * 7919 % 1000}\n" for number in range(200_000))
            (tmp_path / "rows").write_text(rows)
            await run(*connect, "-c", "create table numbers (a int, b int)")
            await run(*connect, "-c", f"\\copy numbers from '{tmp_path / 'rows'}'")
            await run(*connect, "-c", f"\\copy numbers to '{tmp_path / 'again'}'")
            assert (tmp_path / "again").read_text() == rows
            assert await run(*connect, "-c", "select count(*) from numbers") == "200000\n"


async def test_nc_ends_its_direction_and_is_answered(program: Program, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello")
    async with files(tmp_path) as port, tunnel_to(port) as tunnel:
        request = tmp_path / "request"
        request.write_text("GET /page HTTP/1.0\r\n\r\n")
        command = f"{program('nc')} -N {HOST} {tunnel.port} < {request}"
        assert (await run("sh", "-c", command)).endswith("hello")


async def test_each_is_killed_and_comes_back(program: Program, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello")
    curl = (program("curl"), "-sS", "--fail", "--max-time", 20)
    retry = ("--retry", 60, "--retry-delay", 1, "--retry-all-errors")
    service, port = free_port(), free_port()
    url = f"http://{HOST}:{port}/page"
    server = (sys.executable, "-m", "http.server", service, "--bind", HOST)
    agents = f"{HOST}:{free_port()}"
    relay = ("relay", "--agents", agents, "--ports", port)
    expose = ("expose", service, "--relay", agents, "--port", port, "--longest-pause", 0.2)
    async with contextlib.AsyncExitStack() as stack:
        start = stack.enter_async_context
        first = await start(running(*relay))
        agent = await start(running(*expose))
        await agent.expect("main is at")
        async with daemon(service, *server, cwd=tmp_path) as killed:
            assert await run(*curl, url) == "hello"
            killed.kill()
            await killed.wait()
            assert "curl" in await run(*curl, url, check=False)
        await start(daemon(service, *server, cwd=tmp_path))
        assert await run(*curl, url) == "hello"
        agent.process.kill()
        await agent.process.wait()
        agent = await start(running(*expose))
        assert await run(*curl, *retry, url) == "hello"  # it waits for the agent
        first.process.kill()
        await first.process.wait()
        await start(running(*relay))
        await agent.expect("no relay: ")
        await agent.expect("main is at")
        assert await run(*curl, *retry, url) == "hello"


async def test_a_frozen_agent_is_noticed(program: Program, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello")
    async with files(tmp_path) as service, tunnel_to(service) as tunnel:
        expose = ("expose", service, "--relay", tunnel.agents, "--port", tunnel.port)
        async with running(*expose, start=ordinary_module) as frozen:
            await frozen.expect("main is at")
            frozen.process.send_signal(signal.SIGSTOP)
            url = f"http://{HOST}:{tunnel.port}/page"
            for _ in range(4):
                assert await run(program("curl"), "-sS", "--fail", "--max-time", 20, url) == "hello"
            await tunnel.relay.expect("has gone: ")
            frozen.process.send_signal(signal.SIGCONT)
            await frozen.expect("no relay: ")
            await frozen.expect("main is at")


@pytest.mark.parametrize("who", ["relay", "agent"])
async def test_sigterm_under_a_hundred_requests(who: str, program: Program, tmp_path: Path) -> None:
    """Each gets the whole answer, although the service takes its time."""
    (tmp_path / "slow_app.py").write_text(SLOW)
    port = free_port()
    async with relaying("--ports", port) as (relay, agents):
        options = ("--relay", agents, "--port", port)
        async with running("expose", "slow_app:app", *options, cwd=tmp_path) as agent:
            await agent.expect("main is at")
            url = f"http://{HOST}:{port}/[1-100]"
            limits = ("--parallel-max", 100, "--parallel-immediate", "-Z")
            answer = ("-o", "/dev/null", "-w", "%{size_download} bytes\n")
            results: list[str] = []

            async def fetch() -> None:
                results.append(await run(program("curl"), "-sS", "--fail", *answer, *limits, url))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch)
                await trio.sleep(1)
                stopped = relay if who == "relay" else agent
                stopped.process.send_signal(signal.SIGTERM)
                code, said = await stopped.wait()
                assert code == 0, said
            assert results[0].count("5 bytes\n") == 100, results[0]


SLOW = (
    f"import trio\n{APPLICATION}"
    + """\
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"w", "more_body": True})
    await trio.sleep(2)
    await send({"type": "http.response.body", "body": b"hole"})
"""
)
