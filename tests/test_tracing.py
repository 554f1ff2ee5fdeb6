"""A tracer sees every frame of a session, both ways, as it was on the wire."""

import io
import json

import pytest
import trio
import trio.testing

from trio_muxado import (
    ErrorCode,
    JsonLinesTracer,
    MuxadoConfig,
    TableTracer,
    TracedFrame,
    client_session,
    server_session,
)


async def exchange(client_config: MuxadoConfig, server_config: MuxadoConfig) -> None:
    """A request that is reset, and a GOAWAY with a debug text."""
    one, other = trio.testing.memory_stream_pair()
    async with (
        client_session(one, config=client_config) as client,
        server_session(other, config=server_config) as server,
    ):
        # A writer that sleeps lets what follows a stream's opening join its frame.
        await trio.testing.wait_all_tasks_blocked()
        stream = await client.open_stream()
        await stream.send_all(b"hello")
        await stream.send_eof()
        accepted = await server.accept_stream()
        await accepted.receive_some()
        await accepted.reset(77)
        await trio.testing.wait_all_tasks_blocked()
        await client.goaway(ErrorCode.PROTOCOL_ERROR, b"enough")
        await trio.testing.wait_all_tasks_blocked()


EXPECTED = {
    "v1": [
        ("out", "SYN", 3, 0, "type=0x0 priority=0"),
        ("out", "DATA", 3, 5, "FIN"),
        ("in", "RST", 3, 4, "error 77"),
        ("out", "GOAWAY", 0, 8, "last=0 PROTOCOL_ERROR"),
        ("out", "GOAWAY debug", 0, 6, "enough"),
    ],
    "v2": [
        ("out", "DATA", 3, 5, "SYN"),
        ("out", "DATA", 3, 0, "FIN"),
        ("in", "RST", 3, 4, "error 77"),
        ("out", "GOAWAY", 0, 8, "last=0 PROTOCOL_ERROR"),
        ("out", "GOAWAY debug", 0, 6, "enough"),
        ("out", "DATA", 0x7FFFFFFF, 0, "FIN"),
    ],
}
HEARTBEAT = 0xFFFFFEFF


@pytest.mark.parametrize("wire", ["v1", "v2"])
async def test_every_frame_is_seen_in_order_from_both_ends(wire) -> None:
    seen: dict[str, list[TracedFrame]] = {"client": [], "server": []}
    await exchange(
        MuxadoConfig(wire=wire, heartbeat=None, tracer=seen["client"].append),
        MuxadoConfig(heartbeat=None, tracer=seen["server"].append),
    )
    facts = [(f.direction, f.frame, f.stream_id, f.length, f.detail) for f in seen["client"]]
    assert facts[: len(EXPECTED[wire])] == EXPECTED[wire]
    # The other end sees the same frames from the other side, detection or not.
    turned = {"in": "out", "out": "in"}
    mirror = [(turned[f.direction], f.frame, f.stream_id, f.length) for f in seen["server"]]
    assert mirror[: len(EXPECTED[wire])] == [fact[:4] for fact in EXPECTED[wire]]
    (session,) = {f.session for f in seen["server"]}
    assert {f.session for f in seen["client"]}.isdisjoint({session})
    assert [f.time for f in seen["client"]] == sorted(f.time for f in seen["client"])


async def test_types_priorities_and_credit_are_told() -> None:
    frames: list[TracedFrame] = []
    one, other = trio.testing.memory_stream_pair()
    async with (
        client_session(one, config=MuxadoConfig(heartbeat=None, tracer=frames.append)) as client,
        server_session(other, config=MuxadoConfig(heartbeat=None)) as server,
    ):
        stream = await client.open_stream(type=7, priority=5)
        await stream.send_all(bytes(65536))
        accepted = await server.accept_stream()
        await trio.testing.wait_all_tasks_blocked()
        assert len(await accepted.receive_some()) == 65536
        await trio.testing.wait_all_tasks_blocked()
    details = [(f.frame, f.detail) for f in frames]
    assert ("SYN", "type=0x7 priority=5") in details
    assert ("WNDINC", "+131072") in details


@pytest.mark.parametrize(
    "wire, sent, expected",
    [
        (
            "v2",
            "00000312 00000003 616263 00000540 00000000 6162636465",
            ("UNKNOWN", "type=4 flags=0x0"),
        ),
        ("v1", "00000001 00000003 00000005 00000003", ("MALFORMED", "PROTOCOL_ERROR")),
        ("v1", "00000101 00000003", ("SYN", "type=0x0 priority=0 FIN")),
    ],
)
async def test_what_a_peer_makes_up_is_told_as_well(wire, sent, expected) -> None:
    frames: list[TracedFrame] = []
    one, other = trio.testing.memory_stream_pair()
    config = MuxadoConfig(wire=wire, heartbeat=None, tracer=frames.append)
    async with server_session(other, config=config):
        await one.send_all(bytes.fromhex(sent))
        await trio.testing.wait_all_tasks_blocked()
        await one.aclose()
    frame, detail = expected
    assert [f for f in frames if f.frame == frame and f.detail.startswith(detail)]


async def test_a_frame_in_pieces_is_one_frame() -> None:
    frames: list[TracedFrame] = []
    one, other = trio.testing.memory_stream_pair()
    config = MuxadoConfig(heartbeat=None, tracer=frames.append)
    async with server_session(other, config=config) as session:
        for byte in bytes.fromhex("00000512 00000003") + b"hello":
            await one.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        stream = await session.accept_stream()
        assert await stream.receive_some() == b"hello"
        await one.aclose()
    assert [(f.frame, f.length) for f in frames if f.direction == "in"] == [("DATA", 5)]


async def test_the_table_has_a_line_for_every_frame() -> None:
    table = io.StringIO()
    await exchange(
        MuxadoConfig(heartbeat=None, tracer=TableTracer(table)), MuxadoConfig(heartbeat=None)
    )
    head, *lines = table.getvalue().splitlines()
    assert head.split() == ["time", "session", "frame", "stream", "bytes", "detail"]
    assert lines[0].split() == [
        *lines[0].split()[:2],
        "-->",
        "SYN",
        "3",
        "0",
        "type=0x0",
        "priority=0",
    ]
    assert any(line.split()[2:] == ["<--", "RST", "3", "4", "error", "77"] for line in lines)


async def test_json_lines_hold_the_fields() -> None:
    lines = io.StringIO()
    await exchange(
        MuxadoConfig(heartbeat=None, tracer=JsonLinesTracer(lines)), MuxadoConfig(heartbeat=None)
    )
    first = json.loads(lines.getvalue().splitlines()[0])
    assert first["frame"] == "SYN"
    assert first["direction"] == "out"
    assert set(first) == set(TracedFrame.__dataclass_fields__)


async def test_sessions_that_share_a_tracer_are_told_apart_for_all_their_lives() -> None:
    """As the sessions of a server do, which have one configuration."""
    frames: list[TracedFrame] = []
    table, lines = io.StringIO(), io.StringIO()

    def tracer(frame: TracedFrame) -> None:
        frames.append(frame)
        for write in (write_table, write_lines):
            write(frame)

    write_table, write_lines = TableTracer(table), JsonLinesTracer(lines)
    config = MuxadoConfig(heartbeat=None, tracer=tracer)
    shown: list[str] = []
    for _ in range(2):
        one, other = trio.testing.memory_stream_pair()
        async with client_session(one, config=MuxadoConfig(heartbeat=None)) as client:
            async with server_session(other, config=config) as server:
                await client.open_stream()
                await server.accept_stream()
                shown.append(repr(server))
                await client.goaway()
                await trio.testing.wait_all_tasks_blocked()
                assert repr(server) != shown[-1]  # what else it says of itself changes
                assert repr(server).split()[1] == shown[-1].split()[1]
    numbers = [frame.session for frame in frames]
    first, second = (int(text.split()[1]) for text in shown)
    assert first != second
    assert numbers == sorted(numbers)
    assert set(numbers) == {first, second}
    assert [int(line.split()[1]) for line in table.getvalue().splitlines()[1:]] == numbers
    assert [json.loads(line)["session"] for line in lines.getvalue().splitlines()] == numbers


async def test_the_table_goes_to_standard_error_by_default(capsys) -> None:
    await exchange(MuxadoConfig(tracer=TableTracer()), MuxadoConfig())
    assert "SYN" in capsys.readouterr().err


async def test_what_a_tracer_raises_leaves_the_session_bare() -> None:
    def broken(frame: TracedFrame) -> None:
        raise ZeroDivisionError(frame.frame)

    one, _other = trio.testing.memory_stream_pair()
    with pytest.raises(ZeroDivisionError, match="SYN"):
        async with client_session(one, config=MuxadoConfig(tracer=broken)) as client:
            await client.wait_closed()
