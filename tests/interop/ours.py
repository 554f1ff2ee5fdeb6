"""trio_muxado in both roles, as the tests run it against the peers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_muxado import (
    CloseReason,
    Heartbeat,
    MuxadoConfig,
    MuxadoSession,
    open_muxado_session,
    serve_muxado,
)

from .peers import END_TIMEOUT, dial_from_peer, serving_peer
from .stream_protocol import Host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from .build import Peer
    from .matrix import Column

TEST_TIMEOUT = 120
"""Far above what any test takes: a hang ends as a failure that names its test."""

INTERVAL, TOLERANCE = 3, 10
"""The heartbeat that Go v1 has built in; the other peers get it by their options."""

HEARTBEAT_OPTIONS = ("--heartbeat", "--interval", f"{INTERVAL}s", "--tolerance", f"{TOLERANCE}s")

ROOM = 600
"""Streams at once that our ends allow: more than the scenarios open."""


def config_for(peer: Peer, *, typed: bool = False, heartbeat: bool = False) -> MuxadoConfig:
    """Our end of a session with this peer, with room for 500 streams at once."""
    config = MuxadoConfig(wire=peer.wire, max_inbound_streams=ROOM, max_outbound_streams=ROOM)
    if not peer.typed_sessions:
        return config  # types and heartbeats are always there
    beat = Heartbeat(interval=INTERVAL, tolerance=TOLERANCE) if heartbeat else None
    return replace(config, typed=typed or heartbeat, heartbeat=beat)


def options_for(peer: Peer, *, typed: bool = False, heartbeat: bool = False) -> tuple[str, ...]:
    """The same for the peer's command line."""
    if not peer.typed_sessions:
        return ()
    if heartbeat:
        return HEARTBEAT_OPTIONS
    return ("--typed",) if typed else ()


class OurServer:
    """``serve_muxado`` on a port of its own."""

    def __init__(self, port: int, endings: trio.MemoryReceiveChannel[CloseReason]) -> None:
        self.port = port
        self.wires: list[str | None] = []
        self._endings = endings

    async def next_ending(self) -> CloseReason:
        """How the next session ended, as we saw it."""
        with trio.fail_after(END_TIMEOUT):
            return await self._endings.receive()


@asynccontextmanager
async def our_server(
    config: MuxadoConfig, *, pauses: bool = False, drain: bool = False, seed: bool = False
) -> AsyncIterator[OurServer]:
    """Serves the stream protocol as long as the body lasts."""
    send_ending, receive_ending = trio.open_memory_channel[CloseReason](1000)
    async with trio.open_nursery() as nursery:

        async def report(session: MuxadoSession) -> None:
            send_ending.send_nowait(await session.wait_closed())

        async def handle_session(session: MuxadoSession) -> None:
            nursery.start_soon(report, session)
            host = Host(session, drain=drain, seed=seed)
            await (host.serve_with_pauses() if pauses else host.serve())
            server.wires.append(session.wire)
            assert host.drained == drain

        listeners = await nursery.start(
            partial(serve_muxado, handle_session, 0, host="127.0.0.1", config=config)
        )
        server = OurServer(listeners[0].socket.getsockname()[1], receive_ending)
        yield server
        nursery.cancel_scope.cancel()
    send_ending.close()
    receive_ending.close()


@asynccontextmanager
async def our_client(port: int, config: MuxadoConfig) -> AsyncIterator[MuxadoSession]:
    """A session that we dialled, which answers streams of the other end, too."""
    async with open_muxado_session("127.0.0.1", port, config=config) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Host(session).serve)
            yield session
            nursery.cancel_scope.cancel()


async def exchange(
    binary: Path,
    column: Column,
    ours: Callable[[MuxadoSession], Awaitable[dict[str, Any]]],
    theirs: str,
    *,
    typed: bool = False,
    heartbeat: bool = False,
    clean: bool = True,
    serve_options: tuple[str, ...] = (),
    **server: bool,
) -> dict[str, Any]:
    """Runs a scenario in one column of the matrix, and returns what the opener has to tell.

    The dialling end closes the session afterwards, which must be a clean end for the other.
    """
    peer = column.peer
    config = config_for(peer, typed=typed, heartbeat=heartbeat)
    options = options_for(peer, typed=typed, heartbeat=heartbeat)
    with trio.fail_after(TEST_TIMEOUT):
        if column.serves:
            async with serving_peer(binary, *options, *serve_options) as serving:
                async with our_client(serving.port, config) as session:
                    outcome = await ours(session)
                ending = await serving.next_ending()
            assert not clean or ending["clean"], ending
        else:
            async with our_server(config, **server) as our:
                outcome = await dial_from_peer(binary, our.port, theirs, *options)
                reason = await our.next_ending()
            assert not clean or reason.clean, reason
    return outcome
