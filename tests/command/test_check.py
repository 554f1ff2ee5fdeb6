"""``trio-muxado check``.  Over TCP, as it connects."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_muxado import MuxadoConfig, MuxadoError, open_muxado_session, server_session
from trio_muxado._check import echo_vectors
from trio_muxado._check.frames import Header
from trio_muxado._check.vectors import Version

from ..helpers.ports import free_port
from ..helpers.programs import DEADLINE
from ..test_check import Change, Mistaken, without
from .support import echo_streams, invoke, module, run_beside, serving

DIALLER = Path(__file__).with_name("dialling_peer.py")


def config_for(wire: Version, *, typed: bool = False) -> MuxadoConfig:
    return MuxadoConfig(wire=wire, typed=typed, heartbeat=None)


KINDS = [("v1", ()), ("v2", ()), ("v2", ("--typed",))]


@pytest.mark.parametrize("wire, typed", KINDS)
async def test_it_finds_nothing_in_this_library_s_server(wire, typed) -> None:
    async with serving(config=config_for(wire, typed=bool(typed))) as address:
        done = await run_beside("check", address, "--wire", wire, *typed)
    count = len(echo_vectors(wire, role="server", typed=bool(typed)))
    kind = "typed muxado" if typed else "muxado"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{count} vectors played to a {kind} {wire} server: nothing differs\n"


@pytest.mark.parametrize("wire, typed", KINDS)
async def test_it_finds_nothing_in_this_library_s_client(wire, typed) -> None:
    """It dials as often as it is listened to."""
    process = await trio.lowlevel.open_process(
        module("check", "127.0.0.1:0", "--role", "server", "--json", "--wire", wire, *typed),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    config = config_for(wire, typed=bool(typed))

    async def dial(host: str, port: int) -> None:
        while True:
            try:
                async with open_muxado_session(host, port, config=config) as session:
                    await echo_streams(session)
            except MuxadoError:
                pass
            except OSError:
                return  # it listens no more

    try:
        with trio.fail_after(DEADLINE):
            async with process.stdout, process.stderr, trio.open_nursery() as nursery:
                said = b""
                while b"\n" not in said:
                    said += await process.stderr.receive_some()
                host, port = said.decode().split()[2].rstrip(":").split(":")
                for _ in range(4):
                    nursery.start_soon(dial, host, int(port))
                out = b"".join([chunk async for chunk in process.stdout])
                await process.wait()
                nursery.cancel_scope.cancel()
    finally:
        process.kill()
    count = len(echo_vectors(wire, role="client", typed=bool(typed)))
    assert said.decode().endswith(f": the peer has to dial {count} times\n")
    results = [json.loads(line) for line in out.splitlines()]
    assert [result for result in results if result["difference"] or result["malformed"]] == []
    assert len(results) == count
    assert process.returncode == 0


def test_it_starts_a_peer_that_dials() -> None:
    start = shlex.join([sys.executable, str(DIALLER)])
    result = invoke(
        *("check", "127.0.0.1:0", "--role", "server", "--start", f"{start} {{host}} {{port}}"),
        *("--only", "wndinc-overflow"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "2 vectors played to a muxado v1 client: nothing differs\n"


@pytest.mark.parametrize(
    "start, code, complaint",
    [
        ("/does/not/exist {port}", 2, "cannot run /does/not/exist: No such file or directory"),
        (f"{sys.executable} -c pass", 1, "ended with 0 and has not dialled"),
    ],
)
def test_a_peer_that_cannot_be_started(start: str, code: int, complaint: str) -> None:
    result = invoke("check", "127.0.0.1:0", "--role", "server", "--start", start)
    assert result.exit_code == code
    (line,) = result.stderr.splitlines()
    assert complaint in line


@asynccontextmanager
async def mistaken(change: Change) -> AsyncGenerator[str, None]:
    """A server that makes mistakes."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(stream: trio.SocketStream) -> None:
        transport = Mistaken(stream, "v1", change)
        try:
            async with server_session(transport, config=config_for("v1")) as session:
                await echo_streams(session)
        except MuxadoError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_it_says_what_differs_and_where_it_is_written() -> None:
    only = ("--only", "wndinc-overflow", "--timeout", "0.2")
    async with mistaken(without("RST")) as address:
        table = await run_beside("check", address, *only)
        lines = await run_beside("check", address, *only, "--json")
    assert (table.returncode, lines.returncode) == (1, 1)
    assert (table.stderr, lines.stderr) == (
        "",
        "2 vectors played to a muxado v1 server: 1 answered differently\n",
    )
    head, row, said = table.stdout.splitlines()
    assert head.split() == ["vector", "section", "what", "is", "different"]
    assert row.split(maxsplit=2) == [
        "wndinc-overflow",
        "docs/specification/v1.md#flow-control",
        "missing: RST (FLOW_CONTROL_ERROR, stream id 3)",
    ]
    assert f"{said}\n" == lines.stderr
    results: list[dict[str, Any]] = [json.loads(line) for line in lines.stdout.splitlines()]
    (different,) = [result for result in results if result["difference"]]
    assert different["vector"] == "wndinc-overflow"
    assert different["section"] == "docs/specification/v1.md#flow-control"
    assert different["difference"] == "missing: RST (FLOW_CONTROL_ERROR, stream id 3)"
    assert (different["wire"], different["typed"], different["peer"]) == ("v1", False, "server")


async def test_a_frame_that_is_wrong_by_itself_is_told_once() -> None:
    def overstate(name: str, header: Header, body: bytes) -> list[tuple[Header, bytes]]:
        if name == "GOAWAY":
            header = Header(header.length + 8, header.type, header.flags, header.stream_id)
        return [(header, body)]

    names = ("invalid/type-zero", "invalid/type-seven")
    only = [word for name in names for word in ("--only", name)]
    async with mistaken(overstate) as address:
        done = await run_beside("check", address, *only, "--timeout", "0.5")
    assert done.returncode == 1
    _, row, said = done.stdout.splitlines()
    assert row.split(maxsplit=3)[:3] == ["(2", "vectors)", "docs/specification/v1.md#goaway"]
    announced, came = map(int, re.findall(r"announces (\d+) bytes, and (\d+) come", row)[0])
    assert announced == came + 8
    assert said.endswith(": 0 answered differently; its frames are wrong")


async def test_it_finds_the_version_out() -> None:
    only = ("--only", "wndinc-overflow", "--timeout", "0.5")
    said = "2 vectors played to a muxado {} server: nothing differs\n"
    async with serving(config=config_for("v2")) as address:
        done = await run_beside("check", address, *only)
    assert (done.returncode, done.stdout, done.stderr) == (0, said.format("v2"), "")
    async with serving(config=MuxadoConfig(heartbeat=None)) as address:
        done = await run_beside("check", address, *only)
    assert (done.returncode, done.stdout) == (0, said.format("v1"))
    (line,) = done.stderr.splitlines()
    assert line.endswith("takes some vectors for the other version: let it speak v1 alone")


async def test_who_is_no_echo_peer() -> None:
    async with serving(lambda session: session.wait_closed()) as address:
        check = ("check", address, "--timeout", "0.2")
        found_out = await run_beside(*check)
        told = await run_beside(*check, "--wire", "v1")
    assert found_out.returncode == told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"trio-muxado: {address} is not an echo peer, which is needed (")
    assert "docs/specification/vectors.md#an-echo-peer" in line
    assert ". As a peer of muxado v1: missing: " in line
    assert "; v2: " not in line
    (line,) = found_out.stderr.splitlines()
    assert "; v2: missing: " in line


def test_a_peer_that_is_not_there() -> None:
    port = free_port()
    result = invoke("check", f"127.0.0.1:{port}")
    assert result.exit_code == 1
    assert result.stderr == (
        f"trio-muxado: no connection to 127.0.0.1:{port}: Connection refused\n"
    )


async def test_a_peer_that_dies_at_the_first_mistake() -> None:
    """What came until then is printed."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"

    async def serve() -> None:
        for is_last in (False, True):
            stream = await listener.accept()
            if is_last:  # before it serves, so that the next is refused and never reset
                await listener.aclose()
            try:
                transport = Mistaken(stream, "v1", without("RST"))
                async with server_session(transport, config=config_for("v1")) as session:
                    await echo_streams(session)
            except MuxadoError:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        once = ("--timeout", "0.2", "--at-once", "1", "--wire", "v1")
        done = await run_beside("check", address, *once)
        nursery.cancel_scope.cancel()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == f"trio-muxado: no connection to {address}: Connection refused"


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["localhost:1", "--typed", "--wire", "v1"], "--typed is for --wire v2"),
        (["localhost:1", "--only", "dance"], "no such vector can be played: dance"),
        (["localhost:1", "--start", "peer"], "--start is for --role server"),
        (["localhost:1", "--role", "server", "--start", "'peer"], "No closing quotation"),
        (["localhost:1", "--role", "server", "--start", ""], "there is no command in it"),
        ([":1"], "--role client needs the host"),
        (["localhost:0"], "--role client needs the host"),
        (["localhost:1", "--role", "server", "--tls"], "TLS is for --role client"),
    ],
)
def test_mistakes(arguments: list[str], complaint: str) -> None:
    result = invoke("check", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert complaint in line
