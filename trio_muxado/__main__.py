"""The command line: ``python -m trio_muxado demo``."""

from __future__ import annotations

import argparse
import random
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NoReturn

import trio

from trio_muxado import (
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    open_muxado_session,
    serve_muxado,
)
from trio_muxado import (
    __doc__ as summary,
)

MAX_STREAMS = 100_000
"""Streams that the demo opens from each side at most: both sides live in one process."""

MAX_PAYLOAD = 32 * 1024
"""Bytes that each stream echoes at most; half of v1's window, so that flow control has work."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2, without the usage in front."""
        self.exit(2, f"{self.prog}: {message}\n")


def _stream_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_STREAMS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_STREAMS}")
    return int(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m trio_muxado", description=summary)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="a server and a client on loopback echo over a thousand streams from each side",
        description="Run a server and a client on loopback, open streams from both sides at once, "
        "send random bytes through each and check that they come back.",
    )
    demo.add_argument(
        "--wire", choices=("v1", "v2"), default="v1", help="the protocol version (v1)"
    )
    demo.add_argument("--tls", action="store_true", help="over TLS, with a certificate of its own")
    demo.add_argument(
        "--streams",
        type=_stream_count,
        default=1000,
        metavar="N",
        help="streams from each side (1000)",
    )
    return parser.parse_args(arguments)


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
        """Run server and client, and call ``tick`` forevery stream that is done."""
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


def _run_demo(demo: Demo) -> None:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    console = Console()
    with Progress(console=console) as progress:
        bar = progress.add_task("streams", total=2 * demo.streams)
        trio.run(demo.run, partial(progress.advance, bar))
    table = Table(show_header=False)
    for row in demo.rows():
        table.add_row(*row)
    console.print(table)
    if demo.tally.changed:
        sys.exit(f"{demo.tally.changed} streams did not come back as they were sent")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad arguments end in one line and exit code 2."""
    options = _parse(arguments)
    try:
        _run_demo(Demo(options.streams, options.wire, tls=options.tls))
    except ModuleNotFoundError as missing:
        sys.exit(f"the demo needs {missing.name}: python -m pip install 'trio_muxado[demo]'")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
