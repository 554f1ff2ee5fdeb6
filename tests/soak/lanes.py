"""The lanes: each runs sessions with one peer in one role, until its round is over."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import trio

from tests.interop.build import Peer
from tests.interop.ours import HEARTBEAT_OPTIONS, config_for, our_client
from tests.interop.peers import dial_from_peer, serving_peer
from tests.interop.stream_protocol import STREAM_ENDED, Host
from trio_muxado import (
    CloseReason,
    Heartbeat,
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    serve_muxado,
)
from trio_muxado._nursery import leaves, without_cancelled

from .account import Account
from .work import Opener, work

SESSION_TIMEOUT = 1200
"""Seconds, far above what any session takes, also on a busy machine: a hang ends as a fault that
names its lane."""

GENTLE = ("closed", "drained")
ROUGH = ("forced", "cancelled", "closed there", "stopped or killed")
WAYS = GENTLE + ROUGH
"""How sessions end: of the rough ways the streams that run then hear."""


@dataclass(frozen=True)
class Lane:
    """Sessions with one peer in one role."""

    name: str
    run: Callable[[Account, Random, str], Awaitable[None]]
    """One program of the peer from its start to its end, or one server of ours."""


class CountedHost(Host):
    """What answers streams; how many it answers is counted."""

    def __init__(self, session: MuxadoSession, account: Account) -> None:
        super().__init__(session)
        self._account = account
        answer = self._answer_stream

        async def counted(stream: MuxadoStream) -> None:
            account.running += 1
            try:
                await answer(stream)
            finally:
                account.running -= 1

        self._answer_stream = counted


@asynccontextmanager
async def counted_server(
    account: Account, lane: str, config: MuxadoConfig
) -> AsyncGenerator[tuple[int, trio.Event], None]:
    """A server of ours: its port, and what stops it gently."""
    stop = trio.Event()

    async def handle(session: MuxadoSession) -> None:
        await CountedHost(session, account).serve()

    def look(session: MuxadoSession, reason: CloseReason | None) -> None:
        if reason is not None:
            account.over(session, lane)

    async with trio.open_nursery() as nursery:
        serve = partial(serve_muxado, handle, 0, host="127.0.0.1", config=config, stop=stop)
        (listener,) = await nursery.start(partial(serve, on_session=look))
        yield listener.socket.getsockname()[1], stop
        stop.set()


async def use_session(
    account: Account,
    random: Random,
    lane: str,
    port: int,
    config: MuxadoConfig,
    end: Callable[[], Awaitable[None]],
    *,
    count: int,
) -> str:
    """One session that we dial, from its beginning to its end; how it ended.

    ``end`` is what ends it from the other side.
    """
    way = random.choice(WAYS)
    rough = way in ROUGH
    session: MuxadoSession | None = None
    opener: Opener | None = None
    with trio.CancelScope() as scope:
        try:
            async with our_client(port, config) as host:
                session = host.session
                opener = Opener(session, account, lane, breaks=rough)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work, opener, random, count)
                    if rough:
                        await trio.sleep(random.random() / 3)
                    match way:
                        case "forced":
                            await trio.aclose_forcefully(session)
                        case "cancelled":
                            scope.cancel()
                        case "closed there":
                            await opener.ask("close")
                        case "stopped or killed":
                            await end()
                        case _:
                            pass
                if way == "drained":
                    await session.drain()
        except BaseException as error:
            rest = without_cancelled(error)
            if rest is None:
                raise
            if not all(isinstance(leaf, (*STREAM_ENDED, EOFError)) for leaf in leaves(rest)):
                raise
            if not rough:
                account.fault(f"{lane}: {way}: {[*leaves(rest)]!r}")
    account.outcomes[f"session {way}"] += 1
    if session is not None and opener is not None:
        account.over(session, lane, opener.opened)
    return way


async def ours_with_ours(account: Account, random: Random, lane: str, *, wire: str) -> None:
    """A server of ours and some sessions, one after the other."""
    config = MuxadoConfig(
        wire="v1" if wire == "v1" else "v2",
        typed=wire != "v1" and random.random() < 0.5,
        heartbeat=Heartbeat(interval=1, tolerance=60),
    )
    async with counted_server(account, lane, replace(config, wire="auto")) as (port, stop):

        async def end() -> None:
            stop.set()

        for _ in range(3):
            if not stop.is_set():
                await use_session(account, random, lane, port, config, end, count=150)


async def serving(
    account: Account, random: Random, lane: str, *, peer: Peer, program: Path
) -> None:
    """A peer that serves, and some sessions with it."""
    beating = peer.name.startswith("go_v2") and random.random() < 0.5
    config = config_for(peer, heartbeat=beating)
    # What is reset in Rust keeps its task there until the session ends, and 512 are the end of it.
    count = 120 if peer.name == "rust" else 200
    async with serving_peer(program, *(HEARTBEAT_OPTIONS if beating else ())) as server:
        account.peers += 1

        async def kill() -> None:
            server.kill()

        for _ in range(4):
            way = await use_session(account, random, lane, server.port, config, kill, count=count)
            if way == "stopped or killed":
                break


SCENARIOS = ("echo 60", "upload 1000000", "download 1000000", "halfclose", "openback 20", "close")
GO_SCENARIOS = ("reset 7 2", "goaway-running 10", "self-goaway 10", "leave 2", "peer-close")


async def dialling(
    account: Account, random: Random, lane: str, *, peer: Peer, program: Path
) -> None:
    """Peers that dial a server of ours; some are killed in the middle."""
    scenarios = SCENARIOS + (GO_SCENARIOS if peer.name != "rust" else ())
    async with counted_server(account, lane, config_for(peer)) as (port, _):
        for _ in range(6):
            scenario = random.choice(scenarios)
            account.peers += 1
            if random.random() < 0.8:
                await dial_from_peer(program, port, scenario, timeout=SESSION_TIMEOUT / 2)
                account.outcomes["scenario of a peer"] += 1
            else:
                await _dial_and_kill(program, port, "echo 400", random.random() / 5)
                account.outcomes["killed peer"] += 1


async def _dial_and_kill(program: Path, port: int, scenario: str, after: float) -> None:
    command = [str(program), "dial", "--addr", f"127.0.0.1:{port}", *scenario.split()]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    await trio.sleep(after)
    process.kill()
    await process.wait()


def lanes_for(programs: dict[Peer, Path]) -> list[Lane]:
    """Ours with ours, and every peer that is there, in both roles."""
    lanes = [Lane(f"ours {wire}", partial(ours_with_ours, wire=wire)) for wire in ("v1", "v2")]
    for peer, program in programs.items():
        for run, role in ((serving, "serves"), (dialling, "dials")):
            lanes.append(Lane(f"{peer.title} {role}", partial(run, peer=peer, program=program)))
    return lanes
