"""trio_muxado in both roles, as the tests run it against the peers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
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


async def nothing(host: Host) -> None:
    """What most tests do beside answering streams."""


class OurServer:
    """``serve_muxado`` on a port of its own."""

    def __init__(self, port: int, ended: trio.MemoryReceiveChannel[tuple[CloseReason, Host]]):
        self.port = port
        self.wires: list[str | None] = []
        self._ended = ended

    async def next_ended(self) -> tuple[CloseReason, Host]:
        """How the next session ended, as we saw it, and what answered its streams."""
        with trio.fail_after(END_TIMEOUT):
            return await self._ended.receive()


@asynccontextmanager
async def our_server(
    config: MuxadoConfig,
    *,
    pauses: bool = False,
    drain: bool = False,
    seed: bool = False,
    beside: Callable[[Host], Awaitable[None]] = nothing,
) -> AsyncIterator[OurServer]:
    """Serves the stream protocol as long as the body lasts.

    With every session ``beside`` runs as well.  A session counts as ended when ``beside`` has.
    """
    send_ended, receive_ended = trio.open_memory_channel[tuple[CloseReason, Host]](1000)
    async with trio.open_nursery() as nursery:
        # In this nursery, not in the handler's: serve_muxado puts up with errors of a session.
        async def report(host: Host) -> None:
            await beside(host)
            send_ended.send_nowait((await host.session.wait_closed(), host))

        async def handle_session(session: MuxadoSession) -> None:
            host = Host(session, drain=drain, seed=seed)
            nursery.start_soon(report, host)
            await (host.serve_with_pauses() if pauses else host.serve())
            server.wires.append(session.wire)

        listeners = await nursery.start(
            partial(serve_muxado, handle_session, 0, host="127.0.0.1", config=config)
        )
        server = OurServer(listeners[0].socket.getsockname()[1], receive_ended)
        yield server
        nursery.cancel_scope.cancel()
    send_ended.close()
    receive_ended.close()


@asynccontextmanager
async def our_client(port: int, config: MuxadoConfig) -> AsyncIterator[Host]:
    """A session that we dialled, which answers streams of the other end, too."""
    async with open_muxado_session("127.0.0.1", port, config=config) as session:
        async with trio.open_nursery() as nursery:
            host = Host(session)
            nursery.start_soon(host.serve)
            yield host
            nursery.cancel_scope.cancel()


@dataclass(frozen=True)
class Exchange:
    """What both sides report of a session that is over."""

    outcome: dict[str, Any]
    """Of the scenario, as the end that dialled saw it."""
    theirs: dict[str, Any]
    """How the peer's library saw the session end.  Where the peer dialled, only some of its
    scenarios tell that."""
    ours: CloseReason
    """The same, as we saw it."""
    host: Host
    """What answered the peer's streams."""


async def exchange(
    binary: Path,
    column: Column,
    ours: Callable[[MuxadoSession], Awaitable[dict[str, Any]]],
    theirs: str,
    *,
    typed: bool = False,
    heartbeat: bool = False,
    clean: bool = True,
    limit: int = ROOM,
    serve_options: tuple[str, ...] = (),
    **server: Any,
) -> Exchange:
    """Runs a scenario in one column of the matrix: ours where the peer serves, else the peer's.

    The dialling end closes the session afterwards, which must be a clean end for both of them
    unless the test says that it is not.  ``limit`` is how many streams at once we open.
    """
    peer = column.peer
    config = config_for(peer, typed=typed, heartbeat=heartbeat)
    config = replace(config, max_outbound_streams=limit)
    options = options_for(peer, typed=typed, heartbeat=heartbeat)
    with trio.fail_after(TEST_TIMEOUT):
        if column.serves:
            async with serving_peer(binary, *options, *serve_options) as serving:
                async with our_client(serving.port, config) as host:
                    outcome = await ours(host.session)
                reason = await host.session.wait_closed()
                ending = await serving.next_ending()
            assert not clean or ending["clean"], ending
        else:
            async with our_server(config, **server) as our:
                outcome = await dial_from_peer(binary, our.port, theirs, *options)
                reason, host = await our.next_ended()
            ending = outcome.get("ending", {})
    assert not clean or reason.clean, reason
    return Exchange(outcome, ending, reason, host)
