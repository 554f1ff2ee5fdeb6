"""What every Python contender shares: the exchange, the works and the measuring.

A contender is two processes. The server prints ``{"port": N}`` and serves until its
standard input ends; the client does one work and prints one line of JSON. The first
byte that a stream carries says what the server is to do with it:

    r   a request: read to the end, answer 64 bytes, end
    b   bulk: read to the end, answer how many bytes came, end
    k   the same, but it reads 64 KiB at a time, not 256 (Python only)
    i   idle: answer one byte, then wait
    u   usage: answer the CPU time that the process has spent
    m   memory: the same, and the memory that it holds

Nothing here depends on an event loop: what loops differ in is ``together``, chosen in
`main`. The Go and Rust programs beside this file speak the same exchange.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

HOST = "127.0.0.1"
REQUEST = b"r" * 64
RESPONSE = b"a" * 64
CHUNK = b"b" * 65536
CHUNK_OF_SMALL_READS = b"k" * len(CHUNK)
RECEIVE = 256 * 1024
SMALL = 512  # a read that expects a request: no large buffer for 64 bytes
OPEN_AT_ONCE = 50  # when idle streams are set up: below every peer's backlog

Work = Callable[[], Awaitable[object]]
Together = Callable[[Sequence[Work]], Awaitable[None]]


class ByteStream(Protocol):
    """A stream in trio's words; contenders of another kind adapt to it."""

    async def send_all(self, data: bytes) -> None: ...
    async def send_eof(self) -> None: ...
    async def receive_some(self, max_bytes: int) -> bytes: ...
    async def aclose(self) -> None: ...


class Peer(Protocol):
    """A client of one contender: what a work asks of it."""

    async def request(self) -> None:
        """Open, 64 bytes, end; 64 bytes back, end."""

    async def bulk(self, more: Callable[[], bool], chunk: bytes = CHUNK) -> int:
        """Send ``chunk``, and again while ``more()``; return how many bytes the server counted."""

    async def hold(self) -> None:
        """Open a stream that the server has seen, and leave it idle."""

    async def report(self, kind: bytes) -> dict[str, float]:
        """What `usage` says in the server's process."""


def usage(kind: bytes = b"u") -> dict[str, float]:
    """CPU seconds of this process and, for ``m``, the bytes that it holds."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    report: dict[str, float] = {"cpu": spent.ru_utime + spent.ru_stime}
    if kind == b"m":
        gc.collect()
        pages = Path("/proc/self/statm").read_text().split()[1]
        report["rss"] = int(pages) * resource.getpagesize()
    return report


def usage_text(kind: bytes) -> bytes:
    return json.dumps(usage(kind)).encode()


async def answer(stream: ByteStream) -> None:
    """The server's side of one stream; its end is left to whoever serves, in the library's way."""
    first = await stream.receive_some(SMALL)
    kind = first[:1]
    reply = RESPONSE
    if kind == b"r":
        while await stream.receive_some(SMALL):
            pass
    elif kind in (b"b", b"k"):
        total, most = len(first), RECEIVE if kind == b"b" else len(CHUNK)
        while chunk := await stream.receive_some(most):
            total += len(chunk)
        reply = str(total).encode()
    elif kind == b"i":
        await stream.send_all(kind)
        while await stream.receive_some(SMALL):
            pass
    else:
        reply = usage_text(kind)
    if kind != b"i":
        await stream.send_all(reply)


async def answer_and_close(stream: ByteStream) -> None:
    """The same for a library that leaves the closing to the handler."""
    await answer(stream)
    await stream.aclose()


class StreamPeer:
    """A `Peer` for everything that offers streams of bytes."""

    def __init__(self, open_stream: Callable[[], Awaitable[ByteStream]]) -> None:
        self._open = open_stream
        self._held: list[ByteStream] = []

    async def _exchange(self, payload: bytes) -> bytes:
        stream = await self._open()
        await stream.send_all(payload)
        await stream.send_eof()
        got = b""
        while chunk := await stream.receive_some(SMALL):
            got += chunk
        await stream.aclose()
        return got

    async def request(self) -> None:
        check(await self._exchange(REQUEST))

    async def report(self, kind: bytes) -> dict[str, float]:
        return parse_report(await self._exchange(kind))

    async def bulk(self, more: Callable[[], bool], chunk: bytes = CHUNK) -> int:
        stream = await self._open()
        await stream.send_all(chunk)
        while more():
            await stream.send_all(chunk)
        await stream.send_eof()
        text = b""
        while piece := await stream.receive_some(SMALL):
            text += piece
        await stream.aclose()
        return int(text)

    async def hold(self) -> None:
        stream = await self._open()
        await stream.send_all(b"i")
        check_held(await stream.receive_some(SMALL))
        self._held.append(stream)


def check(got: bytes) -> None:
    if len(got) != len(RESPONSE):
        raise SystemExit(f"an answer of {len(got)} bytes")


def check_held(got: bytes) -> None:
    if got != b"i":
        raise SystemExit("an idle stream was refused")


def parse_report(text: bytes) -> dict[str, float]:
    report: dict[str, float] = json.loads(text)
    return report


# ---------------------------------------------------------------- works


async def requests(
    peer: Peer, together: Together, at_once: int, seconds: float
) -> dict[str, float]:
    """Keep ``at_once`` workers busy, first to warm up, then measured."""
    clock = time.perf_counter
    took: list[float] = []
    stop = 0.0

    async def worker() -> None:
        now = clock()
        while now < stop:
            await peer.request()
            after = clock()
            took.append(after - now)
            now = after

    workers = [worker] * at_once
    stop = clock() + seconds / 4
    await together(workers)
    took.clear()
    there, here, start = await peer.report(b"u"), usage(), clock()
    stop = start + seconds
    await together(workers)
    elapsed, spent = clock() - start, usage()["cpu"] - here["cpu"]
    after = await peer.report(b"u")
    if not took:
        raise SystemExit("no request ended in time")
    took.sort()
    return {
        "requests": len(took),
        "seconds": elapsed,
        "at_once": at_once,
        "p50": took[len(took) // 2],
        "p99": took[len(took) * 99 // 100],
        "client_cpu": spent,
        "server_cpu": after["cpu"] - there["cpu"],
    }


async def hold(peer: Peer, together: Together, streams: int) -> None:
    left = iter(range(streams))

    async def opener() -> None:
        for _ in left:
            await peer.hold()

    await together([opener] * min(streams, OPEN_AT_ONCE))


async def memory(peer: Peer, together: Together, idle: int) -> dict[str, float]:
    if idle > 1:  # what only the first streams cost is not a stream's memory
        await hold(peer, together, 20)
    there, here = await peer.report(b"m"), usage(b"m")
    await hold(peer, together, idle)
    here_after, there_after = usage(b"m"), await peer.report(b"m")
    return {
        "client_memory": (here_after["rss"] - here["rss"]) / idle,
        "server_memory": (there_after["rss"] - there["rss"]) / idle,
    }


async def idle(peer: Peer, together: Together, args: argparse.Namespace) -> dict[str, float]:
    """The memory of what is idle and, if it is watched, the cores that it takes on each side."""
    held = await memory(peer, together, args.idle)
    if args.watch:
        import trio  # all who have this work are on trio

        start, there, here = time.perf_counter(), await peer.report(b"u"), usage()
        await trio.sleep(args.watch)
        after, there_after = usage(), await peer.report(b"u")
        elapsed = time.perf_counter() - start
        held["client_idle_cpu"] = (after["cpu"] - here["cpu"]) / elapsed
        held["server_idle_cpu"] = (there_after["cpu"] - there["cpu"]) / elapsed
    return held


async def beside_idle(peer: Peer, together: Together, args: argparse.Namespace) -> dict[str, float]:
    held = await memory(peer, together, args.idle)
    return held | await requests(peer, together, args.at_once, args.seconds)


async def bulk(peer: Peer, together: Together, args: argparse.Namespace) -> dict[str, float]:
    clock = time.perf_counter
    there, here, start = await peer.report(b"u"), usage(), clock()
    stop, budget, total = start + args.seconds, args.bytes, 0

    def more() -> bool:
        nonlocal budget
        budget -= len(CHUNK)
        return budget >= 0 and clock() < stop

    async def one() -> None:
        nonlocal total
        count = await peer.bulk(more, CHUNK_OF_SMALL_READS if args.small_reads else CHUNK)
        total += count

    await together([one] * args.streams)
    elapsed, spent = clock() - start, usage()["cpu"] - here["cpu"]
    after = await peer.report(b"u")
    return {
        "bytes": total,
        "seconds": elapsed,
        "streams": args.streams,
        "client_cpu": spent,
        "server_cpu": after["cpu"] - there["cpu"],
    }


async def beside_bulk(peer: Peer, together: Together, args: argparse.Namespace) -> dict[str, float]:
    start, running = time.perf_counter(), True
    result: dict[str, float] = {}

    async def load() -> None:
        result["beside_bytes"] = await peer.bulk(lambda: running)
        result["beside_seconds"] = time.perf_counter() - start

    async def measured() -> None:
        nonlocal running
        result.update(await requests(peer, together, args.at_once, args.seconds))
        running = False

    await together([load, measured])
    return result


async def run(peer: Peer, together: Together, args: argparse.Namespace) -> dict[str, float]:
    if args.work == "a" and args.idle:
        return await beside_idle(peer, together, args)
    if args.work == "a":
        return await requests(peer, together, args.at_once, args.seconds)
    if args.work == "b":
        return await bulk(peer, together, args)
    if args.work == "m":
        return await idle(peer, together, args)
    return await beside_bulk(peer, together, args)


# ---------------------------------------------------------------- processes


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("side", choices=["server", "client", "steps"])
    parser.add_argument("work", nargs="?", choices=["a", "b", "f", "m"], default="a")
    parser.add_argument("--port", type=int, default=0, help="where the server listens")
    parser.add_argument("--at-once", type=int, default=64, help="requests at once")
    parser.add_argument("--streams", type=int, default=1, help="bulk streams at once")
    parser.add_argument("--small-reads", action="store_true", help="bulk, read 64 KiB at a time")
    parser.add_argument("--idle", type=int, default=0, help="idle streams that live beside")
    parser.add_argument("--sessions", action="store_true", help="sessions instead of streams")
    parser.add_argument("--watch", type=float, default=0, help="seconds to look at what is idle")
    parser.add_argument("--seconds", type=float, default=2, help="how long to measure")
    parser.add_argument("--bytes", type=int, default=1 << 30, help="how much bulk at most")
    parser.add_argument("--cert", help="serve TLS with this PEM file")
    parser.add_argument("--ca", help="speak TLS, trusting this PEM file")
    return parser


def server_context(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.cert)
    return context


def client_context(args: argparse.Namespace) -> ssl.SSLContext | None:
    return None if args.ca is None else ssl.create_default_context(cafile=args.ca)


def listening(port: int) -> None:
    """Tell the harness where we listen, and end when it closes our standard input."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    print(json.dumps({"port": port}), flush=True)


async def _together_asyncio(works: Sequence[Work]) -> None:
    await asyncio.gather(*(work() for work in works))


async def together_trio(works: Sequence[Work]) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(work)


def main(
    serve: Callable[[argparse.Namespace], Awaitable[None]],
    connect: Callable[[argparse.Namespace], AbstractAsyncContextManager[Peer]],
    *,
    loop: str = "trio",
    stay: Callable[[argparse.Namespace], Awaitable[None]] | None = None,
    parser: argparse.ArgumentParser | None = None,
) -> None:
    """Be one side of a contender, as the command line says.

    ``stay``, where a contender has it, is a client that does one work after the other.
    """
    args = (parser or arguments()).parse_args()
    together = together_trio if loop == "trio" else _together_asyncio

    async def client() -> None:
        async with connect(args) as peer:
            print(json.dumps(await run(peer, together, args)), flush=True)
            os._exit(0)  # how long a library takes to say goodbye is not measured

    async def server() -> None:
        await serve(args)

    async def client_of_many_works() -> None:
        if stay is None:
            raise SystemExit("this contender's client does one work and ends")
        await stay(args)

    sides = {"server": server, "client": client, "steps": client_of_many_works}
    side: Callable[[], Any] = sides[args.side]
    if loop == "trio":
        import trio

        trio.run(side)
    else:
        asyncio.run(side())
