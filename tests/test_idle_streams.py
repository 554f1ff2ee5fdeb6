"""Streams that are kept for later use, and what a stream says of itself without waiting."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado import MuxadoError, MuxadoStream, StreamClosedError, StreamResetError

from .helpers import V1, V2, Kind, each_wire, session_pair

TWO: dict[str, Any] = {"max_outbound_streams": 2}


async def answered_stream(near: Any, far: Any) -> tuple[MuxadoStream, MuxadoStream]:
    """A stream that has been of use."""
    stream = await near.open_stream()
    other = await far.accept_stream()
    await other.send_all(b"answer")
    assert await stream.receive_some() == b"answer"
    return stream, other


@each_wire
async def test_an_idle_stream_yields_to_a_task_that_opens_another(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, client=TWO) as (near, far):
        busy, _ = await answered_stream(near, far)
        kept, other = await answered_stream(near, far)
        assert not kept.idle
        kept.idle = True
        assert kept.idle
        async with await near.open_stream():
            assert kept.is_readable()
            assert not kept.idle
            with pytest.raises(StreamClosedError, match="idle"):
                await kept.receive_some()
            assert await other.receive_some() == b""
            assert not busy.is_readable()


@each_wire
async def test_the_one_that_has_been_idle_longest_goes_first(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, client=TWO) as (near, far):
        first, _ = await answered_stream(near, far)
        second, _ = await answered_stream(near, far)
        second.idle = True
        first.idle = True
        await near.open_stream()
        assert second.is_readable()
        assert not first.is_readable()
        await near.open_stream()
        assert first.is_readable()


@each_wire
async def test_a_stream_that_becomes_idle_while_a_task_waits_is_closed_at_once(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, client=TWO) as (near, far):
        kept, _ = await answered_stream(near, far)
        await answered_stream(near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.open_stream)
            await wait_all_tasks_blocked()
            kept.idle = True
            assert kept.is_readable()


@each_wire
async def test_a_stream_that_is_idle_no_more_stays(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, client=TWO) as (near, far):
        kept, _ = await answered_stream(near, far)
        await answered_stream(near, far)
        kept.idle = True
        kept.idle = False
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.open_stream)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert not kept.is_readable()


@each_wire
@pytest.mark.parametrize("end", ["aclose", "reset", "reset by the peer", "session"])
async def test_a_stream_that_has_ended_is_idle_no_more(kind: Kind, end: str) -> None:
    async with session_pair(kind, heartbeat=None) as (near, far):
        kept, other = await answered_stream(near, far)
        kept.idle = True
        if end == "reset by the peer":
            await other.reset()
        elif end == "session":
            await near.aclose()
        else:
            await getattr(kept, end)()
        await wait_all_tasks_blocked()
        assert not kept.idle
        if end in ("aclose", "reset"):
            kept.idle = True  # too late
            assert not kept.idle


@each_wire
async def test_unsent_counts_what_waits_for_the_peer_s_window(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (near, far):
        stream = await near.open_stream()
        other = await far.accept_stream()
        assert stream.unsent == 0
        await stream.send_all(bytes(300_000))
        await wait_all_tasks_blocked()
        unsent = stream.unsent
        assert 0 < unsent <= near.config.send_buffer
        received = 0
        while received < 300_000:
            received += len(await other.receive_some())
        await wait_all_tasks_blocked()
        assert stream.unsent == 0


# ---- wait_broken


@each_wire
@pytest.mark.parametrize("unread", [False, True])
async def test_wait_broken_hears_of_a_reset_though_bytes_wait(kind: Kind, unread: bool) -> None:
    async with session_pair(kind, heartbeat=None) as (near, far):
        stream = await near.open_stream()
        other = await far.accept_stream()
        if unread:
            await other.send_all(b"unread")
        heard: list[MuxadoError] = []

        async def wait() -> None:
            heard.append(await stream.wait_broken())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not heard
            await other.reset(77)
        assert [(type(error), error.code) for error in heard] == [(StreamResetError, 77)] * 2
        assert (await stream.wait_broken()).code == 77
        if unread:
            assert await stream.receive_some() == b"unread"


@each_wire
async def test_wait_broken_hears_of_the_session_s_end_and_not_of_a_half_close(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (near, far):
        stream = await near.open_stream()
        other = await far.accept_stream()
        heard: list[MuxadoError] = []

        async def wait() -> None:
            heard.append(await stream.wait_broken())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await other.send_eof()
            await wait_all_tasks_blocked()
            assert not heard
            await far.aclose()
        assert isinstance(heard[0], trio.BrokenResourceError)


@pytest.mark.parametrize("kind", [V1, V2])
async def test_wait_broken_ends_when_this_end_closes_the_stream(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (near, _):
        stream = await near.open_stream()

        async def wait() -> None:
            with pytest.raises(StreamClosedError):
                await stream.wait_broken()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            await stream.aclose()
        await wait()


async def test_two_tasks_may_drain_at_once() -> None:
    async with session_pair(V1, heartbeat=None) as (near, _):
        stream = await near.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.drain)
            nursery.start_soon(near.drain)
            await wait_all_tasks_blocked()
            await stream.reset()
