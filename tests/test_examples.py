"""Every program in examples/ runs here, as a user would run it: in processes of their own.

Ports are the kernel's choice. Deadlines only end what hangs.
"""

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from .helpers import Kind, each_wire, session_pair

EXAMPLES = Path(__file__).parents[1] / "examples"
DEADLINE = 60
HOST = "127.0.0.1"


class Program:
    """A running example, and what it prints."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name = name
        self.process = process
        self.printed = ""

    async def expect(self, pattern: str) -> tuple[str, ...]:
        """Wait until it prints a line that matches, and return the groups."""
        assert self.process.stdout is not None
        while not (found := re.search(pattern, self.printed)):
            chunk = await self.process.stdout.receive_some()
            assert chunk, f"{self.name} ended without {pattern!r}:\n{self.printed}"
            self.printed += chunk.decode()
        self.printed = self.printed[found.end() :]
        return found.groups()


@contextlib.asynccontextmanager
async def running(name: str, *arguments: object) -> AsyncIterator[Program]:
    """An example, until it is not needed any more."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
    )
    program = Program(name, process)
    try:
        with trio.fail_after(DEADLINE):
            yield program
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


def test_every_example_has_a_test() -> None:
    tests = Path(__file__).read_text("utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in tests, f"{example.name} is never run"


async def test_echo() -> None:
    async with running("echo_server.py", 0) as server:
        (port,) = await server.expect(r"listening on port (\d+)")
        async with running("echo_client.py", port, "one", "two", "three") as client:
            assert await client.process.wait() == 0
            assert client.process.stdout is not None
            printed = b"".join([chunk async for chunk in client.process.stdout]).decode()
        assert sorted(printed.split()) == ["one", "three", "two"]


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent SIGTERM there")
async def test_the_echo_server_stops_gently() -> None:
    async with running("echo_server.py", 0) as server:
        await server.expect(r"listening on port (\d+)")
        server.process.send_signal(signal.SIGTERM)
        assert await server.process.wait() == 0


@contextlib.asynccontextmanager
async def tunnel(service_port: int) -> AsyncIterator[int]:
    """A relay and an agent; gives the relay's public port."""
    async with running("reverse_tunnel.py", "relay", 0, 0) as relay:
        public_port, agent_port = await relay.expect(r"public port (\d+), agent port (\d+)")
        agent = running("reverse_tunnel.py", "agent", HOST, agent_port, HOST, service_port)
        async with agent:
            await relay.expect("an agent has connected")
            yield int(public_port)


@contextlib.asynccontextmanager
async def reversing_service() -> AsyncIterator[int]:
    """A TCP service that sends back, the wrong way round, what it has read to the end."""

    async def reverse(stream: trio.SocketStream) -> None:
        data = b"".join([chunk async for chunk in stream])
        await stream.send_all(data[::-1])

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, reverse, 0, host=HOST))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_the_reverse_tunnel_joins_visitors_and_the_service() -> None:
    sizes = [1, 1000, 300_000]  # the last is more than windows and buffers hold
    async with reversing_service() as service_port, tunnel(service_port) as public_port:
        for size in sizes:
            data = bytes(number * 7 % 256 for number in range(size))
            async with await trio.open_tcp_stream(HOST, public_port) as visitor:
                await visitor.send_all(data)
                await visitor.send_eof()
                assert b"".join([chunk async for chunk in visitor]) == data[::-1]


async def test_the_reverse_tunnel_survives_a_service_that_is_down() -> None:
    with socket.socket() as bound:  # but not listening: whoever connects is refused
        bound.bind((HOST, 0))
        async with tunnel(bound.getsockname()[1]) as public_port:
            for _ in range(2):
                async with await trio.open_tcp_stream(HOST, public_port) as visitor:
                    with pytest.raises(trio.BrokenResourceError):
                        await visitor.receive_some()


async def test_visitors_that_stay_lock_nobody_out() -> None:
    """The service has done with each of them, and they keep their side open, as browsers do."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")

    async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as visitors:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host=HOST))
        async with tunnel(listener.socket.getsockname()[1]) as public_port:
            for _ in range(300):
                visitor = await trio.open_tcp_stream(HOST, public_port)
                await visitors.enter_async_context(visitor)
                assert b"".join([chunk async for chunk in visitor]) == b"hello"
        nursery.cancel_scope.cancel()


async def test_with_two_agents_either_may_go() -> None:
    async with (
        reversing_service() as service_port,
        running("reverse_tunnel.py", "relay", 0, 0) as r,
    ):
        public_port, agent_port = await r.expect(r"public port (\d+), agent port (\d+)")
        arguments = "agent", HOST, agent_port, HOST, service_port
        async with running("reverse_tunnel.py", *arguments):
            await r.expect("an agent has connected")
            async with running("reverse_tunnel.py", *arguments):
                await r.expect("an agent has connected")
            await r.expect("an agent has gone")
            for _ in range(3):
                async with await trio.open_tcp_stream(HOST, int(public_port)) as visitor:
                    await visitor.send_all(b"abc")
                    await visitor.send_eof()
                    assert b"".join([chunk async for chunk in visitor]) == b"cba"


@each_wire
async def test_the_anyio_adapter(kind: Kind) -> None:
    anyio = pytest.importorskip("anyio")
    spec = importlib.util.spec_from_file_location("anyio_stream", EXAMPLES / "anyio_stream.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with session_pair(kind) as (client, server):
        ours = module.AnyioStream(await client.open_stream())
        theirs = module.AnyioStream(await server.accept_stream())
        async with ours, theirs:
            await ours.send(b"question")
            assert await theirs.receive(5) == b"quest"
            assert await theirs.receive() == b"ion"
            await ours.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await theirs.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await ours.send(b"more")
            await theirs.stream.reset()
            with pytest.raises(anyio.BrokenResourceError):
                await ours.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await theirs.receive()
