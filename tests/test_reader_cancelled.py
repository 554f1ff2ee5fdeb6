"""A user who is cancelled still has his session for the clean-up, whatever carries it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import MuxadoSession, SessionEndedError, client_session, server_session

from .helpers import V1, Kind, Pair, each_wire, echo, read_exactly, socket_pair

each_transport = pytest.mark.parametrize("transports", [memory_stream_pair, socket_pair])


async def use(session: MuxadoSession) -> None:
    stream = await session.open_stream()
    for _ in range(3):
        await stream.send_all(b"x")
        assert await read_exactly(stream, 1) == b"x"
    await stream.aclose()


@each_transport
@each_wire
async def test_a_cancelled_user_still_receives(kind: Kind, transports: Callable[[], Pair]) -> None:
    near, far = transports()
    cleaned_up = False
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            with suppress(SessionEndedError):  # without a word, as it is cancelled
                async with server_session(far, config=kind.config()) as session:
                    await session.serve_streams(echo)

        nursery.start_soon(serve)
        with trio.CancelScope() as user:
            async with client_session(near, config=kind.config()) as session:
                await use(session)
                user.cancel()
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                    await use(session)
                    await use(session)
                cleaned_up = True
                await trio.sleep_forever()
    assert user.cancelled_caught
    assert cleaned_up


@each_transport
@each_wire
async def test_who_is_cancelled_leaves_at_once_although_nothing_comes(
    kind: Kind, transports: Callable[[], Pair]
) -> None:
    """The reader is not left waiting for a peer that says nothing, nor the transport open."""
    near, far = transports()
    with trio.CancelScope() as user:
        async with client_session(near, config=kind.config(heartbeat=None)) as session:
            await wait_all_tasks_blocked()
            user.cancel()
    assert session.close_reason is not None
    assert session.close_reason.initiator == "local"
    assert await far.receive_some() == b""
    await far.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await near.receive_some()


@each_transport
async def test_what_ends_the_session_of_who_is_cancelled_has_no_context(
    transports: Callable[[], Pair],
) -> None:
    """The reader's own cancellation is no part of an error that it meets later."""
    near, far = transports()
    error = ValueError("of a tracer")

    def trace(event: object) -> None:
        if user.cancel_called:
            raise error

    with trio.CancelScope() as user, pytest.raises(ValueError, match="of a tracer") as caught:
        async with server_session(near, config=V1.config(tracer=trace, heartbeat=None)) as session:
            await wait_all_tasks_blocked()
            user.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                await far.send_all(b"anything")
                await session.wait_closed()
    assert caught.value is error
    assert error.__context__ is None
    await far.aclose()
