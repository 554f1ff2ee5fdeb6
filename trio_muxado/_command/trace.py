"""``trio-muxado trace``: a proxy between two peers that prints every frame."""

from __future__ import annotations

import itertools
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal, TextIO, cast

import click
import trio

from trio_muxado import JsonLinesTracer, TableTracer, TracedFrame, forward

from . import network
from .ending import Failed, in_words, run, tell
from .options import ADDRESS, LISTEN_ADDRESS, Address, argument, tls_client_options, wire_option
from .seen import Direction, SeenSession

CONNECT_TIMEOUT = 30.0
"""Seconds for a connection to the target, as ``MuxadoConfig.handshake_timeout``."""

LAST_WORDS = 0.5
"""Seconds for what the target may still send over TLS when the client has ended its direction."""

MAX_UNWRITTEN = 1024 * 1024
"""Characters that may wait to be printed.  Beyond, what is traced has to wait as well."""


class Lines:
    """A text file that is written to by a thread: whoever reads slowly must not stop the loop."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._size = 0
        self._more = trio.Event()
        self._room = trio.Event()
        self._in_thread = False

    def write(self, text: str) -> int:
        """Print this soon."""
        self._waiting.append(text)
        self._size += len(text)
        self._more.set()
        return len(text)

    async def room(self) -> None:
        """Wait until not too much waits."""
        while self._size > MAX_UNWRITTEN:
            await self._room.wait()

    def _take(self) -> str:
        text = "".join(self._waiting)
        self._waiting.clear()
        return text

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            self._more = trio.Event()
            text = self._take()
            self._in_thread = True
            await trio.to_thread.run_sync(_print, text, abandon_on_cancel=True)
            self._in_thread = False
            self._size -= len(text)
            self._room.set()
            self._room = trio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator[Lines, None]:
        """Lines that are printed as long as the body runs."""
        lines = cls()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lines._run)
                yield lines
                nursery.cancel_scope.cancel()
        finally:
            if not lines._in_thread:  # else nobody may be reading
                _print(lines._take())


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class _Tapped(trio.abc.HalfCloseableStream):
    """A stream of which all that is received is seen."""

    def __init__(
        self, inner: trio.abc.Stream, direction: Direction, session: SeenSession, lines: Lines
    ) -> None:
        self.transport_stream = inner  # `forward` looks for what it has to break
        self._direction: Direction = direction
        self._session = session
        self._lines = lines
        self._receiving = trio.CancelScope()
        self._ends = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        with self._receiving:
            data = await self.transport_stream.receive_some(max_bytes)
        if self._receiving.cancelled_caught:
            self._session.note("closed", "the server did not end its direction", self._direction)
            return b""
        self._receiving = trio.CancelScope()
        if self._ends:
            self._ends = True
            self._receiving.deadline = trio.current_time() + LAST_WORDS
        self._session.saw(self._direction, data)
        await self._lines.room()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)

    async def send_eof(self) -> None:
        if isinstance(self.transport_stream, trio.abc.HalfCloseableStream):
            await self.transport_stream.send_eof()
        else:
            # TLS has no half-close.  But who ends the transport of a session has nothing to say or
            # to hear any more: what is on its way may come, and then the whole of it is closed.
            self._ends = True
            self._receiving.deadline = trio.current_time() + LAST_WORDS

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.transport_stream.aclose()


class Proxy:
    """Takes connections, makes one to the target for each, and tells what goes over them."""

    def __init__(
        self,
        target: Address,
        ssl_context: ssl.SSLContext | None,
        wire: Literal["auto", "v1", "v2"],
        make_tracer: Callable[[TextIO], Callable[[TracedFrame], object]],
    ) -> None:
        self._target = target
        self._ssl_context = ssl_context
        self._wire: Literal["auto", "v1", "v2"] = wire
        self._make_tracer = make_tracer
        self._numbers = itertools.count(1)

    async def run(
        self,
        address: Address,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until it is cancelled; it has started with where it listens."""
        listeners, here = await network.listen(address)
        tell(f"listening on {here}, in front of {self._target}; Ctrl-C ends it")
        async with Lines.open() as lines:
            tracer = self._make_tracer(cast("TextIO", lines))  # as far as a tracer needs one

            async def handle(client: trio.SocketStream) -> None:
                number = next(self._numbers)
                session = SeenSession(number, tracer, self._wire)
                await self._join(client, session, lines)

            task_status.started(here)
            await trio.serve_listeners(handle, listeners)

    async def _join(self, client: trio.SocketStream, session: SeenSession, lines: Lines) -> None:
        try:
            peer = client.socket.getpeername()
            session.note("connected", f"from {Address(*peer[:2])} to {self._target}")
            server = await network.connect(self._target, self._ssl_context, CONNECT_TIMEOUT)
        except (Failed, OSError) as error:
            await trio.aclose_forcefully(client)
            reason = error.message if isinstance(error, Failed) else in_words(error)
            session.note("ended", reason)
            return
        result = await forward(
            _Tapped(client, "out", session, lines), _Tapped(server, "in", session, lines)
        )
        if result.error is not None:
            session.note("ended", f"broken: {in_words(result.error)}")
        else:
            session.note("ended", "by both sides")


@click.command("trace")
@argument("listen", type=LISTEN_ADDRESS)
@argument("target", type=ADDRESS)
@click.option("--json", is_flag=True, help="A line of JSON for each frame.")
@wire_option("goes by the first bytes of each side")
@tls_client_options
def command(
    listen: Address,
    target: Address,
    json: bool,
    wire: Literal["auto", "v1", "v2"],
    ssl_context: ssl.SSLContext | None,
) -> None:
    """Print every frame between two peers.

    Listens on LISTEN, and connects to TARGET for each client. Passes on what either side sends,
    unchanged and at once, and the end or the break of either direction. TLS is for the connection
    to TARGET.

    An arrow to the right is what the client sends, an arrow to the left what it receives. A name in
    lower case is an event, not a frame. Bytes that are not muxado are passed on as well, and
    reported.

    \b
    Examples:
        trio-muxado trace localhost:8766 localhost:8765
        trio-muxado trace --json :8766 [::1]:8765 > frames.jsonl
        trio-muxado trace --ca ca.pem localhost:8766 example.org:443
    """
    proxy = Proxy(target, ssl_context, wire, JsonLinesTracer if json else TableTracer)
    run(proxy.run, listen)
