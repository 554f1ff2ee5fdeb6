"""How a session closes: gracefully, at once, by force, and what is left then."""

import gc
import ssl
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoStream,
    SessionClosedError,
    SessionEndedError,
    StreamResetError,
    client_session,
    server_session,
)
from trio_muxado._protocol.frames import GoAway
from trio_muxado._receive_channel import ReceiveChannel

from .helpers import (
    SEND_BUFFER,
    STEADY,
    Deaf,
    Gated,
    Kind,
    RawPeer,
    Transport,
    each_kind,
    each_wire,
    fill,
    outcome_of,
    raw_session,
    read_all,
    session_pair,
    tcp_pair,
    tls_pair,
    with_types,
)

EXTENSION = 0xFFFFFF00


# ---- gracefully


@each_kind
async def test_what_was_sent_arrives_although_the_session_closes_at_once(kind: Kind) -> None:
    content = bytes(range(256)) * 4096  # 1 MiB, far more than a window
    received: list[bytes] = []
    near, far = memory_stream_pair()

    async def serve() -> None:
        async with server_session(far, config=kind.config(wire="auto")) as server:
            received.append(await read_all(await server.accept_stream()))
            async for _ in server:
                raise AssertionError("there is one stream")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with client_session(near, config=kind.config(send_buffer=len(content))) as client:
            stream = await client.open_stream()
            await stream.send_all(content)
            await stream.aclose()
    assert received == [content]


@each_wire
async def test_what_came_on_streams_that_closing_refuses_is_let_go_of(kind: Kind) -> None:
    """The state machine found it: it stayed in memory until the session was gone."""
    async with session_pair(kind, heartbeat=None) as (client, server):
        for _ in range(3):
            stream = await client.open_stream()
            await stream.send_all(b"for nobody")
        await wait_all_tasks_blocked()
        waiting = set(map(id, server._engine.steps.receivers.values()))
        assert len(waiting) == 3
        await server.aclose()
        assert not server._engine.steps.receivers
        gc.collect()
        assert not [o for o in gc.get_objects() if type(o) is ReceiveChannel and id(o) in waiting]


@each_wire
async def test_closing_says_goaway_flushes_and_half_closes(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        async with trio.open_nursery() as nursery:
            await stream.send_all(b"last words")
            nursery.start_soon(session.aclose)
            frames = await peer.frames()
            assert [f for f in frames if isinstance(f, GoAway)] == [GoAway(3, 0)]
            assert b"last words" in bytes(peer.raw)
            assert peer.has_ended
            # The peer may still say what it has to say, until it ends too.
            peer.send(peer.data(3, b"answer"))
            assert await stream.receive_some() == b"answer"
            peer.end()
    assert (await session.wait_closed()).clean


@each_wire
async def test_a_transport_that_cannot_be_half_closed_is_closed(kind: Kind) -> None:
    near, far = memory_stream_pair()
    transports = (Transport(near), Transport(far))
    async with session_pair(kind, transports=transports) as (client, server):
        stream = await client.open_stream()
        await stream.send_all(b"x")
        await server.accept_stream()
        await client.aclose()
        assert (await server.wait_closed()).clean
    assert transports[0].closed
    assert transports[1].closed


@each_wire
async def test_aclose_again_does_nothing(kind: Kind) -> None:
    async with session_pair(kind) as (client, _):
        await client.aclose()
        for _ in range(2):
            with assert_checkpoints():
                await client.aclose()
        assert await outcome_of(client.wait_closed) == await client.wait_closed()


@each_wire
async def test_two_acloses_at_once_lose_nothing(kind: Kind) -> None:
    """The second must not cut short what the first one still waits for."""
    size = kind.window + SEND_BUFFER
    async with session_pair(kind, **STEADY) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        await near.send_all(bytes(size))
        await near.aclose()
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await read_all(far))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            nursery.start_soon(receive)
    assert len(received[0]) == size


@each_wire
async def test_leaving_the_block_waits_for_an_aclose_under_way(kind: Kind) -> None:
    size = kind.window + SEND_BUFFER
    near, far = memory_stream_pair()
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        async with server_session(far, config=kind.config(wire="auto", **STEADY)) as server:
            async with client_session(near, config=kind.config(**STEADY)) as client:
                stream = await client.open_stream()
                await stream.send_all(bytes(size))
                await stream.aclose()
                nursery.start_soon(client.aclose)
                await wait_all_tasks_blocked()

                async def receive() -> None:
                    received.append(await read_all(await server.accept_stream()))

                nursery.start_soon(receive)
    assert [len(content) for content in received] == [size]


@each_wire
async def test_aclose_from_inside_a_handler(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        outcomes: list[Any] = []

        async def handler(stream: MuxadoStream) -> None:
            await stream.send_all(b"bye")
            await stream.session.aclose()
            outcomes.append(await outcome_of(stream.receive_some))

        stream = await client.open_stream()
        await server.serve_streams(handler)
        assert type(outcomes[0]) is SessionClosedError
        assert await stream.receive_some() == b"bye"


@pytest.mark.parametrize(
    "window, announced, safe", [(None, False, True), (None, True, True), (1 << 20, False, False)]
)
@each_kind
async def test_streams_that_nobody_has_accepted_are_refused_and_never_handed_out(
    kind: Kind, window: int | None, announced: bool, safe: bool
) -> None:
    """Where a larger window has been granted on them already, their opener cannot know that."""
    choices = {"receive_window": window}
    async with session_pair(kind, heartbeat=None, server=choices) as (client, server):
        streams = [await client.open_stream() for _ in range(3)]
        for stream in streams:
            await stream.send_all(b"pay 100")
        taken = await server.accept_stream()
        await wait_all_tasks_blocked()
        if announced:
            await server.goaway()
        await server.aclose()
        assert type(await outcome_of(server.accept_stream)) is SessionClosedError
        errors = [await outcome_of(stream.receive_some) for stream in streams]
        assert taken.id == streams[0].id
        assert [type(e) for e in errors] == [SessionEndedError] + [StreamResetError] * 2
        assert [e.safe_to_retry for e in errors] == [False, safe, safe]


@with_types
async def test_aclose_from_inside_an_extension_handler(kind: Kind) -> None:
    ended: list[str] = []

    async def handler(stream: MuxadoStream) -> None:
        try:
            await stream.session.aclose()
        finally:
            ended.append("ended")

    async with session_pair(kind, server={"extensions": {EXTENSION: handler}}) as (client, server):
        stream = await client.open_stream(type=EXTENSION)
        assert (await server.wait_closed()).initiator == "local"
        assert (await client.wait_closed()).clean
        assert isinstance(await outcome_of(stream.receive_some), SessionEndedError)
    assert ended == ["ended"]


@each_wire
async def test_no_stream_is_opened_while_the_session_closes(kind: Kind) -> None:
    async with session_pair(kind, max_outbound_streams=1, heartbeat=None) as (client, _):
        stream = await client.open_stream()
        await fill(stream)
        outcomes: list[Any] = []

        async def open_one() -> None:
            outcomes.append(await outcome_of(client.open_stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            assert type(outcomes[0]) is SessionClosedError
            for call in (client.open_stream, client.goaway, client.drain):
                with pytest.raises(SessionClosedError):
                    await call()
            await stream.reset()


@each_wire
async def test_leaving_while_a_send_is_blocked(kind: Kind, autojump_clock: MockClock) -> None:
    outcomes: list[Any] = []
    async with trio.open_nursery() as nursery:
        async with session_pair(kind, heartbeat=None) as (client, server):
            stream = await client.open_stream()
            await server.accept_stream()
            await fill(stream)

            async def send() -> None:
                outcomes.append(await outcome_of(lambda: stream.send_all(b"x")))

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await client.aclose()
    assert type(outcomes[0]) is SessionClosedError


@each_wire
async def test_closing_forcefully_is_at_once(kind: Kind, autojump_clock: MockClock) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        stream = await client.open_stream()
        await server.accept_stream()
        await fill(stream)
        start = trio.current_time()
        await trio.aclose_forcefully(client)
        assert (await client.wait_closed()).initiator == "local"
        assert (await server.wait_closed()).code is ErrorCode.PEER_EOF
        assert trio.current_time() == start
        await trio.aclose_forcefully(client)


@each_wire
async def test_closing_forcefully_cuts_short_what_is_under_way(
    kind: Kind, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    async with client_session(Deaf(), config=kind.config(heartbeat=None)) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.aclose)
            await wait_all_tasks_blocked()
            await trio.aclose_forcefully(session)
    assert trio.current_time() == start


@each_wire
async def test_a_violation_is_answered_before_the_session_is_gone(kind: Kind) -> None:
    """The body learns of it at the same moment as the frame writer; the GOAWAY still goes out."""
    for _ in range(20):
        peer = RawPeer(kind)
        with pytest.raises(SessionEndedError):
            async with server_session(peer.transport, config=kind.config()) as session:
                async with trio.open_nursery() as nursery:
                    nursery.cancel_scope.cancel()
                peer.send(peer.syn(3), peer.violation())
                peer.end()
                async for _stream in session:
                    pass
        frames = await peer.frames()
        assert [f.error_code for f in frames if isinstance(f, GoAway)] == [1]


@each_kind
async def test_what_closing_refuses_leaves_nothing_behind(kind: Kind) -> None:
    """The soak found it: the entries of streams that nobody had accepted stayed."""
    async with session_pair(kind) as (client, server):
        for _ in range(3):
            await client.open_stream()
        await wait_all_tasks_blocked()
        assert server.statistics().waiting == 3
        await server.aclose()
        assert not server._engine.steps.receivers
        assert server.statistics().waiting == 0


@each_kind
@pytest.mark.parametrize("before", [True, False])
async def test_streams_that_the_peer_has_reset_wait_no_more(kind: Kind, before: bool) -> None:
    """They wait in their turn, and are counted: also where the session closes meanwhile."""
    async with raw_session(kind, wire="auto", close_timeout=5) as (session, peer):
        opened = [peer.syn(3, 7), peer.syn(5, 7)] if kind.typed else [peer.syn(3), peer.syn(5)]
        if before:
            peer.send(*opened, peer.rst(3))
            await wait_all_tasks_blocked()
            assert session.statistics().waiting == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.aclose)
            await wait_all_tasks_blocked()
            if not before:  # the version is not known yet, so no GOAWAY could say it
                peer.send(*opened, peer.rst(3))
                await wait_all_tasks_blocked()
            assert session.statistics().waiting == 0
            peer.end()
        with pytest.raises(SessionClosedError):
            await session.accept_stream()
        assert session.statistics().waiting == 0


# ---- nothing is left


@each_wire
async def test_nothing_survives_a_session(kind: Kind) -> None:
    """Not a task, also where a session was torn down in the middle of everything."""

    def tasks() -> set[trio.lowlevel.Task]:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        found = set()
        waiting = [root]
        while waiting:
            task = waiting.pop()
            found.add(task)
            for nursery in task.child_nurseries:
                waiting += nursery.child_tasks
        return found

    before = tasks()
    with pytest.raises(ValueError, match="torn down"):
        async with session_pair(kind) as (client, server):
            stream = await client.open_stream()
            await server.accept_stream()
            await fill(stream)
            raise ValueError("torn down")
    assert tasks() == before


@each_wire
async def test_a_session_over_tcp_closes_its_socket(kind: Kind) -> None:
    """TCP, because only a real socket warns when it is left open."""
    async with tcp_pair() as (near, far):
        async with session_pair(kind, transports=(near, far)) as (client, server):
            stream = await client.open_stream()
            await stream.send_all(b"x")
            await server.accept_stream()
        for transport in (near, far):
            assert isinstance(transport, trio.SocketStream)
            assert transport.socket.fileno() == -1


@each_wire
async def test_a_gate_that_opens_late_lets_the_rest_out(kind: Kind) -> None:
    """Closing while the transport is stuck: what was accepted goes out once it moves."""
    near, far = memory_stream_pair()
    gate = Gated(near)
    async with session_pair(kind, transports=(gate, far), heartbeat=None) as (client, server):
        stream = await client.open_stream()
        inbound = await server.accept_stream()
        gate.shut()
        await stream.send_all(b"the last words")
        await stream.aclose()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            gate.open()
            assert await read_all(inbound) == b"the last words"
            assert (await server.wait_closed()).clean


@each_wire
async def test_over_tls_the_last_data_arrives_while_the_peer_still_sends(kind: Kind) -> None:
    """Closing a TLS stream over unread bytes would make TCP drop what is on its way."""
    authority = trustme.CA()
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    async with (
        tls_pair(client_context, server_context) as (near, far),
        session_pair(kind, transports=(near, far)) as (client, server),
        trio.open_nursery() as nursery,
    ):

        async def upload() -> None:
            stream = await client.open_stream()
            with pytest.raises(MuxadoError):
                while True:
                    await stream.send_all(bytes(50_000))

        async def answer_and_leave() -> None:
            upward = await server.accept_stream()
            nursery.start_soon(outcome_of, partial(read_all, upward))
            downward = await server.open_stream()
            await downward.send_all(bytes(1_000_000))
            await downward.aclose()
            await server.aclose()

        nursery.start_soon(upload)
        nursery.start_soon(answer_and_leave)
        assert len(await read_all(await client.accept_stream())) == 1_000_000
        assert (await client.wait_closed()).clean


@pytest.mark.parametrize("data", [b"x", bytes(20_000), bytearray(b"x")])
@each_wire
async def test_nothing_more_is_accepted_while_the_session_closes(
    kind: Kind, data: bytes | bytearray
) -> None:
    near, far = memory_stream_pair()
    gated = Gated(near)
    async with session_pair(kind, transports=(gated, far), heartbeat=None) as (client, _):
        stream = await client.open_stream()
        gated.shut()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            before = stream.unsent
            for call in (partial(stream.send_all, data), stream.wait_send_all_might_not_block):
                assert isinstance(await outcome_of(call), SessionClosedError)
            assert stream.unsent == before
            gated.open()


@each_wire
async def test_a_transport_is_not_closed_under_its_sender(kind: Kind) -> None:
    """Also where the sender takes a while to be cancelled."""

    class Slow(Deaf):
        sending = False

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            self.sending = True
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    for _ in range(10):
                        await trio.lowlevel.checkpoint()
                self.sending = False

        async def aclose(self) -> None:
            assert not self.sending
            await super().aclose()

    transport = Slow()
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        await session.open_stream()
        await wait_all_tasks_blocked()
        assert transport.sending
        await trio.aclose_forcefully(session)
    assert transport.closed
