"""Where one connection for everything is the wrong choice: `python -m benchmarks.lossy`.

Conversations over links that lose packets, once as streams of one session and once with a
connection for each. The links are those of `trio_muxado.testing`, on a clock that jumps, so a run
takes seconds and is the same each time. What a lost packet does is modelled: TCP delivers in order,
so what has arrived behind it waits until it has been sent again, a round trip later. Congestion
control is not modelled: a real connection also slows down for a while.

    python -m benchmarks.lossy                                           # the tables
    python -m benchmarks.lossy --json docs/lossy.json --page             # and into docs/which.md
    python -m benchmarks.lossy --page --redraw --json docs/lossy.json    # from an earlier run
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from trio_muxado import MuxadoConfig, client_session, server_session
from trio_muxado.testing import Link

from ._blocks import Page
from ._versions import head

ROOT = Path(__file__).parents[1]

ROUND_TRIP = 0.05
BANDWIDTH = 10_000_000
PACKET = 1448  # bytes of a TCP segment on Ethernet
CONVERSATIONS = 20
REQUESTS = 600  # of each conversation
PAUSE = 0.1
LOSSES = (0.0, 0.001, 0.01, 0.03)
PAYLOADS = (64 * 1024, 1_000_000, 10_000_000)
SEED = 1

Ways = dict[str, MuxadoConfig | None]
WAYS: Ways = {
    "one session, v1": MuxadoConfig(wire="v1"),
    "one session, v2": MuxadoConfig(wire="v2"),
    "a connection each": None,
}


class Lossy(trio.abc.HalfCloseableStream):
    """A side of a link on which packets get lost on their way to it."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, loss: float, seed: int) -> None:
        self._stream = stream
        self._loss = loss
        self._random = random.Random(seed)
        self._ready_at = -math.inf

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What arrives next; later if it was lost, or stands behind something that was."""
        data = bytes(await self._stream.receive_some(max_bytes))
        for _ in range(math.ceil(len(data) / PACKET)):
            if self._random.random() < self._loss:
                self._ready_at = trio.current_time() + ROUND_TRIP
        await trio.sleep_until(max(self._ready_at, trio.current_time()))
        return data


def lossy_link(loss: float, seed: int) -> tuple[Lossy, Lossy]:
    link = Link(latency=ROUND_TRIP / 2, bandwidth=BANDWIDTH)
    return Lossy(link.client, loss, seed), Lossy(link.server, loss, seed + 1_000_000)


Open = Callable[[], Awaitable[trio.abc.HalfCloseableStream]]


@asynccontextmanager
async def peer(
    way: MuxadoConfig | None,
    handler: Callable[[trio.abc.HalfCloseableStream], Awaitable[object]],
    loss: float,
) -> AsyncGenerator[Open, None]:
    """Give what opens a stream, or a connection, to a peer that runs the handler for each."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        if way is None:
            seeds = iter(range(SEED, 10_000))

            async def connect() -> trio.abc.HalfCloseableStream:
                await trio.lowlevel.checkpoint()
                ours, theirs = lossy_link(loss, next(seeds))
                nursery.start_soon(handler, theirs)
                return ours

            yield connect
        else:
            ours, theirs = lossy_link(loss, SEED)
            server = await stack.enter_async_context(server_session(theirs, config=way))
            client = await stack.enter_async_context(client_session(ours, config=way))
            nursery.start_soon(server.serve_streams, handler)
            yield client.open_stream
        nursery.cancel_scope.cancel()


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def converse(way: MuxadoConfig | None, loss: float, requests: int) -> dict[str, float]:
    """Conversations that ask something small ten times a second; how long an answer takes."""
    latencies: list[float] = []

    async def conversation(open_stream: Open, number: int) -> None:
        await trio.sleep(PAUSE * number / CONVERSATIONS)
        stream = await open_stream()
        for _ in range(requests):
            start = trio.current_time()
            await stream.send_all(b"q" * 100)
            received = 0
            while received < 100:
                received += len(await stream.receive_some(100 - received))
            latencies.append(trio.current_time() - start)
            await trio.sleep(max(0.0, start + PAUSE - trio.current_time()))

    async with peer(way, echo, loss) as open_stream, trio.open_nursery() as nursery:
        for number in range(CONVERSATIONS):
            nursery.start_soon(conversation, open_stream, number)
    centiles = statistics.quantiles(latencies, n=100)
    late = sum(latency > 1.5 * ROUND_TRIP for latency in latencies) / len(latencies)
    return {"median": centiles[49], "99th": centiles[98], "late": late}


async def upload(way: MuxadoConfig | None, size: int) -> float:
    """Seconds until the other side has read all of one payload, on a link without loss."""
    done = trio.Event()

    async def swallow(stream: trio.abc.HalfCloseableStream) -> None:
        async for _ in stream:
            pass
        done.set()

    async with peer(way, swallow, 0) as open_stream:
        stream = await open_stream()
        start = trio.current_time()
        await stream.send_all(bytes(size))
        await stream.send_eof()
        await done.wait()
        return trio.current_time() - start


def in_virtual_time(function: Callable[..., Awaitable[Any]], *args: object) -> Any:
    return trio.run(function, *args, clock=MockClock(autojump_threshold=0))


def measure(requests: int = REQUESTS) -> dict[str, Any]:
    """Everything; the same each time, except for the order in which trio runs tasks."""
    commit, changed = head()
    return {
        "commit": commit,
        "changed": changed,
        "round_trip": ROUND_TRIP,
        "bandwidth": BANDWIDTH,
        "conversations": {
            name: {str(loss): in_virtual_time(converse, way, loss, requests) for loss in LOSSES}
            for name, way in WAYS.items()
        },
        "payloads": {
            name: {str(size): in_virtual_time(upload, way, size) for size in PAYLOADS}
            for name, way in WAYS.items()
        },
    }


# ---- tables


def table(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(document: dict[str, Any]) -> dict[str, str]:
    talks, payloads = document["conversations"], document["payloads"]
    losses = [float(loss) for loss in next(iter(talks.values()))]
    sizes = [int(size) for size in next(iter(payloads.values()))]
    late = [["lost packets", *(f"{loss * 100:g} %" for loss in losses)]]
    tail = [["lost packets", *(f"{loss * 100:g} %" for loss in losses)]]
    for name, of in talks.items():
        late.append([name, *(f"{result['late'] * 100:.1f} %" for result in of.values())])
        tail.append([name, *(f"{result['99th'] * 1000:.0f} ms" for result in of.values())])
    bulk = [["one payload of", *(f"{size / 1000:,.0f} KB" for size in sizes)]]
    for name, seconds in payloads.items():
        bulk.append([name, *(f"{value * 1000:,.0f} ms" for value in seconds.values())])
    commit = f"Commit {document['commit'][:10]}.\n"
    return {"late": table(late), "tail": table(tail), "bulk": table(bulk), "commit": commit}


PAGE = Page(ROOT / "docs" / "which.md", "lossy", tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    PAGE.add_options(parser)
    PAGE.publish(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
