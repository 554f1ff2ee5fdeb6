"""Sessions in pairs, and what a test does with their streams."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import MuxadoSession, MuxadoStream, client_session, server_session

from .kinds import Kind
from .transports import Pair


@asynccontextmanager
async def session_pair(
    kind: Kind,
    *,
    transports: Pair | None = None,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    **choices: Any,
) -> AsyncGenerator[tuple[MuxadoSession, MuxadoSession], None]:
    """A client's and a server's session that talk to each other.

    ``choices`` go into both configurations, ``client`` and ``server`` into one of them.  The
    server detects the wire.
    """
    near, far = transports or memory_stream_pair()
    client_config = kind.config(**choices, **(client or {}))
    server_config = kind.config(**{"wire": "auto", **choices, **(server or {})})
    async with client_session(near, config=client_config) as one:
        async with server_session(far, config=server_config) as other:
            yield one, other


@asynccontextmanager
async def stream_pair(
    kind: Kind, **choices: Any
) -> AsyncGenerator[tuple[MuxadoStream, MuxadoStream], None]:
    """The two ends of one stream, which the client opened, in sessions of their own."""
    async with session_pair(kind, **choices) as (client, server):
        near = await client.open_stream()
        yield near, await server.accept_stream()


def number_of(session: MuxadoSession) -> int:
    """The number by which logs tell sessions apart."""
    found = re.match(r"<MuxadoSession (\d+) ", repr(session))
    assert found is not None
    return int(found[1])


async def fill(stream: trio.abc.SendStream) -> None:
    """Send until nothing more is taken; how much had been accepted before is not told."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                while True:
                    await stream.send_all(bytes(16384))

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            scope.cancel()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end."""
    received = bytearray()
    while chunk := await stream.receive_some():
        received += chunk
    return bytes(received)


async def read_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = await stream.receive_some(size - len(received))
        assert chunk, f"the stream ended after {len(received)} of {size} bytes"
        received += chunk
    return bytes(received)


async def waits_of(
    near: trio.abc.SendStream, far: trio.abc.ReceiveStream, *, times: int, pause: float
) -> list[float]:
    """Seconds that short messages were on their way, each sent at another place of a batch."""
    waits: list[float] = []
    for number in range(times):
        await trio.sleep(pause * (1 + number % 7))
        start = trio.current_time()
        await near.send_all(b"now")
        assert await far.receive_some() == b"now"
        waits.append(trio.current_time() - start)
    return waits


async def echo(stream: trio.abc.Stream) -> None:
    """A handler that sends everything back."""
    while chunk := await stream.receive_some():
        await stream.send_all(chunk)
