"""A rolling restart of two servers behind HAProxy, under load: nothing lost, nothing done twice."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from trio_muxado import Backoff, DialLoss, MuxadoStream, SessionPool, dial_muxado
from trio_muxado.http import MuxadoTransport

from ..helpers import Kind, each_wire
from ..helpers.ports import free_port, free_ports

pytestmark = pytest.mark.applications

HOST = "127.0.0.1"
DEADLINE = 150
ROUNDS = 3
POOLS = 4  # as many client programs would have
DIALS = 2  # sessions of each
RETRIES = 5  # of a request of httpx
PADDING = 100_000  # bytes of a long order, which come in several reads

Ask = Callable[[bytes], Awaitable[bytes]]
Program = Callable[[str], str]

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

    def __init__(self, script: str, port: int, notes: Path) -> None:
        path = Path(__file__).with_name(script)
        self._command = [sys.executable, str(path), str(port), str(notes)]
        self._process: trio.Process | None = None

    async def start(self) -> None:
        self._process = await trio.lowlevel.open_process(self._command, stdout=subprocess.PIPE)
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

    between = 300
    """Answers between two restarts."""
    workers = 10
    """Requests at a time, of each client."""

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
            async with trio.open_nursery() as clients:
                for number in range(POOLS):
                    pool = SessionPool()
                    for _ in range(DIALS):
                        dials.start_soon(self._dial, pool)
                    clients.start_soon(self._client, pool, f"{number}")
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

    async def _client(self, pool: SessionPool, name: str) -> None:
        """What one client program does."""
        async with self._requests(pool) as ask, trio.open_nursery() as workers:
            for worker in range(self.workers):
                workers.start_soon(self._work, ask, f"{name}-{worker}")

    async def _work(self, ask: Ask, name: str) -> None:
        number = 0
        while not self._finish:
            number += 1
            request = f"{name}-{number}".encode()
            assert await ask(request) == b"done: " + request
            self.answered[request] += 1
            self._progress.set()

    @asynccontextmanager
    async def _requests(self, pool: SessionPool) -> AsyncGenerator[Ask, None]:
        """How a request is made: on a stream of its own, by ``pool.request``."""

        async def ask(request: bytes) -> bytes:
            tries = 0

            async def work(stream: MuxadoStream) -> bytes:
                nonlocal tries
                tries += 1
                await stream.send_all(request[:2])
                await stream.send_all(request[2:])
                await stream.send_eof()
                return b"".join([chunk async for chunk in stream])

            try:
                return await pool.request(work)
            finally:
                self.repeated += tries - 1

        yield ask

    async def more(self, count: int) -> None:
        """Wait until that many more have been answered."""
        goal = self.answered.total() + count
        while self.answered.total() < goal:
            self._progress = trio.Event()
            await self._progress.wait()

    def finish(self) -> None:
        self._finish = True


class Counting(MuxadoTransport):
    """Counts the attempts that were made for requests of httpx."""

    attempts = 0

    async def _attempt(self, *args: Any) -> httpx.Response:
        self.attempts += 1
        return await super()._attempt(*args)


class HTTPLoad(Load):
    """The same with httpx: most are orders that must not be given twice, some with much to read."""

    between = 100
    workers = 4

    def __init__(self, port: int, kind: Kind, http2: bool) -> None:
        super().__init__(port, kind)
        self._http2 = http2

    @asynccontextmanager
    async def _requests(self, pool: SessionPool) -> AsyncGenerator[Ask, None]:
        transport = Counting(pool, retries=RETRIES, http2=self._http2)
        made = 0

        async def ask(request: bytes) -> bytes:
            nonlocal made
            made += 1
            if made % 4 == 0:
                response = await http.get(f"/{request.decode()}")
            else:
                padding = b" " * (PADDING if made % 4 == 1 else 0)
                response = await http.post("/", content=request + padding)
            assert response.status_code == 200
            return response.content

        client = httpx.AsyncClient(transport=transport, base_url="http://orders", timeout=None)
        async with client as http:
            yield ask
        self.repeated += transport.attempts - made


async def roll(load: Load, script: str, front: int, haproxy: str, tmp_path: Path) -> None:
    """Restart two servers in turn under that load, and compare what they did with it."""
    ports = free_ports(2)
    notes = tmp_path / "executed"
    servers = [Server(script, port, notes) for port in ports]
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(host=HOST, front=front, one=ports[0], two=ports[1]))
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
                        await load.more(load.between)
                        await server.restart()
                        await load.more(load.between)
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


@each_wire
async def test_no_request_is_lost_and_none_is_done_twice(
    kind: Kind, program: Program, tmp_path: Path
) -> None:
    front = free_port()
    load = Load(front, kind)
    await roll(load, "counting_server.py", front, program("haproxy"), tmp_path)


@each_wire
@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_no_http_request_is_lost_and_none_is_done_twice(
    kind: Kind, http2: bool, program: Program, tmp_path: Path
) -> None:
    front = free_port()
    load = HTTPLoad(front, kind, http2)
    await roll(load, "counting_http_server.py", front, program("haproxy"), tmp_path)
