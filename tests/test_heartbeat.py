"""Heartbeats: asking, answering, noticing silence, and not killing what is alive."""

import os
import socket
import ssl
import tracemalloc
from typing import Any

import pytest
import trio
from trio.testing import (
    MockClock,
    memory_stream_pair,
    memory_stream_pump,
    wait_all_tasks_blocked,
)

from trio_muxado import (
    ErrorCode,
    Heartbeat,
    HeartbeatError,
    MuxadoSession,
    SessionEndedError,
    StreamResetError,
    client_session,
    server_session,
)
from trio_muxado._heartbeat import OPEN_AFTER, Heartbeats
from trio_muxado._protocol.frames import Data, Rst, Syn

from .helpers import (
    V1,
    V2,
    V2_TYPED,
    Gated,
    HalfCloseable,
    Kind,
    RawPeer,
    Turns,
    each_kind,
    echo,
    fill,
    outcome_of,
    raw_session,
    read_exactly,
    session_pair,
    socket_pair,
    together,
    with_types,
)

TYPE = {"v1": 0xFFFFFEFF, "v2-typed": 0xFFFFFFFF}
HIGHEST = 0x7FFFFFFF
DEFAULTS = {"v1": (3.0, 10.0), "v2-typed": (10.0, 15.0)}
INTERVAL = 2
BEAT = Heartbeat(interval=INTERVAL, tolerance=5)


async def beats(peer: RawPeer, stream_id: int = 3) -> list[bytes]:
    """The payloads that came on a stream since the last look."""
    frames = await peer.frames()
    return [bytes(f.payload) for f in frames if isinstance(f, Data) and f.stream_id == stream_id]


def heartbeats_of(session: MuxadoSession) -> Heartbeats:
    heartbeats = session._engine.heartbeats
    assert heartbeats is not None
    return heartbeats


# ---- asking


@with_types
async def test_the_requester_opens_one_stream_of_the_heartbeat_type(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
        if kind is V1:
            opening: Any = Syn(3, HIGHEST, TYPE["v1"], fin=False)
        else:
            opening = Data(3, 4, TYPE[kind.name].to_bytes(4, "big"), syn=True, fin=False)
        assert await peer.frames() == [opening]
        seen = []
        for _ in range(3):
            await trio.sleep(2)
            (beat,) = await beats(peer)
            assert len(beat) == 4
            seen.append(beat)
            peer.send(peer.data(3, beat))
            await wait_all_tasks_blocked()
        assert len(set(seen)) == 3
        assert session.latency == 0


@with_types
async def test_a_server_opens_its_heartbeat_stream_a_moment_later(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """A session that is over by then did without; the times of the heartbeats stay the same."""
    async with raw_session(kind, heartbeat=BEAT) as (_, peer):
        await trio.sleep(OPEN_AFTER - 0.001)
        assert await peer.frames() == []
        await trio.sleep(0.002)
        (opening,) = await peer.frames()
        assert isinstance(opening, Syn | Data)
        assert opening.stream_id == 2
        await trio.sleep(INTERVAL - OPEN_AFTER - 0.002)
        assert await beats(peer, 2) == []
        await trio.sleep(0.002)
        assert len(await beats(peer, 2)) == 1


@with_types
async def test_a_short_interval_begins_in_time(kind: Kind, autojump_clock: MockClock) -> None:
    beat = Heartbeat(interval=0.1, tolerance=5)
    async with raw_session(kind, heartbeat=beat) as (_, peer):
        await trio.sleep(0.101)
        await peer.frames()
        await trio.sleep(0.1)
        assert len(await beats(peer, 2)) == 1


@with_types
async def test_a_ping_before_the_server_has_opened_its_heartbeat_stream(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind, heartbeat=BEAT) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.ping)
        opening: Any = (await peer.frames())[-1]
        peer.send(peer.data(2, bytes(opening.payload)[-4:]))
        await trio.sleep(2 * OPEN_AFTER)
        assert await peer.frames() == []  # there is one stream, also later
        await trio.sleep(INTERVAL - OPEN_AFTER)
        assert len(await beats(peer, 2)) == 1


@with_types
async def test_heartbeats_that_ended_before_the_server_opens_them_stay_ended(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind, heartbeat=BEAT) as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, session.ping)
            await peer.frames()
            peer.send(peer.rst(2, ErrorCode.STREAM_CLOSED))
        await peer.frames()
        await trio.sleep(1000)
        assert await peer.frames() == []


@with_types
async def test_the_system_watches_a_peer_that_goes_away_before_heartbeats_begin(kind: Kind) -> None:
    """No stream can be opened then, so no heartbeat can notice that the peer is gone."""
    near, far = socket_pair()
    config = kind.config(heartbeat=Heartbeat(interval=0.01))
    async with (
        server_session(far, config=config) as server,
        client_session(near, config=kind.config(heartbeat=None)) as client,
    ):
        await client.goaway()  # in the first frame, so that no heartbeat can begin before it
        async with await client.open_stream() as stream:
            await stream.send_all(b"x")
            await (await server.accept_stream()).receive_some()
            while not far.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
                await trio.sleep(0.001)
    assert server.statistics().opened == 0


@with_types
async def test_the_first_beat_comes_one_interval_after_the_start(
    kind: Kind, autojump_clock: MockClock
) -> None:
    interval, tolerance = DEFAULTS[kind.name]
    async with raw_session(kind, client=True, heartbeat=Heartbeat()) as (session, peer):
        await peer.frames()
        await trio.sleep(interval - 0.001)
        assert await beats(peer) == []
        await trio.sleep(0.002)
        assert len(await beats(peer)) == 1
        await session.wait_closed()
        assert trio.current_time() == interval + tolerance
        # Beats go out although none is answered: they tell the peer that this end lives.
        assert len(await beats(peer)) == (interval + tolerance) // interval - 1


@with_types
async def test_a_peer_that_talks_and_never_answers_beats(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
        await peer.frames()
        seen = 0
        for _ in range(100):
            await trio.sleep(2.5)
            peer.send(peer.rst(99, 0))
            seen += len(await beats(peer))
        assert seen == 64
        assert repr(session).endswith("active>")


@with_types
async def test_an_echo_may_come_in_pieces_or_with_others(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind, client=True) as (session, peer):
        latencies: list[float] = []

        async def ping() -> None:
            latencies.append(await session.ping())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ping)
            await wait_all_tasks_blocked()
            echo = b"".join(await beats(peer))[-12:]
            await trio.sleep(1)
            peer.send(peer.data(3, echo[:3]))
            await trio.sleep(1)
            assert not latencies
            peer.send(peer.data(3, echo[3:]))
        assert latencies == [2.0] * 3
        assert session.latency == 2.0


@each_kind
async def test_latency_is_unknown_before_the_first_echo(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        assert client.latency is None
        assert server.latency is None


@with_types
@pytest.mark.parametrize("heartbeat", [None, BEAT])
async def test_ping_measures_the_round_trip(
    kind: Kind, heartbeat: Heartbeat | None, autojump_clock: MockClock
) -> None:
    class Far(HalfCloseable):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep(0.25)
            await super().send_all(data)

    near, far = memory_stream_pair()
    transports = (Far(near), Far(far))
    async with session_pair(kind, transports=transports, heartbeat=heartbeat) as (client, server):
        await client.open_stream()
        assert await client.ping() >= 0.5
        assert await server.ping() >= 0.5
        latency = await client.ping()
        assert latency == client.latency == 0.5


@with_types
async def test_a_cancelled_ping_leaves_no_trace(kind: Kind, autojump_clock: MockClock) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
        with trio.move_on_after(1) as scope:
            await session.ping()
        assert scope.cancelled_caught
        beat = b"".join(await beats(peer))[-4:]  # a type may be in front of it
        peer.send(peer.data(3, beat))  # late, and still the answer to what was asked
        for _ in range(3):
            await trio.sleep(2)
            await wait_all_tasks_blocked()
            (beat,) = await beats(peer)
            peer.send(peer.data(3, beat))


@with_types
async def test_a_cancelled_ping_is_forgotten_also_where_no_echo_comes(kind: Kind) -> None:
    async with raw_session(kind, client=True) as (session, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.ping)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not heartbeats_of(session)._waiting


@with_types
async def test_numbers_of_beats_start_again(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, _):
        heartbeats_of(client)._next = 0xFFFFFFFF
        await client.ping()
        await client.ping()


async def test_untyped_v2_has_no_heartbeats(autojump_clock: MockClock) -> None:
    async with raw_session(V2, client=True, heartbeat=BEAT) as (session, peer):
        await trio.sleep(1000)
        assert await peer.frames() == []
        with pytest.raises(HeartbeatError, match="typed") as caught:
            await session.ping()
        assert isinstance(caught.value, trio.BrokenResourceError)


@each_kind
async def test_no_heartbeat_and_no_end(kind: Kind, autojump_clock: MockClock) -> None:
    """A client of v1 that says nothing opens the stream, so that a server knows its version."""
    async with raw_session(kind, client=True, heartbeat=None) as (session, peer):
        await trio.sleep(80_000)
        opening = [Syn(3, HIGHEST, TYPE["v1"], fin=False)] if kind is V1 else []
        assert await peer.frames() == opening
        assert repr(session).endswith("active>")


async def test_a_client_of_v1_that_has_spoken_opens_no_heartbeat_stream(
    autojump_clock: MockClock,
) -> None:
    async with raw_session(V1, client=True, heartbeat=None) as (session, peer):
        await session.open_stream()
        await trio.sleep(80_000)
        assert await peer.frames() == [Syn(3, 0, 0, fin=False)]


@with_types
async def test_a_peer_that_has_gone_away_gets_no_heartbeats(kind: Kind) -> None:
    async with raw_session(kind, heartbeat=BEAT, wire="auto") as (session, peer):
        peer.send(peer.goaway(0, ErrorCode.NO_ERROR))
        assert await peer.frames() == []
        with pytest.raises(HeartbeatError, match="the peer accepts no new streams"):
            await session.ping()


@with_types
async def test_the_first_ping_after_the_peer_has_gone_away(kind: Kind) -> None:
    """Only it asks for heartbeats, and the cause is not that the session is untyped."""
    async with raw_session(kind, client=True) as (session, peer):
        await session.open_stream()
        peer.send(peer.goaway(3, ErrorCode.NO_ERROR))
        await wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(HeartbeatError, match="the peer accepts no new streams"):
                await session.ping()


@with_types
async def test_a_ping_after_the_heartbeats_crossed_the_goaway(kind: Kind) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
        peer.send(peer.goaway(0, ErrorCode.NO_ERROR))
        await wait_all_tasks_blocked()
        with pytest.raises(HeartbeatError, match="the peer went away before it took the stream"):
            await session.ping()


# ---- answering


@with_types
async def test_the_peers_beats_are_answered_and_never_shown(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3, TYPE[kind.name], priority=HIGHEST), peer.syn(5, 1))
        peer.send(peer.data(3, b"\x00\x00\x00\x01"))
        assert await beats(peer) == [b"\x00\x00\x00\x01"]
        peer.send(peer.data(3, b"\x00\x00\x00"))
        assert await beats(peer) == []
        peer.send(peer.data(3, b"\x02\x00\x00\x00\x03\x00"))
        assert await beats(peer) == [b"\x00\x00\x00\x02\x00\x00\x00\x03"]
        assert (await session.accept_stream()).id == 5


async def test_a_session_that_closes_answers_heartbeats() -> None:
    """The state machine found it: those that began then were neither answered nor let go of.

    On v2 a new stream is refused before its type can come.
    """
    async with raw_session(V1, send_buffer=1 << 20) as (session, peer):
        peer.send(peer.syn(3, 0))
        stream = await session.accept_stream()
        await stream.send_all(bytes(300_000))  # more than a window, so closing takes its time
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.aclose)
            await peer.frames()
            peer.send(peer.syn(5, TYPE["v1"]), peer.data(5, b"beat"))
            assert await beats(peer, 5) == [b"beat"]
            peer.end()
    streams = session._engine.connection.streams
    assert (streams.heartbeats.used, streams.budget.left) == (0, session.config.receive_budget)


@with_types
async def test_the_responder_ends_with_the_stream(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3, TYPE[kind.name]), peer.data(3, b"beat\x00", fin=True))
        frames = await peer.frames()
        assert Data(3, 4, b"beat", syn=False, fin=False) in frames or (
            Data(3, 4, b"beat", syn=False, fin=True) in frames
        )
        assert any(isinstance(f, Data) and f.fin for f in frames)
        peer.send(peer.syn(5, TYPE[kind.name]), peer.data(5, b"more"), peer.rst(5, 0))
        await wait_all_tasks_blocked()
        assert session._engine.connection.streams.heartbeats.used == 0
        assert not session._engine.connection.streams.live


@with_types
async def test_two_heartbeat_streams_are_enough_for_everyone(kind: Kind) -> None:
    async with raw_session(kind) as (_, peer):
        for number in range(3):
            stream_id = 3 + 2 * number
            peer.send(peer.syn(stream_id, TYPE[kind.name]), peer.data(stream_id, b"beat"))
            frames = await peer.frames()
            if number < 2:
                assert Data(stream_id, 4, b"beat", syn=False, fin=False) in frames
            else:
                assert any(isinstance(f, Rst) and f.stream_id == stream_id for f in frames)


@with_types
async def test_a_session_full_of_extensions_answers_heartbeats(kind: Kind) -> None:
    choices: dict[str, Any] = {"extensions": {7: echo}, "max_extension_streams": 3}
    async with session_pair(kind, client=choices, server=choices) as (client, server):
        for opener in client, server:
            for _ in range(3):
                stream = await opener.open_stream(type=7)
                await stream.send_all(b"taken")
                assert await stream.receive_some() == b"taken"
            late = await opener.open_stream(type=7)
            with pytest.raises(StreamResetError) as refused:
                await late.receive_some()
            assert refused.value.safe_to_retry
        assert await client.ping() < 5
        assert await server.ping() < 5


@with_types
async def test_a_flood_of_beats_by_a_peer_that_reads_no_echoes(kind: Kind) -> None:
    """It costs no more than any stream that nobody reads, and in the end that stream."""
    peer = RawPeer(kind)
    gate = Gated(peer.transport)
    config = kind.config(heartbeat=None)
    async with server_session(gate, config=config) as session:
        peer.send(peer.syn(3, TYPE[kind.name]), peer.data(3, b"beat"))
        assert await beats(peer) == [b"beat"]
        gate.shut()
        stream = session._engine.connection.streams.live[3]
        window = stream.receive_window
        burst = peer.data(3, b"beat" * 1024)
        while window.credit >= 4096:
            peer.send(burst)
            await wait_all_tasks_blocked()
            assert stream.outgoing.size <= config.send_buffer + 256 * 1024
            assert window.size <= 8 * kind.window
        peer.send(peer.data(3, bytes(window.credit)))
        await wait_all_tasks_blocked()
        assert (window.credit, stream.broken) == (0, None)

        peer.send(peer.data(3, b"!"))
        await wait_all_tasks_blocked()
        assert stream.broken is not None
        assert stream.broken.code is ErrorCode.FLOW_CONTROL_ERROR
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(1000):
                peer.send(burst)
                await wait_all_tasks_blocked()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 10_000

        gate.open()
        resets = [f for f in await peer.frames() if isinstance(f, Rst)]
        assert resets == [Rst(3, peer.wire.code_to_wire(ErrorCode.FLOW_CONTROL_ERROR))]
        peer.send(peer.syn(5, TYPE[kind.name]), peer.data(5, b"next"))
        assert await beats(peer, 5) == [b"next"]
        peer.end()


@with_types
async def test_an_answer_overtakes_data_that_waits(kind: Kind) -> None:
    """The responder knows by itself that a beat cannot wait, whatever the peer has told."""
    async with raw_session(kind, send_buffer=2**20) as (session, peer):
        peer.send(peer.syn(3, 1), peer.syn(5, TYPE[kind.name]))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        core = stream._core
        connection = session._engine.connection
        connection.prioritize(core, HIGHEST)
        connection.send(core, bytes(200_000))
        beat = next(s for s in connection.streams.live.values() if s.id == 5)
        connection.send(beat, b"beat")
        _, streams = connection.data_to_send(1)
        assert [s.id for s in streams] == [5]


# ---- silence


@with_types
async def test_silence_ends_the_session_in_time_and_not_sooner(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, _):
        stream = await session.open_stream()
        await trio.sleep(6.999)
        assert repr(session).endswith("active>")
        with pytest.raises(SessionEndedError) as caught:
            await stream.receive_some()
        assert trio.current_time() == 7
        reason = await session.wait_closed()
        assert caught.value.code is reason.code is ErrorCode.INTERNAL_ERROR
        assert reason.initiator == "transport"
        assert "7 s" in reason.message


@with_types
async def test_any_byte_is_a_sign_of_life(kind: Kind, autojump_clock: MockClock) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
        stream = await session.open_stream()
        # One frame that comes byte by byte, each at the last moment; no beat is ever answered.
        frame = peer.data(stream.id, b"x")
        for byte in frame:
            await trio.sleep(6.9)
            peer.send(bytes([byte]))
        assert await stream.receive_some() == b"x"
        alive = trio.current_time()
        reason = await session.wait_closed()
        assert trio.current_time() == pytest.approx(alive + 7)
        assert reason.initiator == "transport"


class Relayed(HalfCloseable):
    """What came passes through tasks of the transport's own before it can be read."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await super().receive_some(max_bytes)
        for _ in range(8):
            await trio.lowlevel.checkpoint()
        return data


@pytest.mark.parametrize("wrap", [HalfCloseable, Relayed])
@with_types
async def test_bytes_that_wait_when_patience_runs_out_are_read_first(
    kind: Kind, wrap: type[HalfCloseable], autojump_clock: MockClock
) -> None:
    """They wake the reader in the turn of the loop that wakes the watch; trio shuffles."""
    for _ in range(20):
        peer = RawPeer(kind)
        config = kind.config(heartbeat=BEAT)
        async with client_session(wrap(peer.transport), config=config) as session:
            await trio.sleep(6.9)
            autojump_clock.jump(0.2)
            peer.send(peer.rst(99, 0))
            heard = trio.current_time()
            await session.wait_closed()
            assert trio.current_time() == pytest.approx(heard + 7)


@with_types
async def test_bytes_that_wait_in_a_socket_are_read_first(
    kind: Kind, mock_clock: MockClock
) -> None:
    """Memory wakes its reader itself, a socket leaves that to the loop."""
    for _ in range(20):
        near, far = socket_pair()
        async with far, client_session(near, config=kind.config(heartbeat=BEAT)) as session:
            for step in (2, 2, 2, 0.9):
                await wait_all_tasks_blocked()
                mock_clock.jump(step)
            await wait_all_tasks_blocked()
            mock_clock.jump(0.2)
            os.write(far.socket.fileno(), RawPeer(kind).rst(99, 0))
            await wait_all_tasks_blocked()
            assert session.close_reason is None
            await trio.aclose_forcefully(session)


@with_types
async def test_bytes_that_wait_under_tls_are_read_first(
    kind: Kind,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    autojump_clock: MockClock,
) -> None:
    for _ in range(10):
        near, far = memory_stream_pair()
        tls_near = trio.SSLStream(near, client_context, server_hostname="localhost")
        tls_far = trio.SSLStream(far, server_context, server_side=True)
        await together(tls_near.do_handshake, tls_far.do_handshake)
        arrive, far.send_stream.send_all_hook = far.send_stream.send_all_hook, None
        assert arrive is not None
        async with session_pair(
            kind,
            transports=(tls_near, tls_far),
            client={"heartbeat": BEAT},
            server={"heartbeat": None},
        ) as (client, server):
            await trio.sleep(6.9)
            assert server.statistics().bytes_sent
            autojump_clock.jump(0.2)
            memory_stream_pump(far.send_stream, near.receive_stream)  # the echoes of three beats
            await trio.sleep(6.5)
            assert client.close_reason is None
            far.send_stream.send_all_hook = arrive
            await arrive()


@with_types
async def test_while_the_loop_stood_still_the_peer_was_not_silent(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """A peer that only answers had nothing to say: no beat went out."""
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
        await trio.sleep(2.5)
        (echo,) = [beat[-4:] for beat in await beats(peer)][-1:]
        peer.send(peer.data(3, echo))
        await trio.sleep(0.5)
        autojump_clock.jump(100)  # from 3 to 103, and a beat was due at 4
        assert len(await beats(peer)) == 1
        await session.wait_closed()
        # Patience began once more at the end of the pause.
        assert trio.current_time() == pytest.approx(103 + 7)


@with_types
async def test_a_loop_that_stands_still_again_and_again_still_notices_silence(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, _):
        for _ in range(10):
            await trio.sleep(1)
            autojump_clock.jump(3)  # a second more than a beat is late at most
            await wait_all_tasks_blocked()
        assert session.close_reason is not None


@with_types
async def test_a_busy_slow_link_is_not_killed(kind: Kind, autojump_clock: MockClock) -> None:
    """Failure 5: bulk in both directions over a link that needs minutes for it."""

    class Slow(HalfCloseable):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            for start in range(0, len(data), 1000):
                await trio.sleep(0.1)
                await super().send_all(bytes(data[start : start + 1000]))

    near, far = memory_stream_pair()
    transports = (Slow(near), Slow(far))
    beat = Heartbeat(interval=1, tolerance=1)
    size = 1_000_000
    async with session_pair(kind, transports=transports, heartbeat=beat) as (client, server):
        one = await client.open_stream()
        other = await server.accept_stream()
        async with trio.open_nursery() as nursery:
            for stream in (one, other):
                nursery.start_soon(stream.send_all, bytes(size))
                nursery.start_soon(read_exactly, stream, size)
        assert trio.current_time() > size / 10_000
        assert repr(client).endswith("active>")
        assert client.latency is not None


@with_types
async def test_beats_overtake_queued_data(kind: Kind, autojump_clock: MockClock) -> None:
    """A full stream, and many that want to send, are no reason for a beat to wait."""
    async with session_pair(kind, heartbeat=BEAT) as (client, server):
        stream = await client.open_stream()
        await server.accept_stream()
        await fill(stream)
        assert await client.ping() == 0
        assert await server.ping() == 0
        await trio.sleep(100)
        assert repr(client).endswith("active>")
        await stream.reset()


# ---- a heartbeat stream that goes wrong (failure 22)


GONE_WRONG = {
    "ended": (lambda peer: peer.data(3, fin=True), "has ended the heartbeat stream"),
    "ended in a beat": (
        lambda peer: peer.data(3, b"\x00", fin=True),
        "has ended the heartbeat stream",
    ),
    "reset": (lambda peer: peer.rst(3, ErrorCode.STREAM_CANCELLED), "the peer reset the stream"),
    "refused": (lambda peer: peer.rst(3, ErrorCode.STREAM_REFUSED), "the peer reset the stream"),
    "garbage": (lambda peer: peer.data(3, b"\xde\xad\xbe\xef"), "that was not sent"),
    "an echo twice": (lambda peer: peer.data(3, b"\x00\x00\x00\x00" * 2), "that was not sent"),
}


@pytest.mark.parametrize("name", GONE_WRONG)
@with_types
async def test_what_goes_wrong_on_the_heartbeat_stream_ends_heartbeats_only(
    kind: Kind, name: str, autojump_clock: MockClock
) -> None:
    mishap, why = GONE_WRONG[name]
    async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
        outcomes: list[Any] = []

        async def ping() -> None:
            outcomes.append(await outcome_of(session.ping))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping)
            nursery.start_soon(ping)
            await wait_all_tasks_blocked()
            peer.send(mishap(peer))
        answered = [outcome for outcome in outcomes if outcome == 0]
        assert len(answered) == (name == "an echo twice")
        assert all(isinstance(o, HeartbeatError) for o in outcomes if o not in answered)
        with pytest.raises(HeartbeatError, match=why):
            await session.ping()

        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(80_000)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count < 10  # nothing spins, and the session lives without heartbeats
        stream = await session.open_stream()
        peer.send(peer.data(stream.id, b"alive"))
        assert await stream.receive_some() == b"alive"


@pytest.mark.parametrize("name", GONE_WRONG)
@with_types
async def test_once_heartbeats_have_ended_the_system_watches_the_peer(
    kind: Kind, name: str
) -> None:
    """Else nobody would notice that it is gone: the session would stay forever."""
    mishap, _ = GONE_WRONG[name]
    near, far = socket_pair()
    async with near, client_session(far, config=kind.config(heartbeat=BEAT)) as session:
        assert not far.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, session.ping)
            await near.receive_some()
            await near.send_all(mishap(RawPeer(kind)))
        assert far.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await near.send_eof()


@pytest.mark.parametrize("heartbeat", [None, BEAT])
@with_types
async def test_where_the_session_ends_nothing_is_watched_any_more(
    kind: Kind, heartbeat: Heartbeat | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(*args: object) -> None:
        pytest.fail("of a session that is over, or whose user wants no heartbeats")

    monkeypatch.setattr("trio_muxado._engine.keep_alive", watch)
    async with raw_session(kind, client=True, heartbeat=heartbeat) as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, session.ping)
            await peer.frames()
            if heartbeat is None:
                peer.send(peer.rst(3, ErrorCode.STREAM_CANCELLED))
            else:
                peer.end()
            await wait_all_tasks_blocked()


@with_types
async def test_an_echo_looks_at_no_other_ping(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many at once all would take time that grows with the square of their number."""

    def look(*args: object) -> None:
        pytest.fail("nothing was left out")

    monkeypatch.setattr(Heartbeats, "_forget_older", look)
    async with session_pair(kind) as (client, _):
        await together(*[client.ping] * 200)


@with_types
async def test_a_ping_whose_echo_the_peer_leaves_out_is_given_up(kind: Kind) -> None:
    async with raw_session(kind, client=True, heartbeat=None) as (session, peer):
        outcomes: list[Any] = []

        async def ping() -> None:
            outcomes.append(await outcome_of(session.ping))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ping)
            await wait_all_tasks_blocked()
            sent = b"".join(await beats(peer))[-12:]
            peer.send(peer.data(3, sent[8:]))
        assert sorted(isinstance(outcome, HeartbeatError) for outcome in outcomes) == [0, 1, 1]
        assert not heartbeats_of(session)._waiting


@with_types
async def test_a_garbled_echo_resets_the_heartbeat_stream(kind: Kind) -> None:
    async with raw_session(kind, client=True, heartbeat=BEAT) as (_, peer):
        await peer.frames()
        peer.send(peer.data(3, b"\xde\xad\xbe\xef"))
        assert await peer.frames() == [Rst(3, 1)]


@with_types
async def test_a_ping_in_the_moment_of_the_reset(kind: Kind) -> None:
    """The stream is broken and the task that reads echoes does not know yet; trio shuffles."""
    for turns in list(range(5)) * 10:
        async with raw_session(kind, client=True, heartbeat=BEAT) as (session, peer):
            await peer.frames()
            outcomes: list[Any] = []

            async def ping(session: Any = session, outcomes: list[Any] = outcomes) -> None:
                outcomes.append(await outcome_of(session.ping))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ping)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                peer.send(peer.rst(3, ErrorCode.STREAM_CANCELLED))
            assert isinstance(outcomes[0], HeartbeatError)


@each_kind
async def test_a_ping_when_the_session_dies(kind: Kind) -> None:
    kind = V2_TYPED if kind is V2 else kind
    near, far = memory_stream_pair()
    async with client_session(near, config=kind.config(heartbeat=None)) as session:
        outcomes: list[Any] = []

        async def ping() -> None:
            outcomes.append(await outcome_of(session.ping))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping)
            await wait_all_tasks_blocked()
            await far.aclose()
        assert isinstance(outcomes[0], SessionEndedError)
        assert isinstance(await outcome_of(session.ping), SessionEndedError)
