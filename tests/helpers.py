"""Sessions in pairs, peers that a test plays by hand, and transports with bad habits.

Everything here is deterministic: nothing sleeps, nothing polls, and what is random has a seed.
"""

import random
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from trio_muxado import (
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    client_session,
    server_session,
)
from trio_muxado._protocol.frames import Frame
from trio_muxado._protocol.wire import WIRES, Decoder, Wire

Pair = tuple[trio.abc.Stream, trio.abc.Stream]


class Kind(NamedTuple):
    """What can be spoken: a generation of the wire, with types or without."""

    name: str
    wire: str
    typed: bool = False

    @property
    def window(self) -> int:
        """Bytes that may be sent on a new stream before anybody reads; a type takes four."""
        return WIRES[self.wire].initial_window - (4 if self.typed else 0)

    def config(self, **choices: Any) -> MuxadoConfig:
        return MuxadoConfig(**{"wire": self.wire, "typed": self.typed, **choices})


V1 = Kind("v1", "v1")
V2 = Kind("v2", "v2")
V2_TYPED = Kind("v2-typed", "v2", typed=True)

each_wire = pytest.mark.parametrize("kind", [V1, V2], ids=lambda kind: kind.name)
each_kind = pytest.mark.parametrize("kind", [V1, V2, V2_TYPED], ids=lambda kind: kind.name)
with_types = pytest.mark.parametrize("kind", [V1, V2_TYPED], ids=lambda kind: kind.name)
"""Both kinds that know the types of streams, and so heartbeats and extensions."""


SEND_BUFFER = 64 * 1024

STEADY: dict[str, Any] = {"send_buffer": SEND_BUFFER, "max_receive_window": 1}
"""Choices for a test that counts bytes: windows stay as large as they begin, buffers are small."""


# ---- sessions


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


# ---- a peer that is played by the test


class RawPeer:
    """The other end of a transport: the test says what it sends, and sees what comes.

    Nothing moves by itself, so the test decides what arrives together with what.
    """

    def __init__(self, kind: Kind) -> None:
        self._outlet = MemorySendStream()
        self._inlet = MemoryReceiveStream()
        self.transport = trio.StapledStream(self._outlet, self._inlet)
        """What the session under test gets."""
        self.wire: Wire = WIRES[kind.wire]
        self._decoder = Decoder(self.wire, lambda stream_id, opening: True)
        self.raw = bytearray()
        """All that the session has sent so far."""

    def send(self, *frames: bytes) -> None:
        """Let bytes arrive at the session, all at once."""
        self._inlet.put_data(b"".join(frames))

    def end(self) -> None:
        """Let the transport end."""
        self._inlet.put_eof()

    @property
    def has_ended(self) -> bool:
        """The session has ended its direction (and what it sent before was looked at)."""
        try:
            return self._outlet.get_data_nowait() == b""
        except trio.WouldBlock:
            return False

    async def frames(self) -> list[Frame]:
        """All frames that came since the last call, once nothing moves any more."""
        await wait_all_tasks_blocked()
        try:
            data = self._outlet.get_data_nowait()
        except trio.WouldBlock:
            return []
        self.raw += data
        return self._decoder.feed(bytes(data))

    def forget(self) -> None:
        """Throw away what the session has sent."""
        with suppress(trio.WouldBlock):
            self._outlet.get_data_nowait()

    # ---- frames, as bytes

    def syn(self, stream_id: int, stream_type: int | None = None, priority: int = 0) -> bytes:
        """Open a stream; on v2 with a type (0, too) its four bytes follow, as in typed sessions."""
        if self.wire.has_syn_frame:
            return self.wire.syn(stream_id, priority, stream_type or 0)
        body = b"" if stream_type is None else stream_type.to_bytes(4, "big")
        return self.wire.data_header(stream_id, len(body), fin=False, syn=True) + body

    def data(self, stream_id: int, payload: bytes = b"", *, fin: bool = False) -> bytes:
        return self.wire.data_header(stream_id, len(payload), fin=fin) + payload

    def rst(self, stream_id: int, code: Any) -> bytes:
        return self.wire.rst(stream_id, code)

    def wndinc(self, stream_id: int, increment: int) -> bytes:
        return self.wire.wndinc(stream_id, increment)

    def goaway(self, last_stream_id: int, code: Any, debug: bytes = b"") -> bytes:
        return self.wire.goaway(last_stream_id, code, debug)

    def violation(self) -> bytes:
        """A frame that no peer may send: DATA for stream 0."""
        return self.wire.data_header(0, 0, fin=False)


@asynccontextmanager
async def raw_session(
    kind: Kind, *, client: bool = False, **choices: Any
) -> AsyncGenerator[tuple[MuxadoSession, RawPeer], None]:
    """A session whose peer is played by the test, which lets it end when the block is left."""
    peer = RawPeer(kind)
    make = client_session if client else server_session
    choices.setdefault("heartbeat", None)
    async with make(peer.transport, config=kind.config(**choices)) as session:
        yield session, peer
        peer.end()


# ---- transports


class Transport(trio.abc.Stream):
    """Passes everything through and cannot be half-closed; others change a habit of it."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


class HalfCloseable(Transport, trio.abc.HalfCloseableStream):
    """The same with ``send_eof``."""

    inner: trio.abc.HalfCloseableStream

    async def send_eof(self) -> None:
        await self.inner.send_eof()


class Recording(HalfCloseable):
    """Keeps what was sent."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        super().__init__(inner)
        self.sent: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))
        await super().send_all(data)


class Splitting(HalfCloseable):
    """Cuts every write into pieces of a few bytes, and every one is a chance for other tasks."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, seed: int) -> None:
        super().__init__(inner)
        self._random = random.Random(seed)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            start = 0
            while start < len(view):
                size = self._random.choice((1, 2, 3, 5, 7, 8, 9, 100, 4000))
                await super().send_all(bytes(view[start : start + size]))
                start += size


class Gated(HalfCloseable):
    """Takes nothing while the gate is shut."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        super().__init__(inner)
        self._open = trio.Event()
        self._open.set()

    def shut(self) -> None:
        if self._open.is_set():
            self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._open.wait()
        await super().send_all(data)


class Failing(HalfCloseable):
    """Raises what it was told to raise, from the methods that it was told."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        super().__init__(inner)
        self._errors: dict[str, BaseException] = {}
        self._receiving = trio.CancelScope()

    def fail(self, method: str, error: BaseException) -> None:
        """From now on ``method`` raises ``error``; a ``receive_some`` that waits does so now."""
        self._errors[method] = error
        if method == "receive_some":
            self._receiving.cancel()

    def _raise(self, method: str) -> None:
        if method in self._errors:
            raise self._errors[method]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._raise("send_all")
        await super().send_all(data)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._raise("send_eof")
        await super().send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._raise("receive_some")
        with trio.CancelScope() as self._receiving:
            return await super().receive_some(max_bytes)
        raise self._errors["receive_some"]

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self._raise("aclose")


class Deaf(Transport):
    """A transport whose other end is not there: takes nothing, gives nothing, never ends."""

    def __init__(self) -> None:
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.sleep_forever()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class DeafHalfCloseable(Deaf, trio.abc.HalfCloseableStream):
    """The same, and half-closing it never returns either."""

    async def send_eof(self) -> None:
        await trio.sleep_forever()


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what a test connects, in memory: for servers under a mocked clock."""

    def __init__(self) -> None:
        self._arriving, self._waiting = trio.open_memory_channel[trio.abc.Stream](100)
        self.closed = False

    async def connect(self, wrap: Any = None, over: Pair | None = None) -> Any:
        """A new connection; ``wrap`` changes the habits of the server's end."""
        near, far = over or memory_stream_pair()
        await self._arriving.send(far if wrap is None else wrap(far))
        return near

    async def accept(self) -> trio.abc.Stream:
        return await self._waiting.receive()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a socket: what one has sent is there for the other at once."""
    near, far = socket.socketpair()
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(near)),
        trio.SocketStream(trio.socket.from_stdlib_socket(far)),
    )


@asynccontextmanager
async def tcp_pair() -> AsyncGenerator[Pair, None]:
    """Two ends of a TCP connection on this machine; memory has no kernel buffers and no RST."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream(*listener.socket.getsockname())
        far = await listener.accept()
    async with near, far:
        yield near, far


@asynccontextmanager
async def tls_pair(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> AsyncGenerator[Pair, None]:
    """Two ends of a TLS connection over TCP, hands shaken."""
    async with tcp_pair() as (near, far):
        tls_near = trio.SSLStream(near, client_context, server_hostname="localhost")
        tls_far = trio.SSLStream(far, server_context, server_side=True)
        await together(tls_near.do_handshake, tls_far.do_handshake)
        yield tls_near, tls_far


# ---- the rest


async def together(*calls: Callable[[], Awaitable[Any]]) -> None:
    """Run all of them at once, and wait for all."""
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


async def outcome_of(call: Callable[[], Awaitable[Any]]) -> Any:
    """What it returned, or the exception that it raised."""
    try:
        return await call()
    except Exception as error:
        return error


async def cancel_at_checkpoint(number: int, call: Callable[[], Awaitable[Any]]) -> bool:
    """Run ``call``, and cancel it when it reaches its checkpoint with this number (from 0).

    True when it was cancelled there, False when it was done before.
    """
    with trio.CancelScope() as scope:
        clock = _CheckpointClock(number, scope)
        trio.lowlevel.add_instrument(clock)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(clock)
    return scope.cancelled_caught


class Turns(trio.abc.Instrument):
    """Counts the turns that tasks get."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


class _CheckpointClock(trio.abc.Instrument):
    """Counts how often the task that made it is put aside, and cancels it at the given count."""

    def __init__(self, number: int, scope: trio.CancelScope) -> None:
        self._left = number
        self._scope = scope
        self._task = trio.lowlevel.current_task()
        if not number:
            scope.cancel()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._left:
            self._left -= 1
            if not self._left:
                self._scope.cancel()
