"""trio_muxado, one session, in either version of the protocol.

Here is all that the benchmarks know of the library, by its public names alone:
`benchmarks.against` runs this file on older versions of it, too.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import trio

import trio_muxado
from trio_muxado import (
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    open_muxado_session,
    serve_muxado,
)

from .._common import (
    CHUNK,
    HOST,
    SMALL,
    Peer,
    StreamPeer,
    answer,
    arguments,
    check_held,
    client_context,
    listening,
    main,
    server_context,
)
from .._steps import steps

STREAMS = 1 << 15
PACKAGE = Path(trio_muxado.__file__).parent
"""Where the library is that is imported."""


def config(args: Namespace) -> MuxadoConfig:
    """The defaults, but for the limits that 1,000 and 10,000 streams at once pass."""
    return _config(args.wire)


@cache  # as a program has one for all its sessions
def _config(wire: Literal["v1", "v2"]) -> MuxadoConfig:
    return MuxadoConfig(
        wire=wire,
        max_inbound_streams=STREAMS,
        max_outbound_streams=STREAMS,
        accept_backlog=STREAMS,
    )


async def handle_session(session: MuxadoSession) -> None:
    await session.serve_streams(answer)  # which closes a stream when its handler returns


async def serve(args: Namespace) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(
                serve_muxado,
                handle_session,
                0,
                host=HOST,
                ssl_context=server_context(args),
                config=config(args),
            )
        )
        listener = getattr(listener, "transport_listener", listener)
        listening(listener.socket.getsockname()[1])


def session(args: Namespace) -> AbstractAsyncContextManager[MuxadoSession]:
    return open_muxado_session(
        HOST, args.port, ssl_context=client_context(args), config=config(args)
    )


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[Peer]:
    async with trio.open_nursery() as nursery, session(args) as only:
        peer = StreamPeer(only.open_stream)
        yield SessionPeer(args, peer, nursery) if args.sessions else peer


class SessionPeer:
    """Does with a session of its own what others do with a stream."""

    def __init__(self, args: Namespace, reporter: StreamPeer, nursery: trio.Nursery) -> None:
        self._session = partial(session, args)
        self._nursery = nursery
        self.report = reporter.report

    async def request(self) -> None:
        """Connect, a byte each way on one stream, close."""
        async with self._session() as only:
            await self._exchange(only)

    async def hold(self) -> None:
        await self._nursery.start(self._keep)

    async def _keep(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._session() as only:
            await self._exchange(only)
            task_status.started()
            await trio.sleep_forever()

    @staticmethod
    async def _exchange(only: MuxadoSession) -> None:
        async with await only.open_stream() as stream:
            await stream.send_all(b"i")
            check_held(await stream.receive_some(SMALL))

    async def bulk(self, more: Callable[[], bool], chunk: bytes = CHUNK) -> int:
        raise NotImplementedError("bulk is a matter of streams")


async def stay(args: Namespace) -> None:
    """Be the client that does one work after the other."""
    async with trio.open_nursery() as nursery, session(args) as only:
        peer = StreamPeer(only.open_stream)
        await steps(peer, SessionPeer(args, peer, nursery))


def frames(session: MuxadoSession) -> int:
    """How many the session has sent and received."""
    statistics = session.statistics()
    return statistics.frames_sent + statistics.frames_received


@asynccontextmanager
async def server(
    handler: Callable[[MuxadoStream], Awaitable[object]], config: MuxadoConfig | None = None
) -> AsyncIterator[int]:
    """Serve each stream with ``handler``, in this process; yields the port."""

    async def handle_session(session: MuxadoSession) -> None:
        await session.serve_streams(handler)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(serve_muxado, handle_session, 0, host=HOST, config=config or MuxadoConfig())
        )
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def session_to(port: int, wire: Any) -> AbstractAsyncContextManager[MuxadoSession]:
    """A session with the defaults of the library."""
    return open_muxado_session(HOST, port, config=MuxadoConfig(wire=wire))


if __name__ == "__main__":
    parser = arguments()
    parser.add_argument("--wire", choices=["v1", "v2"], default="v1")
    main(serve, connect, stay=stay, parser=parser)
