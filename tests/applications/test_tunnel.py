"""nc and curl through a tunnel: ends and breaks as these programs make and see them."""

import hashlib
import random
import socket
import struct
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_muxado import (
    MuxadoSession,
    SessionPool,
    dial_muxado,
    forward,
    forward_streams,
    serve_muxado,
)

from ..helpers import Kind, each_wire

pytestmark = pytest.mark.applications

HOST = "127.0.0.1"
DEADLINE = 20
PAYLOAD = random.Random(1).randbytes(5_000_000)
NO_LINGER = struct.pack("ii", 1, 0)

Program = Callable[[str], str]


@asynccontextmanager
async def tunnel(
    kind: Kind, service: Callable[[trio.SocketStream], Awaitable[Any]]
) -> AsyncGenerator[int, None]:
    """A relay and an agent in front of a service; gives the port for visitors."""
    agents = SessionPool()

    async def handle_visitor(visitor: trio.SocketStream) -> None:
        await forward(visitor, await agents.open_stream())

    async with trio.open_nursery() as nursery:
        start = nursery.start
        (services,) = await start(partial(trio.serve_tcp, service, 0, host=HOST))
        # A v2 client that only accepts says nothing that would show what it speaks.
        options: dict[str, Any] = {"host": HOST, "config": kind.config()}
        relay = partial(serve_muxado, MuxadoSession.wait_closed, 0, **options)
        (relays,) = await start(partial(relay, on_session=agents.on_session))
        agent = partial(forward_streams, host=HOST, port=services.socket.getsockname()[1])
        port = relays.socket.getsockname()[1]
        await start(partial(dial_muxado, agent, HOST, port, config=kind.config()))
        (visitors,) = await start(partial(trio.serve_tcp, handle_visitor, 0, host=HOST))
        with trio.fail_after(DEADLINE):
            yield visitors.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def run(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
    )


async def digest(tcp: trio.SocketStream) -> None:
    """Answer with the digest of all that came, which only an end of it allows."""
    sha = hashlib.sha256()
    async for chunk in tcp:
        sha.update(chunk)
    await tcp.send_all(sha.hexdigest().encode())


@each_wire
async def test_nc_ends_its_direction_and_reads_the_answer(kind: Kind, program: Program) -> None:
    async with tunnel(kind, digest) as port:
        done = await run(program("nc"), "-N", HOST, str(port), stdin=PAYLOAD)
    assert done.returncode == 0
    assert done.stdout.decode() == hashlib.sha256(PAYLOAD).hexdigest()


@each_wire
async def test_nc_reads_a_download_to_its_end(kind: Kind, program: Program) -> None:
    async def download(tcp: trio.SocketStream) -> None:
        await tcp.send_all(PAYLOAD)
        await tcp.send_eof()
        async for _ in tcp:
            pass

    async with tunnel(kind, download) as port:
        done = await run(program("nc"), "-N", HOST, str(port))
    assert done.stdout == PAYLOAD


async def http(tcp: trio.SocketStream, answer: Callable[[bytes], Awaitable[None]]) -> None:
    """One request of HTTP/1.1: its head goes to ``answer``, its body stays unread."""
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await tcp.receive_some()
        if not chunk:
            return
        head += chunk
    await answer(head)


@each_wire
async def test_curl_downloads(kind: Kind, program: Program) -> None:
    async def service(tcp: trio.SocketStream) -> None:
        async def answer(head: bytes) -> None:
            await tcp.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAYLOAD))
            await tcp.send_all(PAYLOAD)

        await http(tcp, answer)

    async with tunnel(kind, service) as port:
        done = await run(program("curl"), "-sS", f"http://{HOST}:{port}/")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == PAYLOAD


@each_wire
async def test_curl_uploads(kind: Kind, program: Program, tmp_path: Path) -> None:
    path = trio.Path(tmp_path / "upload")
    await path.write_bytes(PAYLOAD)
    sha = hashlib.sha256()

    async def service(tcp: trio.SocketStream) -> None:
        received = b""
        while len(body := received.partition(b"\r\n\r\n")[2]) < len(PAYLOAD):
            received += await tcp.receive_some()
        sha.update(body)
        await tcp.send_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")

    async with tunnel(kind, service) as port:
        options = "-sS", "-H", "Expect:", "--data-binary", f"@{path}"
        done = await run(program("curl"), *options, f"http://{HOST}:{port}/")
    assert (done.returncode, done.stdout) == (0, b"ok")
    assert sha.hexdigest() == hashlib.sha256(PAYLOAD).hexdigest()


@each_wire
async def test_curl_sees_a_download_without_length_that_breaks(
    kind: Kind, program: Program
) -> None:
    """Only the reset says that this was not the end: curl calls an end a whole file."""

    async def service(tcp: trio.SocketStream) -> None:
        async def answer(head: bytes) -> None:
            await tcp.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            await tcp.send_all(PAYLOAD[:100_000])
            await seen.wait()
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)

        await http(tcp, answer)

    seen = trio.Event()
    async with tunnel(kind, service) as port:
        command = [program("curl"), "-sS", "-N", f"http://{HOST}:{port}/"]
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        received = b""
        while len(received) < 100_000:
            received += await process.stdout.receive_some()
        seen.set()
        assert await process.wait() == 56  # "failure in receiving network data"
        async with process.stdout, process.stderr:
            assert b"reset" in await process.stderr.receive_some()
    assert received == PAYLOAD[:100_000]


@each_wire
async def test_a_service_hears_that_curl_was_killed(kind: Kind, program: Program) -> None:
    ends: list[str] = []
    begun, done = trio.Event(), trio.Event()

    async def service(tcp: trio.SocketStream) -> None:
        try:
            await tcp.receive_some()
            await tcp.send_all(b"HTTP/1.1 200 OK\r\n\r\nfor")
            begun.set()
            while True:
                await tcp.send_all(b"ever" * 10_000)
        except trio.BrokenResourceError:
            ends.append("broken")
        done.set()

    async with tunnel(kind, service) as port:
        command = [program("curl"), "-sS", "-o", "/dev/null", f"http://{HOST}:{port}/"]
        process = await trio.lowlevel.open_process(command)
        await begun.wait()
        process.kill()
        await process.wait()
        await done.wait()
    assert ends == ["broken"]
