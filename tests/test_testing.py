"""The kit for users' own tests: what it says of time, accidents and streams is exact."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import (
    MockClock,
    check_half_closeable_stream,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from trio_muxado import ErrorCode, Heartbeat, MuxadoConfig, SessionEndedError
from trio_muxado.testing import Link, open_session_pair

from .helpers import echo, outcome_of, read_all, read_exactly, together

MB = 1_000_000

each_end = pytest.mark.parametrize("to", ["client", "server"])


async def takes(call: Callable[[], Awaitable[Any]]) -> float:
    """Seconds until it has returned."""
    start = trio.current_time()
    await call()
    return trio.current_time() - start


async def reaches(stream: trio.abc.ReceiveStream, size: int, times: list[float]) -> None:
    """Read ``size`` bytes and note when they were there."""
    await read_exactly(stream, size)
    times.append(trio.current_time())


def sender_and_reader(
    link: Link, to: str
) -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
    """The end that sends towards ``to``, and the one that is ``to``."""
    ends = {"client": link.client, "server": link.server}
    reader = ends.pop(to)
    return ends.popitem()[1], reader


# ---- the ends are trio streams


LINES: dict[str, dict[str, Any]] = {
    "at once": {},
    "late": {"latency": 0.05},
    "slow": {"bandwidth": 1 * MB},
    "late and slow": {"latency": 0.05, "bandwidth": 10 * MB},
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_the_ends_are_half_closeable_streams(
    line: dict[str, Any], autojump_clock: MockClock
) -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        link = Link(**line, buffer=20_000)
        return link.client, link.server

    async def make_clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        link = Link(**line, buffer=100)
        for end in (link.client, link.server):
            await end.send_all(bytes(100))
        return link.client, link.server

    await check_half_closeable_stream(make, make_clogged)


async def test_what_was_sent_before_the_end_arrives_before_the_end(
    autojump_clock: MockClock,
) -> None:
    link = Link(latency=0.05, bandwidth=1 * MB)
    await link.client.send_all(bytes(50_000))
    await link.client.aclose()
    assert len(await read_all(link.server)) == 50_000
    assert trio.current_time() == pytest.approx(0.1)


async def test_the_news_of_a_reader_that_has_gone_travels_as_well(
    autojump_clock: MockClock,
) -> None:
    link = Link(latency=0.05)
    await link.server.aclose()
    await link.client.send_all(b"too late")
    await trio.sleep(0.05)
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await link.client.send_all(b"known by now")


async def test_a_buffer_that_was_changed_after_the_call_does_not_change_what_was_sent() -> None:
    link = Link()
    data = bytearray(b"sent")
    await link.client.send_all(data)
    data[:] = b"oops"
    assert await link.server.receive_some() == b"sent"


async def test_what_is_wider_than_a_byte_is_sent_as_bytes() -> None:
    link = Link()
    await link.client.send_all(memoryview(bytes(range(8))).cast("I"))
    assert await link.server.receive_some() == bytes(range(8))


def test_a_link_can_be_made_before_trio_runs() -> None:
    link = Link(latency=0.05)

    async def main() -> bytes:
        await link.client.send_all(b"ping")
        return bytes(await link.server.receive_some())

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == b"ping"


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": -0.1},
        {"latency": math.inf},
        {"latency": math.nan},
        {"bandwidth": 0},
        {"bandwidth": -1},
        {"bandwidth": math.nan},
        {"buffer": 0},
    ],
    ids=str,
)
def test_what_no_line_has_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Link(**wrong)


# ---- time


async def test_sending_takes_what_the_bandwidth_says(autojump_clock: MockClock) -> None:
    link = Link(bandwidth=1 * MB)

    async def send() -> None:
        assert await takes(lambda: link.client.send_all(bytes(3 * MB))) == pytest.approx(3)
        await link.client.send_eof()

    await together(send, lambda: read_all(link.server))
    assert trio.current_time() == pytest.approx(3)


async def test_everything_arrives_one_latency_later(autojump_clock: MockClock) -> None:
    link = Link(latency=0.05, bandwidth=1 * MB)
    times: list[float] = []
    await together(
        lambda: link.client.send_all(bytes(100_000)),
        lambda: reaches(link.server, 100_000, times),
    )
    assert times == [pytest.approx(0.15)]


async def test_a_large_write_trickles(autojump_clock: MockClock) -> None:
    link = Link(latency=0.05, bandwidth=1 * MB)
    times: list[float] = []

    async def read() -> None:
        for _ in range(10):
            await reaches(link.server, 10_000, times)

    await together(lambda: link.client.send_all(bytes(100_000)), read)
    # Nothing comes before its time, and nothing later than a packet of 1,500 bytes makes it.
    expected = [0.05 + 0.01 * (n + 1) for n in range(10)]
    late = [time - due for time, due in zip(times, expected, strict=True)]
    assert all(-1e-9 < delay < 0.0015 for delay in late)


async def test_a_round_trip_takes_two_latencies(autojump_clock: MockClock) -> None:
    link = Link(latency=0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, link.server)
        await link.client.send_all(b"ping")
        assert await link.client.receive_some() == b"ping"
        assert trio.current_time() == pytest.approx(0.1)
        await link.client.send_eof()


async def test_a_line_that_was_idle_has_saved_nothing_up(autojump_clock: MockClock) -> None:
    link = Link(bandwidth=1 * MB)
    await trio.sleep(10)
    assert await takes(lambda: link.client.send_all(bytes(50_000))) == pytest.approx(0.05)


async def test_the_two_directions_do_not_share_the_bandwidth(autojump_clock: MockClock) -> None:
    link = Link(bandwidth=1 * MB)

    async def send(end: trio.abc.HalfCloseableStream) -> None:
        await end.send_all(bytes(1 * MB))
        await end.send_eof()

    await together(
        lambda: send(link.client),
        lambda: send(link.server),
        lambda: read_all(link.client),
        lambda: read_all(link.server),
    )
    assert trio.current_time() == pytest.approx(1)


async def test_what_was_on_the_line_when_send_all_was_cancelled_arrives_and_no_more(
    autojump_clock: MockClock,
) -> None:
    link = Link(latency=0.05, bandwidth=1 * MB)
    with trio.move_on_after(0.0301):
        await link.client.send_all(bytes(100_000))
    await link.client.send_all(b"next")
    await link.client.send_eof()
    received = await read_all(link.server)
    # Segments are sent whole: it takes a packet of 1,500 bytes to reach the moment.
    assert received == bytes(31_500) + b"next"
    assert trio.current_time() == pytest.approx(0.05 + len(received) / MB)


async def test_a_sender_waits_for_a_reader_that_is_late(autojump_clock: MockClock) -> None:
    link = Link(bandwidth=1 * MB, buffer=30_000)
    times: list[float] = []

    async def read() -> None:
        await trio.sleep(10)
        await reaches(link.server, 100_000, times)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        # 30,000 bytes are taken at once, the rest when they are read.
        assert await takes(lambda: link.client.send_all(bytes(100_000))) == pytest.approx(10.07)
    assert times == [pytest.approx(10.07)]


@pytest.mark.parametrize(
    "line, room",
    [
        ({}, 65_536),
        ({"bandwidth": 10 * MB}, 65_536),
        ({"bandwidth": 10 * MB, "latency": 0.05}, 65_536 + 500_000),
        ({"latency": 0.05}, 65_536 + 16 * 1024 * 1024),
    ],
    ids=["at once", "slow", "late and slow", "late"],
)
async def test_a_line_has_an_end(
    line: dict[str, Any], room: int, autojump_clock: MockClock
) -> None:
    link = Link(**line)
    with trio.move_on_after(100):
        await link.client.send_all(bytes(20 * MB))
    await link.client.aclose()
    # The last segment is taken whole as long as there is any room.
    assert room <= len(await read_all(link.server)) < room + 65_536


# ---- accidents


async def test_cutting_the_link_breaks_both_ends_at_once_and_for_good(
    autojump_clock: MockClock,
) -> None:
    link = Link(latency=0.05, bandwidth=1 * MB)
    cause = OSError("the digger came")
    found: list[BaseException] = []

    async def fails(call: Callable[[], Awaitable[Any]]) -> None:
        found.append(await outcome_of(call))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, lambda: link.client.send_all(bytes(10 * MB)))
        nursery.start_soon(fails, link.client.receive_some)
        nursery.start_soon(fails, lambda: read_exactly(link.server, 10 * MB))
        await trio.sleep(1)
        link.cut(cause)
        link.cut(OSError("twice"))
        await wait_all_tasks_blocked()
        assert trio.current_time() == 1
    for end in (link.client, link.server):
        for call in (
            lambda end=end: end.send_all(b"x"),
            end.receive_some,
            end.send_eof,
            end.wait_send_all_might_not_block,
        ):
            await fails(call)
    assert len(found) == 11
    for error in found:
        assert isinstance(error, trio.BrokenResourceError)
        assert error.__cause__ is cause


async def test_an_end_that_was_closed_before_the_cut_is_closed_all_the_same() -> None:
    link = Link()
    await link.client.aclose()
    link.cut()
    for call in (link.client.receive_some, lambda: link.client.send_all(b""), link.client.send_eof):
        with pytest.raises(trio.ClosedResourceError):
            await call()
    await link.client.aclose()
    await link.server.aclose()


async def test_a_link_that_was_cut_for_no_reason_gives_none() -> None:
    link = Link()
    link.cut()
    with pytest.raises(trio.BrokenResourceError, match="cut") as caught:
        await link.client.receive_some()
    assert caught.value.__cause__ is None


async def test_what_a_frozen_link_carried_is_late_by_as_long_as_it_was_frozen(
    autojump_clock: MockClock,
) -> None:
    link = Link(latency=0.05, bandwidth=1 * MB)
    times: list[float] = []

    async def accident() -> None:
        await trio.sleep(0.07)
        link.freeze()
        link.freeze()
        await trio.sleep(10)
        link.thaw()
        link.thaw()

    async def send() -> None:
        assert await takes(lambda: link.client.send_all(bytes(100_000))) == pytest.approx(10.1)

    async def read() -> None:
        await reaches(link.server, 15_000, times)
        await reaches(link.server, 85_000, times)

    await together(accident, send, read)
    assert times == [pytest.approx(0.065), pytest.approx(10.15)]


async def test_what_arrived_before_the_frost_can_be_read(autojump_clock: MockClock) -> None:
    link = Link(latency=1)
    await link.client.send_all(b"arrived")
    await trio.sleep(1)
    await link.client.send_all(b"on its way")
    link.freeze()
    await trio.sleep(100)
    assert await link.server.receive_some() == b"arrived"
    with trio.move_on_after(100) as patience:
        await link.server.receive_some()
    assert patience.cancelled_caught
    link.thaw()
    assert await takes(link.server.receive_some) == pytest.approx(1)


@each_end
async def test_one_direction_can_be_frozen_alone(to: Any, autojump_clock: MockClock) -> None:
    link = Link(latency=0.05)
    sender, reader = sender_and_reader(link, to)
    link.freeze(to)
    with trio.move_on_after(100) as patience:
        await sender.send_all(b"frozen")
    assert patience.cancelled_caught
    await reader.send_all(b"free")
    assert await sender.receive_some() == b"free"
    link.thaw(to)
    await sender.send_all(b"late")
    assert await reader.receive_some() == b"late"


async def test_nobody_learns_of_a_reader_that_went_while_the_link_was_frozen(
    autojump_clock: MockClock,
) -> None:
    link = Link(latency=0.05)
    link.freeze()
    await link.server.aclose()
    with trio.move_on_after(100) as patience:
        await link.client.wait_send_all_might_not_block()
    assert patience.cancelled_caught
    link.thaw()
    await link.client.send_all(b"not known yet")
    await trio.sleep(0.05)
    with pytest.raises(trio.BrokenResourceError):
        await link.client.send_all(b"")


async def test_many_frosts_do_not_make_the_line_spin(autojump_clock: MockClock) -> None:
    # Sums of times like these differ in the last digit from their differences.
    link = Link(latency=0.1, bandwidth=3 * MB)

    async def accidents() -> None:
        for _ in range(100):
            await trio.sleep(0.0007)
            link.freeze()
            await trio.sleep(0.0003)
            link.thaw()

    await together(
        accidents,
        lambda: link.client.send_all(bytes(1 * MB)),
        lambda: read_exactly(link.server, 1 * MB),
    )
    assert trio.current_time() == pytest.approx(0.1 + 1 / 3 + 100 * 0.0003)


@each_end
async def test_injected_bytes_arrive_behind_what_is_on_the_line(
    to: Any, autojump_clock: MockClock
) -> None:
    link = Link(latency=0.05, bandwidth=1 * MB)
    sender, reader = sender_and_reader(link, to)
    await sender.send_all(b"sent")
    link.inject(b"", to=to)
    link.inject(b" and injected", to=to)
    await sender.send_all(b" and sent")
    await sender.send_eof()
    assert await read_all(reader) == b"sent and injected and sent"
    assert trio.current_time() == pytest.approx(0.05 + len("sent and sent") / MB)


async def test_nothing_can_be_injected_behind_an_end() -> None:
    link = Link()
    await link.client.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        link.inject(b"x", to="server")
    link.inject(b"x", to="client")
    link.cut()
    with pytest.raises(trio.BrokenResourceError):
        link.inject(b"x", to="client")


async def test_a_tap_shows_what_each_end_puts_on_the_line() -> None:
    sent: dict[str, bytes] = {"client": b"", "server": b""}

    def tap(sender: str, data: bytes) -> None:
        sent[sender] += data

    link = Link(tap=tap)
    await link.client.send_all(b"question")
    link.inject(b"forged", to="client")
    await link.server.send_all(b"answer")
    assert sent == {"client": b"question", "server": b"answer"}


# ---- pairs of sessions


LINKS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "link": Link,
    "late": lambda: Link(latency=0.05, bandwidth=1 * MB),
    "memory": memory_stream_pair,
    "lockstep": lockstep_stream_pair,
}


@pytest.mark.parametrize("make_link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("wire", ["v1", "v2", "auto"])
async def test_two_sessions_talk_over_anything(
    make_link: Callable[[], Any], wire: Any, autojump_clock: MockClock
) -> None:
    config = MuxadoConfig(wire=wire)
    async with open_session_pair(config=config, link=make_link()) as (client, server):
        for opener, acceptor in ((client, server), (server, client)):
            near = await opener.open_stream()
            await near.send_all(b"hello")
            await near.send_eof()
            far = await acceptor.accept_stream()
            assert await read_all(far) == b"hello"
            await far.aclose()
            assert await read_all(near) == b""
        assert client.wire == server.wire == ("v2" if wire == "v2" else "v1")
    for session in (client, server):
        assert (await session.wait_closed()).code is ErrorCode.NO_ERROR


async def test_a_server_can_have_a_configuration_of_its_own() -> None:
    mine, its = MuxadoConfig(wire="v2"), MuxadoConfig(accept_backlog=1)
    async with open_session_pair(config=mine, server_config=its) as (client, server):
        assert client.config is mine
        assert server.config is its
    async with open_session_pair(config=mine) as (client, server):
        assert client.config is server.config is mine


async def test_what_the_body_raises_comes_out_bare() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_session_pair():
            raise error
    assert caught.value is error


async def test_what_a_handler_of_the_users_raises_is_in_the_users_own_group() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.RaisesGroup(KeyError):
        async with open_session_pair(), trio.open_nursery() as nursery:
            nursery.start_soon(fail)


async def test_a_pair_can_be_cancelled(autojump_clock: MockClock) -> None:
    async def main() -> None:
        with trio.move_on_after(1):
            async with open_session_pair() as (client, _):
                await client.accept_stream()

    assert await takes(main) == pytest.approx(1)


async def test_a_cut_link_ends_both_sessions_with_the_cause() -> None:
    link = Link()
    cause = OSError("the digger came")
    async with open_session_pair(link=link) as (client, server):
        stream = await client.open_stream()
        link.cut(cause)
        for session in (client, server):
            reason = await session.wait_closed()
            assert reason.error is not None
            assert reason.error.__cause__ is cause
        with pytest.raises(SessionEndedError):
            await stream.receive_some()


async def test_a_frozen_link_ends_both_sessions_when_their_patience_does(
    autojump_clock: MockClock,
) -> None:
    link = Link()
    config = MuxadoConfig(heartbeat=Heartbeat(interval=3, tolerance=10))
    async with open_session_pair(config=config, link=link) as (client, server):
        stream = await client.open_stream()
        await server.accept_stream()
        await trio.sleep(100)
        link.freeze()
        frozen = trio.current_time()
        with pytest.raises(SessionEndedError, match="nothing came"):
            await stream.receive_some()
        await server.wait_closed()
    # The last beat may have been an interval before.
    assert 10 <= trio.current_time() - frozen <= 13


async def test_injected_garbage_ends_the_session_that_gets_it() -> None:
    link = Link()
    async with open_session_pair(config=MuxadoConfig(wire="v1"), link=link) as (client, server):
        await (await client.open_stream()).send_all(b"x")
        await server.accept_stream()
        link.inject(b"GET / HTTP/1.1\r\n\r\n", to="server")
        assert (await server.wait_closed()).initiator == "local"
        assert (await client.wait_closed()).initiator == "remote"
