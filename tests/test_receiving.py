"""What MuxadoStream promises of receiving: which bytes, how many, and being cancelled in it."""

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from .helpers import (
    STEADY,
    V1,
    Kind,
    cancel_at_checkpoint,
    each_wire,
    outcome_of,
    raw_session,
    read_all,
    stream_pair,
)


@each_wire
async def test_receive_returns_all_that_waits_at_once(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), *(peer.data(3, bytes([number]) * 2000) for number in range(10)))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"".join(bytes([n]) * 2000 for n in range(10))


@each_wire
async def test_receive_without_a_limit_returns_at_most_256_kib(kind: Kind) -> None:
    async with raw_session(kind, receive_window=400_000) as (session, peer):
        peer.send(peer.syn(3), *(peer.data(3, bytes(10_000)) for _ in range(40)))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        sizes: list[int] = []
        while sum(sizes) < 400_000:
            sizes.append(len(await stream.receive_some()))
        assert 64 * 1024 <= sizes[0] == max(sizes) <= 256 * 1024


@each_wire
async def test_receive_keeps_what_was_not_asked_for(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(b"abcdefgh")
        await near.send_eof()
        assert await far.receive_some(3) == b"abc"
        assert await far.receive_some(1) == b"d"
        assert await far.receive_some(100) == b"efgh"
        assert await far.receive_some(100) == b""


@pytest.mark.parametrize(
    "limit, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)]
)
async def test_receive_checks_its_limit(limit: Any, error: type[Exception]) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        with pytest.raises(error):
            await far.receive_some(limit)
        await near.send_all(b"still works")
        assert await far.receive_some() == b"still works"


@each_wire
@pytest.mark.parametrize("end", ["send_eof", "aclose", "reset"])
async def test_a_stream_is_readable_when_bytes_or_an_end_wait(kind: Kind, end: str) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        assert not far.is_readable()
        await near.send_all(b"ab")
        await wait_all_tasks_blocked()
        assert far.is_readable()
        assert await far.receive_some(1) == b"a"
        assert far.is_readable()
        assert await far.receive_some(1) == b"b"
        assert not far.is_readable()
        await getattr(near, end)()
        await wait_all_tasks_blocked()
        assert far.is_readable()
        await outcome_of(far.receive_some)
        assert far.is_readable()  # the end stays


@each_wire
@pytest.mark.parametrize("end", ["aclose", "reset"])
async def test_a_stream_that_this_end_has_ended_is_readable(kind: Kind, end: str) -> None:
    async with stream_pair(kind, **STEADY) as (near, _):
        assert not near.is_readable()
        await getattr(near, end)()
        assert near.is_readable()


@each_wire
async def test_a_stream_of_a_session_that_has_ended_is_readable(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await far.session.aclose()
        await near.session.wait_closed()
        assert near.is_readable()
        assert far.is_readable()


@given(
    sent=st.lists(st.integers(1, 3000), min_size=1, max_size=40),
    wanted=st.lists(st.integers(1, 5000), min_size=1, max_size=10),
    bursts=st.integers(1, 7),
)
def test_any_chunks_come_out_in_order_in_any_pieces(
    sent: list[int], wanted: list[int], bursts: int
) -> None:
    """Merging, cutting and keeping leftovers never lose, double or swap a byte."""
    content = bytes(number % 251 for number in range(sum(sent)))

    async def main() -> None:
        async with raw_session(V1, receive_window=2**20) as (session, peer):
            peer.send(peer.syn(3))
            stream = await session.accept_stream()
            received = bytearray()
            position = 0
            for number, size in enumerate(sent):
                peer.send(peer.data(3, content[position : position + size]))
                position += size
                if number % bursts == 0:
                    await wait_all_tasks_blocked()
                    received += await stream.receive_some(wanted[number % len(wanted)])
            peer.send(peer.data(3, fin=True))
            received += await read_all(stream)
            assert received == content

    trio.run(main)


@each_wire
async def test_cancelled_receive_loses_nothing(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        for waiting in (True, False):
            if waiting:
                await near.send_all(b"data")
                await wait_all_tasks_blocked()
            for number in range(5):
                if not await cancel_at_checkpoint(number, far.receive_some):
                    break
                if not waiting and number == 1:
                    await near.send_all(b"data")
            else:
                pytest.fail("receive_some has more checkpoints than expected")
        await near.aclose()
        assert await far.receive_some() == b""


@each_wire
async def test_two_receivers_are_a_bug_of_the_caller(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        results: list[Any] = []

        async def receive() -> None:
            results.append(await outcome_of(far.receive_some))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await far.receive_some()
            await near.send_all(b"for the first")
        assert results == [b"for the first"]


@each_wire
async def test_iteration_ends_with_the_stream(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(b"abc")
        await near.send_eof()
        assert b"".join([chunk async for chunk in far]) == b"abc"
