"""A rolling restart of two servers behind HAProxy, under load: nothing lost, nothing done twice."""

import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_muxado import Backoff, DialLoss, MuxadoStream, SessionPool, dial_muxado

from ..helpers import Kind, each_wire

pytestmark = pytest.mark.applications

HOST = "127.0.0.1"
DEADLINE = 40
ROUNDS = 3
POOLS = 4  # as many client programs would have
DIALS = 2  # sessions of each
WORKERS = 10  # requests at a time, of each
BETWEEN = 300  # answers between two restarts

CONFIG = """
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 2s
    timeout client 1m
    timeout server 1m
    retries 5
    option redispatch 1
frontend muxado
    bind {host}:{front}
    default_backend servers
backend servers
    balance roundrobin
    server one {host}:{one} check inter 100ms fastinter 20ms
    server two {host}:{two} check inter 100ms fastinter 20ms
"""


def free_ports(count: int) -> list[int]:
    socks = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


@asynccontextmanager
async def running(*command: str, **options: Any) -> AsyncGenerator[trio.Process, None]:
    process = await trio.lowlevel.open_process(command, **options)
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Server:
    """A server that is stopped and started again on its port."""

    def __init__(self, port: int, notes: Path) -> None:
        self._port = port
        self._notes = notes
        self._process: trio.Process | None = None

    async def start(self) -> None:
        script = Path(__file__).with_name("counting_server.py")
        command = [sys.executable, str(script), str(self._port), str(self._notes)]
        self._process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        async with self._process.stdout as output:
            said = b""
            while not said.endswith(b"\n"):
                said += await output.receive_some()
        assert said == b"listening\n"

    async def restart(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert await self._process.wait() == 0
        await self.start()

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()


class Load:
    """Clients with requests that are each to be executed just once."""

    def __init__(self, port: int, kind: Kind) -> None:
        self._port = port
        self._config = kind.config()
        self.answered: Counter[bytes] = Counter()
        self.repeated = 0
        self.losses: list[DialLoss] = []
        self._finish = False
        self._progress = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as dials:
            async with trio.open_nursery() as workers:
                for number in range(POOLS):
                    pool = SessionPool()
                    for _ in range(DIALS):
                        dials.start_soon(self._dial, pool)
                    for worker in range(WORKERS):
                        workers.start_soon(self._work, pool, f"{number}-{worker}")
            dials.cancel_scope.cancel()

    async def _dial(self, pool: SessionPool) -> None:
        def on_state(state: str, loss: DialLoss | None) -> None:
            if loss is not None:
                self.losses.append(loss)

        await dial_muxado(
            pool.hold,
            HOST,
            self._port,
            config=self._config,
            backoff=Backoff(first=0.02, longest=0.2),
            on_state=on_state,
        )

    async def _work(self, pool: SessionPool, name: str) -> None:
        number = 0
        while not self._finish:
            number += 1
            request = f"{name}-{number}".encode()
            tries = 0

            async def ask(stream: MuxadoStream, request: bytes = request) -> bytes:
                nonlocal tries
                tries += 1
                await stream.send_all(request[:2])
                await stream.send_all(request[2:])
                await stream.send_eof()
                return b"".join([chunk async for chunk in stream])

            assert await pool.request(ask) == b"done: " + request
            self.repeated += tries - 1
            self.answered[request] += 1
            self._progress.set()

    async def more(self, count: int) -> None:
        """Wait until that many more have been answered."""
        goal = self.answered.total() + count
        while self.answered.total() < goal:
            self._progress = trio.Event()
            await self._progress.wait()

    def finish(self) -> None:
        self._finish = True


@each_wire
async def test_no_request_is_lost_and_none_is_done_twice(
    kind: Kind, program: Callable[[str], str], tmp_path: Path
) -> None:
    haproxy = program("haproxy")
    front, *ports = free_ports(3)
    notes = tmp_path / "executed"
    servers = [Server(port, notes) for port in ports]
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(host=HOST, front=front, one=ports[0], two=ports[1]))
    load = Load(front, kind)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with trio.fail_after(DEADLINE):
        try:
            for server in servers:
                await server.start()
            async with (
                running(haproxy, "-db", "-f", str(config), **quiet),
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(load.run)
                for _ in range(ROUNDS):
                    for server in servers:
                        await load.more(BETWEEN)
                        await server.restart()
                        await load.more(BETWEEN)
                load.finish()
        finally:
            for server in servers:
                await server.kill()
    executed = Counter(notes.read_bytes().split())
    assert executed == load.answered
    assert set(executed.values()) == {1}
    summary = f"{len(executed)} requests, {load.repeated} again, {len(load.losses)} sessions lost"
    print(summary)  # noqa: T201  (for who runs it with -s)
    assert load.losses, "no session was lost: there was no restart under load"
