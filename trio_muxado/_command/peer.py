"""The peer of a check: to be dialled, to be waited for, or to be started."""

from __future__ import annotations

import shlex
import ssl
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import click
import trio

from .ending import Failed, in_words, tell
from .network import connect, listen
from .options import Address

START_TIMEOUT = 30.0
"""Seconds in which a peer that was started has to dial."""

LAST_CONNECTION = 0.5
"""Seconds after its end in which a connection that a peer has made may still come."""

END_TIMEOUT = 5.0
"""Seconds that a peer which was started gets to end after SIGTERM."""

Connections = Callable[[], AbstractAsyncContextManager[trio.abc.Stream]]
"""Gives a new connection to the peer for each ``async with``."""


@dataclass
class Peer:
    """Where it is, or has to come to."""

    address: Address
    role: Literal["client", "server"]
    """That of this side: a client dials."""
    ssl_context: ssl.SSLContext | None
    start: Sequence[str] | None
    """The words of a command that starts a peer which dials."""

    @asynccontextmanager
    async def connections(self, count: int) -> AsyncGenerator[Connections, None]:
        """What gives the connections, ``count`` in all."""
        if self.role == "client":
            yield self._dial
        elif self.start is not None:
            yield partial(self._started, self.start)
        else:
            listeners, here = await listen(self.address)
            tell(f"listening on {here}: the peer has to dial {count} times")
            async with _accepting(listeners) as accepted:

                @asynccontextmanager
                async def next_connection() -> AsyncGenerator[trio.abc.Stream, None]:
                    async with await accepted.receive() as stream:
                        yield stream

                yield next_connection

    @asynccontextmanager
    async def _dial(self) -> AsyncGenerator[trio.abc.Stream, None]:
        stream = await connect(self.address, self.ssl_context, START_TIMEOUT)
        async with stream:
            yield stream

    @asynccontextmanager
    async def _started(self, start: Sequence[str]) -> AsyncGenerator[trio.abc.Stream, None]:
        listeners, here = await listen(self.address)
        command = [_filled_in(word, here) for word in start]
        async with _accepting(listeners) as accepted:
            try:
                process = await trio.lowlevel.open_process(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
            except OSError as error:
                raise click.UsageError(f"cannot run {command[0]}: {in_words(error)}") from None
            try:
                stream = await _dialled_by(process, accepted, shlex.join(command))
                async with stream:
                    yield stream
            finally:
                with trio.CancelScope(shield=True):
                    await _end(process)


@asynccontextmanager
async def _accepting(
    listeners: list[trio.SocketListener],
) -> AsyncGenerator[trio.MemoryReceiveChannel[trio.SocketStream], None]:
    """The connections that come, each as soon as somebody wants it."""
    send, receive = trio.open_memory_channel[trio.SocketStream](0)

    async def accept(listener: trio.SocketListener) -> None:
        while True:
            stream = await listener.accept()
            try:
                await send.send(stream)
            except BaseException:
                await trio.aclose_forcefully(stream)  # nobody wants it any more
                raise

    async with AsyncExitStack() as stack:
        for listener in listeners:
            await stack.enter_async_context(listener)
        nursery = await stack.enter_async_context(trio.open_nursery())
        for listener in listeners:
            nursery.start_soon(accept, listener)
        yield receive
        nursery.cancel_scope.cancel()


async def _dialled_by(
    process: trio.Process,
    accepted: trio.MemoryReceiveChannel[trio.SocketStream],
    command: str,
) -> trio.SocketStream:
    """The connection of a peer that was started.

    Raises:
      Failed: it ends without one, or takes too long.
    """
    streams: list[trio.SocketStream] = []

    async def wait_for_end(scope: trio.CancelScope) -> None:
        await process.wait()
        await trio.sleep(LAST_CONNECTION)
        scope.cancel()

    with trio.move_on_after(START_TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_end, nursery.cancel_scope)
            streams.append(await accepted.receive())
            nursery.cancel_scope.cancel()
    if not streams:
        ended = process.returncode
        how = "takes too long" if ended is None else f"ended with {ended}"
        raise Failed(f"{command} {how} and has not dialled")
    return streams[0]


def _filled_in(word: str, here: Address) -> str:
    host = here.host or "localhost"
    for name, value in (("address", Address(host, here.port)), ("host", host), ("port", here.port)):
        word = word.replace(f"{{{name}}}", str(value))
    return word


async def _end(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(END_TIMEOUT):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
