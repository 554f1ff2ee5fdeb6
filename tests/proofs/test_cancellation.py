"""Every call, cancelled at each checkpoint: a stream is whole or broken, and counts come back."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionEndedError,
    StreamResetError,
    client_session,
    server_session,
)

from ..helpers import (
    CancelAtTurn,
    Kind,
    Pair,
    RawPeer,
    Splitting,
    Transport,
    cancel_at_checkpoint,
    each_kind,
    echo,
    outcome_of,
    read_all,
    read_exactly,
    session_pair,
    socket_pair,
)

pytestmark = pytest.mark.proofs

HEAD, SHORT, LONG = b"head", b"short", bytes(range(256)) * 8_000

SENDS: dict[str, Callable[[MuxadoStream], Awaitable[Any]]] = {
    "send short": lambda stream: stream.send_all(SHORT),
    "send long": lambda stream: stream.send_all(LONG),
    "send long bytearray": lambda stream: stream.send_all(bytearray(LONG)),
}
OTHERS: dict[str, Callable[[MuxadoStream], Awaitable[Any]]] = {
    "wait to send": lambda stream: stream.wait_send_all_might_not_block(),
    "receive": lambda stream: stream.receive_some(),
    "wait_broken": lambda stream: stream.wait_broken(),
    "send_eof": lambda stream: stream.send_eof(),
    "aclose": lambda stream: stream.aclose(),
    "reset": lambda stream: stream.reset(),
    "open": lambda stream: open_and_close(stream.session),
    "accept": lambda stream: stream.session.accept_stream(),
    "wait_closed": lambda stream: stream.session.wait_closed(),
    "ping": lambda stream: outcome_of(stream.session.ping),
}
ENDS: dict[str, Callable[[MuxadoSession], Awaitable[Any]]] = {
    "goaway": lambda session: session.goaway(),
    "drain": lambda session: session.drain(),
    "aclose session": lambda session: session.aclose(),
}

OVER: dict[str, Callable[[int], Pair]] = {
    "memory": lambda seed: memory_stream_pair(),
    "no half-close": lambda seed: (lambda p: (Transport(p[0]), Transport(p[1])))(
        memory_stream_pair()
    ),
    "socket": lambda seed: socket_pair(),
    "pieces": lambda seed: (lambda p: (Splitting(p[0], seed), Splitting(p[1], seed)))(
        memory_stream_pair()
    ),
}
each_transport = pytest.mark.parametrize("over", OVER)


async def open_and_close(session: MuxadoSession) -> None:
    await (await session.open_stream()).aclose()


async def cancelled_at(number: int, call: Callable[[], Awaitable[Any]]) -> bool:
    """As ``cancel_at_checkpoint``; a call that waits for more than is to come is cancelled then."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await wait_all_tasks_blocked(0.01)
                scope.cancel()

            nursery.start_soon(give_up)
            cancelled = await cancel_at_checkpoint(number, call)
            nursery.cancel_scope.cancel()
            return cancelled
    return False


def counts_of(session: MuxadoSession) -> dict[str, object]:
    engine = session._engine
    streams = engine.connection.streams
    return {
        "slots": (engine.slots._waiting, engine.slots._promised, engine.slots.waited_since),
        "places": (streams.outbound.used, streams.inbound.used, streams.waiting.used),
        "senders": len(engine.room._senders),
        "breaks": len(engine.breaks),
        "pings": len(engine.heartbeats._waiting) if engine.heartbeats else 0,
        "receivers": len(engine.steps.receivers),
        "live": len(streams.live),
        "idle": len(engine.slots.idle),
        "spare window": streams.budget.left,
    }


async def read_into(outcomes: list[object], stream: MuxadoStream) -> None:
    outcomes.append(await outcome_of(partial(read_all, stream)))


async def talk(near: MuxadoStream, far: MuxadoStream) -> None:
    await near.send_all(b"still there?")
    assert await read_exactly(far, 12) == b"still there?"


async def play(
    kind: Kind, over: str, number: int, name: str, call: Callable[[MuxadoStream], Awaitable[Any]]
) -> bool:
    transports = OVER[over](number)
    async with session_pair(kind, transports=transports, heartbeat=None) as (client, server):
        near_by, its_peer = await open_pair(client, server)
        assert await read_exactly(its_peer, len(HEAD)) == HEAD
        await wait_all_tasks_blocked(0.01)
        before = [counts_of(session) for session in (client, server)]
        near, far = await open_pair(client, server)
        done = not await cancelled_at(number, partial(outcome_of, partial(call, near)))
        received: list[object] = []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_into, received, far)
            await near.aclose()
        (result,) = received
        if isinstance(result, bytes):
            whole = {"send short": SHORT, "send long": LONG, "send long bytearray": LONG}
            assert result == HEAD + whole.get(name, b""), f"cut and whole: {len(result)} bytes"
        else:
            assert isinstance(result, StreamResetError)
        await far.aclose()
        await talk(near_by, its_peer)
        await wait_all_tasks_blocked(0.01)
        while server.statistics().waiting:  # what "open" has opened
            await (await server.accept_stream()).aclose()
        await wait_all_tasks_blocked(0.01)
        if name != "ping":  # which opens the heartbeats' stream
            assert [counts_of(session) for session in (client, server)] == before
        assert counts_of(client)["pings"] == 0
    return done


async def open_pair(
    client: MuxadoSession, server: MuxadoSession
) -> tuple[MuxadoStream, MuxadoStream]:
    near = await client.open_stream()
    await near.send_all(HEAD)
    return near, await server.accept_stream()


@each_transport
@pytest.mark.parametrize("name", [*SENDS, *OTHERS])
@each_kind
async def test_a_call_that_is_cancelled_anywhere(kind: Kind, name: str, over: str) -> None:
    call = {**SENDS, **OTHERS}[name]
    for number in range(200):
        if await play(kind, over, number, name, call):
            break
    else:
        pytest.fail(f"{name} does not end")


@each_transport
@pytest.mark.parametrize("name", ENDS)
@each_kind
async def test_an_end_that_is_cancelled_anywhere(kind: Kind, name: str, over: str) -> None:
    for number in range(200):
        transports = OVER[over](number)
        outcomes: list[object] = []
        with trio.fail_after(30):
            async with session_pair(kind, transports=transports, heartbeat=None) as (one, other):
                _, far = await open_pair(one, other)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_into, outcomes, far)
                    done = not await cancelled_at(
                        number, partial(outcome_of, partial(ENDS[name], one))
                    )
                    await trio.aclose_forcefully(one)
        assert isinstance(outcomes[0], MuxadoError), outcomes
        for session in (one, other):
            counts = counts_of(session)
            assert counts["slots"] == (0, 0, None)
            assert (counts["senders"], counts["breaks"], counts["pings"]) == (0, 0, 0)
            assert counts["live"] == 0
        if done:
            break
    else:
        pytest.fail(f"{name} does not end")


BULK = LONG[:300_000]


async def send_and_read(session: MuxadoSession) -> bytes:
    """Send ``BULK`` to whoever echoes it, and return what came back."""
    received: list[object] = []
    async with await session.open_stream() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(read_into, received, stream)
        await stream.send_all(BULK)
        await stream.send_eof()
    (result,) = received
    assert isinstance(result, bytes), result
    return result


async def exchange(
    kind: Kind, over: str, number: int, *, server_is_cancelled: bool
) -> tuple[bytes, bool]:
    """What came back from an echo, and whether the user of one side was cancelled at that turn.

    That user's clean-up is all that is done.
    """
    near, far = OVER[over](number)
    users = trio.CancelScope(), trio.CancelScope()
    instrument = CancelAtTurn(number, users[server_is_cancelled])

    async def serve() -> None:
        with suppress(SessionEndedError), users[True]:
            async with server_session(far, config=kind.config(heartbeat=None)) as session:
                with trio.CancelScope(shield=True):
                    await session.serve_streams(echo)

    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with users[False]:
            async with client_session(near, config=kind.config(heartbeat=None)) as session:
                trio.lowlevel.add_instrument(instrument)
                with trio.CancelScope(shield=True):
                    received = await send_and_read(session)
                trio.lowlevel.remove_instrument(instrument)
    return received, users[server_is_cancelled].cancel_called


@pytest.mark.parametrize("server_is_cancelled", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("over", ["memory", "no half-close", "socket"])
@each_kind
async def test_a_user_who_is_cancelled_at_any_turn_loses_nothing(
    kind: Kind, over: str, server_is_cancelled: bool
) -> None:
    """The session goes on for the clean-up, whatever its tasks wait for at that moment."""
    for number in range(1, 1000):
        with trio.fail_after(30):
            received, cancelled = await exchange(
                kind, over, number, server_is_cancelled=server_is_cancelled
            )
        assert received == BULK
        if not cancelled:
            break
    else:
        pytest.fail("the exchange does not end")
    assert number > 20


async def receive_burst(kind: Kind, number: int) -> tuple[bytes, bool]:
    """What a server got of small frames that all came at once, and whether its user was cancelled.

    So many frames are handled in several turns.
    """
    peer, (near, far) = RawPeer(kind), socket_pair()
    first = [peer.syn(3, 1)] if kind.typed or kind.wire == "v1" else [peer.data(3, syn=True)]
    burst = b"".join(first + [peer.data(3, b"x")] * 1_000 + [peer.fin(3)])
    config = kind.config(heartbeat=None, close_timeout=0.01)  # the peer never answers
    received = b""
    async with near:
        with trio.CancelScope() as user:
            async with server_session(far, config=config) as session:
                await wait_all_tasks_blocked()
                instrument = CancelAtTurn(number, user)
                trio.lowlevel.add_instrument(instrument)
                with trio.fail_after(30, shield=True):
                    await near.send_all(burst)
                    received = await read_all(await session.accept_stream())
                trio.lowlevel.remove_instrument(instrument)
    return received, user.cancel_called


@each_kind
async def test_a_user_who_is_cancelled_within_a_burst_loses_nothing(kind: Kind) -> None:
    for number in range(1, 200):
        with trio.fail_after(30):
            received, cancelled = await receive_burst(kind, number)
        assert received == b"x" * 1_000
        if not cancelled:
            break
    else:
        pytest.fail("the burst does not end")
    assert number > 5
