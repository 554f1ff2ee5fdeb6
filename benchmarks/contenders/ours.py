"""trio_muxado, one session, in either generation of the protocol."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from trio_muxado import (
    MuxadoConfig,
    MuxadoSession,
    open_muxado_session,
    serve_muxado,
)

from .._common import (
    HOST,
    StreamPeer,
    answer,
    arguments,
    client_context,
    listening,
    main,
    server_context,
)

STREAMS = 1 << 15


def config(args: Namespace) -> MuxadoConfig:
    """The defaults, but for the limits that 1,000 and 10,000 streams at once pass."""
    return MuxadoConfig(
        wire=args.wire,
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


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[StreamPeer]:
    async with open_muxado_session(
        HOST,
        args.port,
        ssl_context=client_context(args),
        config=config(args),
    ) as session:
        yield StreamPeer(session.open_stream)


if __name__ == "__main__":
    parser = arguments()
    parser.add_argument("--wire", choices=["v1", "v2"], default="v1")
    main(serve, connect, parser=parser)
