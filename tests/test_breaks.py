"""wait_broken returns, whatever has come on the stream and gone out before."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado import (
    MuxadoStream,
    SessionClosedError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
)

from .helpers import STEADY, Kind, each_wire, outcome_of, read_all, stream_pair


@asynccontextmanager
async def ended_pair(
    kind: Kind, *, local_first: bool, unsent: bool
) -> AsyncGenerator[tuple[MuxadoStream, MuxadoStream], None]:
    """Both directions have ended; of ``near``'s some may wait for the peer's window."""
    async with stream_pair(kind, **STEADY) as (near, far):

        async def end_near() -> None:
            await near.send_all(bytes(kind.window + unsent))
            await near.send_eof()

        async def end_far() -> None:
            await far.send_eof()
            assert await read_all(near) == b""

        for end in (end_near, end_far) if local_first else (end_far, end_near):
            await end()
        await wait_all_tasks_blocked()
        yield near, far


each_order = pytest.mark.parametrize("local_first", [True, False])
each_rest = pytest.mark.parametrize("unsent", [True, False])


@each_rest
@each_order
@each_wire
@pytest.mark.parametrize("how", ["near", "far", "cut"])
async def test_a_stream_whose_ends_have_come_ends_with_its_session(
    kind: Kind, local_first: bool, unsent: bool, how: str
) -> None:
    outcomes: list[object] = []
    async with ended_pair(kind, local_first=local_first, unsent=unsent) as (near, far):

        async def wait() -> None:
            outcomes.append(await outcome_of(near.wait_broken))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            if how == "cut":
                await trio.aclose_forcefully(far.session)
            else:
                # Until all has been sent, that waits for the reader.
                nursery.start_soon(outcome_of, partial(read_all, far))
                await (near if how == "near" else far).session.aclose()
        outcomes.append(await near.wait_broken())
    kind_of_error = SessionClosedError if how == "near" else SessionEndedError
    assert [type(outcome) for outcome in outcomes] == [kind_of_error] * 3


@each_order
@each_wire
async def test_what_is_left_of_a_stream_whose_ends_have_come_can_be_reset(
    kind: Kind, local_first: bool
) -> None:
    async with ended_pair(kind, local_first=local_first, unsent=True) as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.reset)
            assert isinstance(await near.wait_broken(), StreamResetError)


@each_rest
@each_wire
async def test_closing_is_heard_and_nobody_is_left_waiting(kind: Kind, unsent: bool) -> None:
    async with ended_pair(kind, local_first=True, unsent=unsent) as (near, _far):
        waiting = near._engine.breaks
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.wait_broken)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not waiting
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(StreamClosedError):
                    await near.wait_broken()

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            await near.aclose()
        assert not waiting


@each_wire
async def test_who_is_cancelled_takes_no_other_along(kind: Kind) -> None:
    async with stream_pair(kind) as (near, far), trio.open_nursery() as nursery:
        outcomes: list[object] = []

        async def wait() -> None:
            outcomes.append(await outcome_of(near.wait_broken))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as cancelled:
            cancelled.start_soon(near.wait_broken)
            await wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        await far.reset()
        await wait_all_tasks_blocked()
        assert [type(outcome) for outcome in outcomes] == [StreamResetError]
        nursery.cancel_scope.cancel()
