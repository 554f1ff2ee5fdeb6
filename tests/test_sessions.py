"""What a MuxadoSession shows of itself, what it refuses, and what it decides of the wire."""

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    Heartbeat,
    MuxadoConfig,
    MuxadoError,
    NoMoreStreamsError,
    OpenStreamError,
    SessionClosedError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
    client_session,
    open_muxado_session,
    serve_muxado,
    server_session,
)

from .helpers import (
    V1,
    V2,
    V2_TYPED,
    Gated,
    Kind,
    RawPeer,
    Recording,
    Turns,
    each_kind,
    each_wire,
    fill,
    number_of,
    raw_session,
    read_all,
    session_pair,
)

# ---- what it shows of itself


@each_kind
async def test_a_session_shows_its_wire_transport_and_config(kind: Kind) -> None:
    near, far = memory_stream_pair()
    config = kind.config()
    async with client_session(near, config=config) as client, server_session(far) as server:
        assert client.transport_stream is near
        assert client.config is config
        assert client.wire == kind.wire
        assert server.wire is None
        number = number_of(server)
        assert repr(server) == f"<MuxadoSession {number} server undetected active>"
        await client.open_stream()
        await server.accept_stream() if not kind.typed else None
        await wait_all_tasks_blocked()
        assert server.wire == kind.wire
        assert repr(server) == f"<MuxadoSession {number} server {kind.wire} active>"
        number = number_of(client)
        assert number_of(server) != number
        assert repr(client) == f"<MuxadoSession {number} client {kind.wire} active>"
    assert repr(client) == f"<MuxadoSession {number} client {kind.wire} ended>"


@pytest.mark.parametrize("run", [client_session, server_session, open_muxado_session])
async def test_what_runs_a_session_does_so_once(run: Any) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        if run is open_muxado_session:
            listener = partial(serve_muxado, lambda session: session.wait_closed(), 0)
            [where, *_] = await nursery.start(partial(listener, host="127.0.0.1"))
            manager = run(*where.socket.getsockname())
        else:
            manager = run(near)
        async with manager as session:
            with pytest.raises(RuntimeError, match="a session is for one `async with`"):
                async with manager:
                    raise AssertionError
            await trio.aclose_forcefully(far)
        assert session.close_reason is not None
        with pytest.raises(RuntimeError, match="a session is for one `async with`"):
            async with manager:
                raise AssertionError
        nursery.cancel_scope.cancel()


async def test_a_client_speaks_v1_unless_told_otherwise() -> None:
    near, far = memory_stream_pair()
    async with client_session(near) as client, server_session(far):
        assert client.wire == "v1"


async def test_a_server_can_insist_on_one_generation() -> None:
    async with raw_session(V2, wire="v1") as (session, peer):
        assert session.wire == "v1"
        peer.send(peer.syn(3))
        reason = await session.wait_closed()
        assert (reason.code, reason.initiator) == (ErrorCode.PROTOCOL_ERROR, "local")


@pytest.mark.parametrize(
    "choices",
    [
        {"wire": "v3"},
        {"close_timeout": 0},
        {"send_timeout": -1.0},
        {"handshake_timeout": 0},
        {"half_open_timeout": 0},
        {"send_buffer": 0},
    ],
)
def test_a_config_refuses_nonsense(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(choices))):
        MuxadoConfig(**choices)


@pytest.mark.parametrize("choices", [{"interval": 0}, {"tolerance": -1}])
def test_a_heartbeat_refuses_nonsense(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(choices))):
        Heartbeat(**choices)


# ---- the wire, as far as a session decides it


@each_wire
async def test_what_waits_together_goes_out_in_one_write(kind: Kind) -> None:
    near, far = memory_stream_pair()
    recording = Recording(near)
    async with session_pair(kind, transports=(recording, far), heartbeat=None) as (client, server):
        streams = [await client.open_stream() for _ in range(10)]
        await wait_all_tasks_blocked()
        recording.sent.clear()

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, b"x" * 100)
        await wait_all_tasks_blocked()
        assert len(recording.sent) < 5
        for _ in streams:
            stream = await server.accept_stream()
            assert await stream.receive_some() == b"x" * 100


@each_wire
async def test_a_higher_priority_overtakes_what_waits(kind: Kind) -> None:
    near, far = memory_stream_pair()
    recording = Recording(near)
    gate = Gated(recording)
    async with session_pair(kind, transports=(gate, far), heartbeat=None) as (client, _):
        low = await client.open_stream(priority=1)
        high = await client.open_stream(priority=2)
        await wait_all_tasks_blocked()
        gate.shut()
        await client.open_stream()
        await wait_all_tasks_blocked()  # the writer waits for the gate
        await low.send_all(b"low")
        await high.send_all(b"high")
        gate.open()
        await wait_all_tasks_blocked()
        written = b"".join(recording.sent)
        assert 0 < written.index(b"high") < written.index(b"low")


@each_wire
async def test_filling_one_stream_leaves_the_others_alone(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await fill(await client.open_stream())
        other = await client.open_stream()
        await server.accept_stream()
        await other.send_all(b"free")
        assert await (await server.accept_stream()).receive_some() == b"free"


@each_wire
async def test_peers_frames_cut_anywhere(kind: Kind) -> None:
    peer = RawPeer(kind)
    content = (
        peer.syn(3) + peer.data(3, b"abc") + peer.data(3, b"def", fin=True) + peer.goaway(0, 0)
    )
    async with server_session(peer.transport, config=MuxadoConfig(heartbeat=None)) as session:
        for byte in content:
            peer.send(bytes([byte]))
            await wait_all_tasks_blocked()
        assert session.wire == kind.wire
        assert await read_all(await session.accept_stream()) == b"abcdef"
        peer.end()


# ---- errors carry what one must know


def test_every_error_is_the_trio_exception_that_generic_code_catches() -> None:
    error = MuxadoError("text", code=ErrorCode.NO_ERROR, initiator="local")
    assert (error.debug, error.safe_to_retry, str(error)) == (b"", False, "text")
    assert issubclass(StreamResetError, trio.BrokenResourceError)
    assert issubclass(SessionEndedError, trio.BrokenResourceError)
    assert issubclass(OpenStreamError, trio.BrokenResourceError)
    assert issubclass(StreamClosedError, trio.ClosedResourceError)
    assert issubclass(SessionClosedError, trio.ClosedResourceError)
    assert issubclass(NoMoreStreamsError, trio.EndOfChannel)


async def test_a_typed_client_of_an_untyped_server_is_read_as_data() -> None:
    """Both ends must agree: nothing on the wire tells, so this shows what a mistake looks like."""
    near, far = memory_stream_pair()
    async with client_session(near, config=V2_TYPED.config()) as client:
        async with server_session(far, config=V2.config()) as server:
            stream = await client.open_stream(type=0x41424344)
            await stream.send_all(b"data")
            await wait_all_tasks_blocked()
            streams = [await server.accept_stream(), await server.accept_stream()]
            assert b"ABCDdata" in [await stream.receive_some() for stream in streams]


async def test_an_idle_session_costs_no_turns(autojump_clock: MockClock) -> None:
    """Nobody polls: with no heartbeat two sessions sleep for a day without a single step."""

    async with session_pair(V1, heartbeat=None) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await wait_all_tasks_blocked()
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(86_400)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count < 10
