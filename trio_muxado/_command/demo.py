"""``trio-muxado demo``: a server and a client in one process, as a first look at the library."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import click
import trio

from trio_muxado import (
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    open_muxado_session,
    serve_muxado,
)

from .ending import Failed, run
from .options import wire_option
from .output import print_table, progress

MAX_STREAMS = 100_000
"""Streams that the demo opens from each side at most: both sides live in one process."""

MAX_PAYLOAD = 32 * 1024
"""Bytes that each stream echoes at most; half of v1's window, so that flow control has work."""


@dataclass
class Tally:
    """What the demo counts, both sides together."""

    streams: int = 0
    echoed: int = 0  # bytes
    changed: int = 0  # streams that did not come back as they were sent
    seconds: float = 0.0
    round_trip: float = 0.0


class Demo:
    """Echoes over many streams of one session, opened from both sides at once."""

    def __init__(self, streams: int, wire: Literal["v1", "v2"], *, tls: bool) -> None:
        self.streams = streams
        self.tally: Tally = Tally()
        self.tls = tls
        # Both sides are ours and all streams are meant, so nothing is held back; and v2 has
        # heartbeats in typed sessions only.
        self.config: MuxadoConfig = MuxadoConfig(
            wire=wire,
            typed=True,
            max_outbound_streams=None,
            max_inbound_streams=streams,
            accept_backlog=streams,
        )

    async def run(self, tick: Callable[[], None]) -> None:
        """Run server and client, and call ``tick`` for every stream that is done."""
        server_tls, client_tls = _tls_contexts() if self.tls else (None, None)
        async with trio.open_nursery() as nursery:
            start_server = partial(
                serve_muxado,
                partial(self._serve, tick=tick),
                0,
                host="127.0.0.1",
                ssl_context=server_tls,
                config=self.config,
            )
            listeners: list[Any] = await nursery.start(start_server)
            port = getattr(listeners[0], "transport_listener", listeners[0]).socket.getsockname()[1]
            start = trio.current_time()
            async with open_muxado_session(
                "127.0.0.1", port, ssl_context=client_tls, config=self.config
            ) as session:
                await self._exchange(session, tick=tick)
                self.tally.seconds = trio.current_time() - start
                self.tally.round_trip = await session.ping()
            nursery.cancel_scope.cancel()

    async def _serve(self, session: MuxadoSession, *, tick: Callable[[], None]) -> None:
        await self._exchange(session, tick=tick)
        await session.wait_closed()  # the client has a ping to measure

    async def _exchange(self, session: MuxadoSession, *, tick: Callable[[], None]) -> None:
        """What each side does: echo for the other, and have its own streams echoed."""
        served = trio.Event()
        echoed = 0

        async def echo(stream: MuxadoStream) -> None:
            nonlocal echoed
            async for chunk in stream:
                await stream.send_all(chunk)
            await stream.send_eof()
            echoed += 1
            if echoed == self.streams:
                served.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.serve_streams, echo)
            async with trio.open_nursery() as requests:
                for number in range(self.streams):
                    requests.start_soon(self._have_echoed, session, number, tick)
            await served.wait()
            nursery.cancel_scope.cancel()

    async def _have_echoed(
        self, session: MuxadoSession, number: int, tick: Callable[[], None]
    ) -> None:
        payload = random.Random(number).randbytes(1 + number * 7919 % MAX_PAYLOAD)
        async with await session.open_stream() as stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._send, stream, payload)
            received = b"".join([chunk async for chunk in stream])
        self.tally.changed += received != payload
        self.tally.streams += 1
        self.tally.echoed += len(received)
        tick()

    @staticmethod
    async def _send(stream: MuxadoStream, payload: bytes) -> None:
        await stream.send_all(payload)
        await stream.send_eof()

    def rows(self) -> list[tuple[str, str]]:
        """The tally, for a table."""
        tally = self.tally
        rate = 2 * tally.echoed / tally.seconds / 1e6
        return [
            ("wire", f"{self.config.wire} over {'TLS' if self.tls else 'TCP'}"),
            ("streams", f"{tally.streams:,} ({self.streams:,} from each side)"),
            ("bytes", f"{2 * tally.echoed:,} there and back, all of them checked"),
            ("rate", f"{tally.streams / tally.seconds:,.0f} streams/s, {rate:,.1f} MB/s"),
            ("round trip", f"{tally.round_trip * 1e3:.3f} ms (heartbeat)"),
        ]


def _tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A certificate authority for this one run, and the contexts of both sides."""
    import trustme

    authority: Any = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@click.command("demo")
@wire_option()
@click.option("--tls", is_flag=True, help="Run over TLS, with a certificate of its own.")
@click.option(
    "--streams",
    type=click.IntRange(1, MAX_STREAMS),
    metavar="N",
    default=1000,
    help="Streams that each side opens.",
)
def command(wire: Literal["v1", "v2"], tls: bool, streams: int) -> None:
    """Echo over a thousand streams from each side.

    Runs a server and a client on loopback, opens streams from both sides at once, sends random
    bytes through each and checks that they come back.

    \b
    Examples:
        trio-muxado demo
        trio-muxado demo --wire v2 --tls --streams 50
    """
    demo = Demo(streams, wire, tls=tls)
    with progress("streams", 2 * streams) as tick:
        run(demo.run, tick)
    print_table(demo.rows())
    if demo.tally.changed:
        raise Failed(f"{demo.tally.changed} streams did not come back as they were sent")
