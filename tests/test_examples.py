"""Every program in examples/ runs here, as a user would run it: in processes of their own.

Ports are the kernel's choice. Deadlines only end what hangs.
"""

import contextlib
import importlib.util
import json
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

from trio_muxado import ErrorCode, StreamResetError, open_muxado_session

from .helpers import Kind, each_wire, session_pair
from .helpers.fork_server import python
from .helpers.programs import DEADLINE

EXAMPLES = Path(__file__).parents[1] / "examples"
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

    async def type(self, line: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def rest(self) -> str:
        """Wait until it ends by itself, well, and return what it still printed."""
        assert self.process.stdout is not None
        async for chunk in self.process.stdout:
            self.printed += chunk.decode()
        assert await self.process.wait() == 0, self.printed
        return self.printed


@contextlib.asynccontextmanager
async def running(
    name: str, *arguments: object, stdin: int = subprocess.DEVNULL
) -> AsyncIterator[Program]:
    """An example, until it is not needed any more."""
    process = await trio.lowlevel.open_process(
        python("-W", "error", str(EXAMPLES / name), *map(str, arguments)),
        stdin=stdin,
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
            if process.stdin is not None:
                await process.stdin.aclose()


def test_every_example_has_a_test() -> None:
    tests = Path(__file__).read_text("utf-8")
    index = (EXAMPLES / "README.md").read_text("utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in tests, f"{example.name} is never run"
        assert f"({example.name})" in index, f"{example.name} is not in the index"


async def test_echo() -> None:
    async with running("echo_server.py", 0) as server:
        (port,) = await server.expect(r"listening on port (\d+)")
        async with running("echo_client.py", port, "one", "two", "three") as client:
            assert sorted((await client.rest()).split()) == ["one", "three", "two"]


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


@contextlib.asynccontextmanager
async def chatting(port: str, name: str) -> AsyncIterator[Program]:
    async with running("chat.py", "client", port, name, stdin=subprocess.PIPE) as client:
        yield client


async def test_the_chat() -> None:
    async with running("chat.py", "server", 0) as server:
        (port,) = await server.expect(r"listening on port (\d+)")
        async with chatting(port, "ann") as ann:
            await ann.expect("welcome, ann; here: nobody yet")
            async with chatting(port, "bob") as bob:
                await bob.expect("welcome, bob; here: ann")
                await ann.expect(r"\* bob has come")
                await bob.type("hello from bob")
                await ann.expect("bob: hello from bob")
                await ann.type("hello from ann")
                await bob.expect("ann: hello from ann")
                async with chatting(port, "bob") as second:
                    assert "taken" in await second.rest()
                await bob.type("x" * 20_000)  # nobody has to take that, and it ends nobody else
                await bob.expect("the chat is over: .*16")
            await ann.expect(r"\* bob has gone")
            assert ann.process.stdin is not None
            await ann.process.stdin.aclose()
            await ann.rest()
        assert server.process.poll() is None


async def test_a_member_that_does_not_read_holds_nobody_up() -> None:
    """It reads nothing at all, so its window fills, then its channel, and then it is dropped."""
    line = b"x" * 1000 + b"\n"
    async with running("chat.py", "server", 0) as server:
        (port,) = await server.expect(r"listening on port (\d+)")
        async with (
            open_muxado_session(HOST, int(port)) as slow,
            open_muxado_session(HOST, int(port)) as quick,
        ):
            deaf, talker = await slow.open_stream(), await quick.open_stream()
            await deaf.send_all(b"deaf\n")
            assert b"welcome" in await deaf.receive_some()
            await talker.send_all(b"talker\n")
            for _ in range(2000):
                await talker.send_all(line)
            news = b""
            while b"deaf has gone" not in news:
                chunk = await talker.receive_some()
                assert chunk
                news += chunk


async def test_json_requests() -> None:
    async with running("json_requests.py", "server", 0) as server:
        (port,) = await server.expect(r"listening on port (\d+)")
        for arguments, answer in {
            ("add", "1", "2", "3.5"): "6.5\n",
            ("upper", "quiet"): '"QUIET"\n',
            ("nothing", "at", "all"): "refused: unknown method\n",
        }.items():
            async with running("json_requests.py", "client", port, *arguments) as client:
                assert await client.rest() == answer
        async with running("json_requests.py", "client", port, "add", "one") as client:
            assert "INTERNAL_ERROR" in await client.rest()
        await server.expect("a request failed")
        async with open_muxado_session(HOST, int(port)) as session:
            for bad in (b"{", b"[]", b"1", b'{"method": 1}'):
                stream = await session.open_stream()
                await stream.send_all(bad)
                await stream.send_eof()
                with pytest.raises(StreamResetError) as caught:
                    await stream.receive_some()
                assert caught.value.code == 16
        assert server.process.poll() is None


async def test_file_transfer(tmp_path: Path) -> None:
    sizes = {"empty": 0, "small": 10, "large": 3_000_000}
    there = tmp_path / "there"
    there.mkdir()
    files = []
    for name, size in sizes.items():
        files.append(tmp_path / name)
        files[-1].write_bytes(bytes(number * 7 % 251 for number in range(size)))
    async with running("file_transfer.py", "receive", there, 0) as server:
        (port,) = await server.expect(r"listening on port (\d+)")
        async with running("file_transfer.py", "send", port, *files) as client:
            printed = await client.rest()
        assert [f"{name}: ok" in printed for name in sizes] == [True] * 3
        for file in files:
            assert (there / file.name).read_bytes() == file.read_bytes()

        async with open_muxado_session(HOST, int(port)) as session:
            nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            for name, size, digest, code in (
                ("../outside", 0, nothing, 16),
                ("late", 1, nothing, 17),
                ("wrong", 0, "00", 17),
            ):
                stream = await session.open_stream()
                header = {"name": name, "size": size, "sha256": digest}
                await stream.send_all(json.dumps(header).encode() + b"\n")
                await stream.send_eof()
                with pytest.raises(StreamResetError) as caught:
                    await stream.receive_some()
                assert caught.value.code == code
            # What no file can be called ends nothing but its own stream.
            for name in "x" * 300, "a\0b", "\ud800":
                stream = await session.open_stream()
                header = {"name": name, "size": 0, "sha256": nothing}
                await stream.send_all(json.dumps(header).encode() + b"\n")
                await stream.send_eof()
                with pytest.raises(StreamResetError) as caught:
                    await stream.receive_some()
                assert caught.value.code is ErrorCode.INTERNAL_ERROR
            # One that is cut off leaves nothing behind, either.
            stream = await session.open_stream()
            await stream.send_all(b'{"name": "half", "size": 9, "sha256": "00"}\nhalf')
        async with running("file_transfer.py", "send", port, files[1]) as client:
            await client.rest()
    assert {path.name for path in there.iterdir() if ".part" not in path.name} == set(sizes)
    assert not (tmp_path / "outside").exists()


async def test_http_both_ways() -> None:
    async with running("http_both_ways.py", "hub", 0) as hub:
        (port,) = await hub.expect(r"listening on port (\d+)")
        async with open_muxado_session(HOST, int(port)) as session:
            async with await session.accept_stream() as stream:
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{")
                await hub.expect("a worker talks nonsense: JSONDecodeError")
        for name in ("first", "second"):
            async with running("http_both_ways.py", "worker", port, name) as worker:
                assert "the hub says {'task': 'count the stars'}" in await worker.rest()
            await hub.expect("a worker says .*" + name)


async def test_tls_inside_a_stream() -> None:
    async with running("tls_inside.py") as program:
        printed = await program.rest()
    assert "the service answers b'FOR YOUR EYES ONLY'" in printed
    assert re.search(r"the relay passed on \d{3,} bytes, the secret not in them", printed)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="two servers share a port")
async def test_a_restart_loses_no_request() -> None:
    with socket.socket() as taken:  # a port for both servers, which is kept from others
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        async with (
            running("graceful_restart.py", "server", port, "old") as old,
            running("graceful_restart.py", "client", port) as client,
        ):
            await old.expect("old listens")
            await client.expect("the first answer of old")
            async with running("graceful_restart.py", "server", port, "new") as new:
                await new.expect("new listens")
                old.process.send_signal(signal.SIGTERM)
                assert "old has answered everything" in await old.rest()
                await client.expect("the first answer of new")
                client.process.send_signal(signal.SIGTERM)
                printed = await client.rest()
            counts = re.search(r"(\d+) of (\d+) answered: .*'old': .*'new': ", printed)
            assert counts, printed
            assert counts[1] == counts[2]
