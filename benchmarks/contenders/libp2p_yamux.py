"""py-libp2p's yamux on trio, over a bare TCP connection: no security, no swarm.

libp2p needs packages that must not meet ours, so it runs in an environment of its own.
"""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from .._common import HOST, StreamPeer, answer_and_close, listening, main

PEER = ID(b"benchmark")


class LibStream:
    def __init__(self, stream: YamuxStream) -> None:
        self._stream = stream
        self.send_all = stream.write
        self.send_eof = stream.close  # closes our direction only
        self.aclose = stream.close

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self._stream.read(max_bytes))
        except MuxedStreamEOF:
            return b""


def yamux(stream: trio.SocketStream, client: bool) -> Yamux:
    conn = RawConnection(TrioTCPStream(stream), initiator=client)
    return Yamux(conn, PEER, is_initiator=client)


async def serve(args: Namespace) -> None:
    async def handler(tcp: trio.SocketStream) -> None:
        session = yamux(tcp, client=False)
        async with trio.open_nursery() as streams:
            streams.start_soon(session.start)
            try:
                while True:
                    streams.start_soon(answer_and_close, LibStream(await session.accept_stream()))
            except MuxedConnUnavailable:
                streams.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host=HOST))
        listening(listener.socket.getsockname()[1])


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[StreamPeer]:
    tcp = await trio.open_tcp_stream(HOST, args.port)
    session = yamux(tcp, client=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.start)
        await session.event_started.wait()

        async def open_stream() -> LibStream:
            return LibStream(await session.open_stream())

        yield StreamPeer(open_stream)


if __name__ == "__main__":
    main(serve, connect)
