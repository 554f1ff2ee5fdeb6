"""``trio-muxado trace``.  Over TCP, as the proxy connects."""

from __future__ import annotations

import signal
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
import trio

from trio_muxado import MuxadoConfig, TracedFrame, open_muxado_session
from trio_muxado._check.vectors import bytes_of, read
from trio_muxado._command.options import ADDRESS, Address
from trio_muxado._command.seen import Direction, SeenSession
from trio_muxado._command.trace import Proxy

from ..helpers.ports import free_port
from ..helpers.programs import DEADLINE
from .support import ordinary_module, read_until, run_beside, serving, tracer_process


class Seen:
    """What a proxy has told, and where it listens."""

    def __init__(self) -> None:
        self.address = Address("127.0.0.1", 0)
        self.frames: list[TracedFrame] = []
        self._more = trio.Event()

    def __call__(self, frame: TracedFrame) -> None:
        self.frames.append(frame)
        self._more.set()
        self._more = trio.Event()

    async def until(self, name: str, count: int = 1) -> None:
        while [frame.frame for frame in self.frames].count(name) < count:
            await self._more.wait()

    def told(self, *fields: str, direction: str | None = None) -> list[tuple[Any, ...]]:
        return [
            tuple(getattr(frame, field) for field in fields)
            for frame in self.frames
            if direction in (None, frame.direction)
        ]


@asynccontextmanager
async def tracing(
    target: str,
    ssl_context: ssl.SSLContext | None = None,
    wire: Literal["auto", "v1", "v2"] = "auto",
) -> AsyncGenerator[Seen, None]:
    """A proxy in front of a target."""
    seen = Seen()
    proxy = Proxy(ADDRESS.convert(target, None, None), ssl_context, wire, lambda file: seen)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            seen.address = await nursery.start(proxy.run, seen.address)
            yield seen
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def target_that(
    handle: Callable[[trio.SocketStream], Any],
) -> AsyncGenerator[str, None]:
    """A server that is not ours."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def use(address: Address, config: MuxadoConfig) -> bytes:
    """One echo through whatever listens there."""
    assert address.host is not None
    async with open_muxado_session(address.host, address.port, config=config) as session:
        stream = await session.open_stream()
        await stream.send_all(b"hello")
        await stream.send_eof()
        return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("wire", ["v1", "v2"])
async def test_every_frame_of_both_directions(wire) -> None:
    async with serving(config=MuxadoConfig(heartbeat=None)) as target, tracing(target) as seen:
        assert await use(seen.address, MuxadoConfig(wire=wire, heartbeat=None)) == b"hello"
        await seen.until("ended")
    assert {frame.session for frame in seen.frames} == {1}
    out = seen.told("frame", "stream_id", "length", direction="out")
    assert out[:2] == [("connected", 0, 0), ("version", 0, 0)]
    assert out[2][:2] == ("SYN" if wire == "v1" else "DATA", 3)
    assert sum(length for name, _, length in out if name == "DATA") == 5
    assert out[-3:-2] == [("GOAWAY", 0, 8)]
    assert [name for name, *_ in out[-2:]] == ["eof", "ended"]
    into = seen.told("frame", "stream_id", "length", direction="in")
    assert sum(length for name, _, length in into if name == "DATA") == 5
    assert into[-1][0] == "eof"
    assert ("version", f"the client speaks muxado {wire}") in seen.told("frame", "detail")
    # As in real life: an echo comes after what it is the echo of.
    assert seen.told("direction", "frame").index(("out", "DATA")) < seen.told(
        "direction", "frame"
    ).index(("in", "DATA"))


async def test_tls_to_the_target(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with serving(ssl_context=server_context) as target:
        async with tracing(target, client_context) as seen:
            assert await use(seen.address, MuxadoConfig(heartbeat=None)) == b"hello"
    assert ("in", "DATA", 5) in seen.told("direction", "frame", "length")


async def send_back(stream: trio.SocketStream) -> None:
    """Answer when all has come: half-close has to go on."""
    received = b"".join([chunk async for chunk in stream])
    await stream.send_all(b"HTTP/1.1 " + received)
    await stream.aclose()


async def ask(seen: Seen, *pieces: bytes) -> bytes:
    async with await trio.open_tcp_stream(seen.address.host or "", seen.address.port) as client:
        for piece in pieces:
            await client.send_all(piece)
        await client.send_eof()
        return b"".join([chunk async for chunk in client])


async def test_garbage_goes_on_in_both_directions() -> None:
    async with target_that(send_back) as target, tracing(target) as seen:
        answer = await ask(seen, b"GE", b"T / HTTP/1.1\r\n")
        await seen.until("ended")
    assert answer == b"HTTP/1.1 GET / HTTP/1.1\r\n"
    told = seen.told("direction", "frame", "detail")
    assert [(direction, name) for direction, name, _ in told] == [
        ("out", "connected"),
        ("out", "garbage"),
        ("out", "eof"),
        ("in", "garbage"),
        ("in", "eof"),
        ("out", "ended"),
    ]
    assert "what the client sends begins with 47 45 54 20" in told[1][2]
    assert "what the server sends begins with 48 54 54 50" in told[3][2]


async def test_garbage_after_frames_goes_on() -> None:
    sent = bytes.fromhex("0000000100000003") + b"garbage that is no frame"
    async with target_that(send_back) as target, tracing(target) as seen:
        assert await ask(seen, sent) == b"HTTP/1.1 " + sent
        await seen.until("ended")
    told = seen.told("direction", "frame", "length")
    assert [frame for frame in told if frame[0] == "out"] == [
        ("out", "connected", 0),
        ("out", "version", 0),
        ("out", "SYN", 0),
        ("out", "MALFORMED", 0),
        ("out", "eof", len(sent)),
        ("out", "ended", 0),
    ]


async def test_a_break_goes_on() -> None:
    accepted, heard = trio.Event(), trio.Event()

    async def wait_for_break(stream: trio.SocketStream) -> None:
        async with stream:
            accepted.set()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            heard.set()

    async with target_that(wait_for_break) as target, tracing(target) as seen:
        client = await trio.open_tcp_stream(seen.address.host or "", seen.address.port)
        await accepted.wait()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
        await heard.wait()
        await seen.until("ended")
    name, detail = seen.told("frame", "detail")[-1]
    assert name == "ended"
    assert detail == "broken: Connection reset by peer"


async def test_a_target_that_is_not_there() -> None:
    target = f"127.0.0.1:{free_port()}"
    async with tracing(target) as seen:
        for _ in range(2):  # and the proxy goes on
            assert await ask(seen) == b""
        await seen.until("ended", 2)
    refused = f"no connection to {target}: Connection refused"
    told = seen.told("session", "frame", "detail")
    assert [line for line in told if line[1] == "ended"] == [
        (1, "ended", refused),
        (2, "ended", refused),
    ]


async def test_an_address_that_is_taken() -> None:
    async with serving() as address:
        done = await run_beside("trace", address, "localhost:1")
    assert done.returncode == 1
    assert done.stderr == f"trio-muxado: cannot listen on {address}: Address already in use\n"


# ---- as a process


async def test_the_table_until_ctrl_c() -> None:
    async with serving() as target, tracer_process(target) as (process, address):
        assert process.stdout is not None
        assert process.stderr is not None
        assert await use(address, MuxadoConfig(heartbeat=None)) == b"hello"
        printed = await read_until(process.stdout, b" ended ")
        process.send_signal(signal.SIGINT)
        err = b"".join([chunk async for chunk in process.stderr])
        await process.wait()
    assert (process.returncode, err) == (130, b"interrupted\n")
    head, *lines = printed.decode().splitlines()
    assert head.split() == ["time", "session", "frame", "stream", "bytes", "detail"]
    words = [line.split()[2:6] for line in lines]
    assert ["-->", "SYN", "3", "0"] in words
    assert ["<--", "DATA", "3", "5"] in words
    assert not printed.count(b"\x1b")


async def test_a_text_of_a_peer_that_the_output_cannot_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows a file is none of UTF-8, for one."""
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    snowman = "\N{SNOWMAN}"
    async with (
        serving() as target,
        tracer_process(target, started_by=ordinary_module) as (process, address),
    ):
        assert process.stdout is not None
        assert address.host is not None
        async with open_muxado_session(address.host, address.port) as session:
            await session.goaway(debug=f"caf\xe9 {snowman}".encode())
        printed = await read_until(process.stdout, b" ended ")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert b"caf\xe9 \\u2603" in printed


async def test_a_reader_that_leaves_ends_it() -> None:
    async with serving() as target, tracer_process(target) as (process, address):
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.aclose()
        with pytest.raises((OSError, trio.BrokenResourceError)):
            while True:
                await use(address, MuxadoConfig(heartbeat=None))
        assert b"".join([chunk async for chunk in process.stderr]) == b""
        assert await process.wait() == 1


async def test_a_reader_that_does_not_read_loses_nothing_and_stops_no_ctrl_c() -> None:
    """What is printed waits, and beyond a bound the peers wait as well."""
    count = 0

    async def send_all_the_time(stream: trio.SocketStream) -> None:
        nonlocal count
        credit = bytes.fromhex("0004000400000003") + bytes(4)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(100 * credit)
                count += 1

    async with target_that(send_all_the_time) as target:
        async with tracer_process(target, "--json") as (process, address):
            assert address.host is not None
            before = -1
            client = await trio.open_tcp_stream(address.host, address.port)
            async with client, trio.open_nursery() as nursery:
                nursery.start_soon(read_all, client)
                while not count or before != count:  # until it stands still
                    before = count
                    with trio.move_on_after(0.5):
                        await trio.sleep_forever()
                process.send_signal(signal.SIGINT)
                assert process.stderr is not None
                said = b"".join([chunk async for chunk in process.stderr])
                assert (said, await process.wait()) == (b"interrupted\n", 130)


async def read_all(client: trio.SocketStream) -> None:
    try:
        async for _ in client:
            pass
    except trio.BrokenResourceError:
        pass


# ---- what is seen


def frames_of(
    pieces: list[tuple[Direction, bytes]], wire: Literal["auto", "v1", "v2"] = "auto"
) -> list[tuple[str, str, int, int, str]]:
    frames: list[TracedFrame] = []
    session = SeenSession(1, frames.append, wire)
    for direction, data in pieces:
        session.saw(direction, data)
    return [(f.direction, f.frame, f.stream_id, f.length, f.detail) for f in frames]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_bytes_one_at_a_time_are_the_same_frames(version) -> None:
    """Every first flight of the vectors that a client sends."""
    for entry in read(version)["echo_sessions"]:
        data = b"".join(bytes_of(step, "in") for step in entry["steps"])
        whole = frames_of([("out", data), ("out", b"")], version)
        pieces: list[tuple[Direction, bytes]] = [("out", bytes([byte])) for byte in data]
        if len(data) > 2000:
            continue
        cut = frames_of([*pieces, ("out", b"")], version)
        assert cut == whole, entry["name"]
        assert not [frame for frame in whole if frame[1] in ("MALFORMED", "garbage")], entry["name"]


def test_the_version_is_found_from_either_side() -> None:
    syn, data = bytes.fromhex("0000000100000003"), bytes.fromhex("0000001000000003")
    assert frames_of([("out", syn)])[0][4] == "the client speaks muxado v1"
    assert frames_of([("in", data)])[0][4] == "the server speaks muxado v2"
    both = frames_of([("out", syn), ("in", data)])
    assert [detail for _, name, _, _, detail in both if name == "version"] == [
        "the client speaks muxado v1",
        "the server speaks muxado v2",
    ]
    assert [name for _, name, *_ in both] == ["version", "SYN", "version", "DATA"]


def test_few_bytes_and_an_end_are_garbage() -> None:
    assert [name for _, name, *_ in frames_of([("out", b"ab"), ("out", b"")])] == ["garbage", "eof"]
    assert [name for _, name, *_ in frames_of([("out", b"")])] == ["eof"]


def test_a_goaway_that_announces_what_does_not_come() -> None:
    """Go v1's: frames of streams that are known follow it, and are seen."""
    goaway = bytes.fromhex("0010000600000000" + "00000003" + "00000000")
    sent: list[tuple[Direction, bytes]] = [
        ("out", bytes.fromhex("0000000100000003")),
        ("in", goaway + bytes.fromhex("0001010300000003") + b"x"),
    ]
    assert [(name, stream) for _, name, stream, *_ in frames_of(sent)][1:] == [
        ("SYN", 3),
        ("GOAWAY", 0),
        ("DATA", 3),
    ]
