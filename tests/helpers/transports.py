"""Transports in memory and over sockets, and transports with bad habits."""

import random
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from trio.testing import memory_stream_pair

from .tasks import together

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

Pair = tuple[trio.abc.Stream, trio.abc.Stream]


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


class FailingWhenCancelled(HalfCloseable):
    """Fails in its clean-up, as what has a nursery of its own may: the group has both errors.

    Its ``method`` never returns, once the transport is ``stuck``; ``receive_some`` does what it
    always does.
    """

    def __init__(self, inner: trio.abc.HalfCloseableStream, method: str) -> None:
        super().__init__(inner)
        self._method = method
        self.stuck = False
        self.failed = 0

    async def _call(self, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            if self.stuck and method == self._method != "receive_some":
                await trio.sleep_forever()
            return await call()
        except trio.Cancelled as cancelled:
            if method != self._method:
                raise
            self.failed += 1
            failure = trio.BrokenResourceError("it broke meanwhile")
            raise BaseExceptionGroup("of a nursery", [cancelled, failure]) from None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._call("send_all", partial(super().send_all, data))

    async def send_eof(self) -> None:
        await self._call("send_eof", super().send_eof)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received: bytes = await self._call("receive_some", partial(super().receive_some, max_bytes))
        return received

    async def aclose(self) -> None:
        await self._call("aclose", super().aclose)


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
