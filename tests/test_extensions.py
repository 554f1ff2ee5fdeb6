"""What MuxadoSession promises of extensions: streams of a type that has a handler of its own."""

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    StreamClosedError,
    StreamResetError,
    client_session,
    server_session,
)

from .helpers import V1, Kind, echo, outcome_of, read_all, session_pair, together, with_types

EXTENSION = {"v1": 0xFFFFFF00, "v2-typed": 0xFFFFFFF0}
"""A type of a stream that is no application's."""


@pytest.mark.parametrize("reserved", [True, False])
@with_types
async def test_extension_streams_go_to_their_handler_and_nowhere_else(
    kind: Kind, reserved: bool
) -> None:
    """Any type will do, also one below the range that is reserved for them."""
    extension = EXTENSION[kind.name] if reserved else 7
    async with session_pair(kind, server={"extensions": {extension: echo}}) as (client, server):
        stream = await client.open_stream(type=extension)
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await client.open_stream(type=1)
        assert (await server.accept_stream()).type == 1


@pytest.mark.parametrize("known", [True, False])
@with_types
async def test_openers_of_extension_streams_wait_for_a_place_like_all(
    kind: Kind, known: bool
) -> None:
    """Whether the opener would serve the type as well or not."""
    running = most = 0

    async def execute(stream: MuxadoStream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await wait_all_tasks_blocked()
        await stream.send_all(await read_all(stream))
        running -= 1

    async def ask(session: MuxadoSession) -> None:
        async with await session.open_stream(type=7) as stream:
            await stream.send_all(b"x")
            await stream.send_eof()
            assert await read_all(stream) == b"x"

    serving: dict[str, Any] = {"extensions": {7: execute}, "max_extension_streams": 4}
    opening = {**(serving if known else {}), "max_outbound_streams": 4}
    async with session_pair(kind, client=opening, server=serving) as (client, _):
        await together(*[partial(ask, client)] * 20)
        assert most == 4


async def test_an_unknown_extension_is_refused() -> None:
    """On v1: on v2 there is no range for extensions, only the type of heartbeats."""
    async with session_pair(V1) as (client, server):
        stream = await client.open_stream(type=0xFFFFFF00)
        with pytest.raises(StreamResetError) as refused:
            await stream.receive_some()
        assert refused.value.code is ErrorCode.STREAM_CLOSED
        await client.open_stream(type=1)
        assert (await server.accept_stream()).type == 1


@with_types
async def test_a_broken_extension_stream_ends_only_its_handler(kind: Kind) -> None:
    ended: list[str] = []

    async def handler(stream: MuxadoStream) -> None:
        try:
            if stream.type == EXTENSION[kind.name]:
                await stream.receive_some()
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive_some)
        finally:
            ended.append("ended")

    extensions = {EXTENSION[kind.name]: handler, EXTENSION[kind.name] + 1: handler}
    async with session_pair(kind, server={"extensions": extensions}) as (client, server):
        for extension in extensions:
            stream = await client.open_stream(type=extension)
            await wait_all_tasks_blocked()
            await stream.reset()
            await wait_all_tasks_blocked()
        assert ended == ["ended"] * 2
        await client.open_stream()
        await server.accept_stream()


@pytest.mark.parametrize("crashes", [False, True])
@with_types
async def test_what_an_extension_leaves_behind_is_told_that_the_stream_is_closed(
    kind: Kind, crashes: bool
) -> None:
    streams: list[MuxadoStream] = []
    outcomes: list[Any] = []
    finish = trio.Event()

    async def handler(stream: MuxadoStream) -> None:
        streams.append(stream)
        await finish.wait()
        if crashes:
            raise LookupError("a bug")

    near, far = memory_stream_pair()
    extensions = {EXTENSION[kind.name]: handler}
    config = kind.config(wire="auto", extensions=extensions)
    async with trio.open_nursery() as outer:

        async def receive() -> None:
            outcomes.append(await outcome_of(streams[0].receive_some))

        async with client_session(near, config=kind.config()) as client:
            await client.open_stream(type=EXTENSION[kind.name])
            with suppress(LookupError):
                async with server_session(far, config=config):
                    await wait_all_tasks_blocked()
                    outer.start_soon(receive)
                    await wait_all_tasks_blocked()
                    assert not outcomes
                    finish.set()
                    await wait_all_tasks_blocked()
                    assert outcomes
    assert type(outcomes[0]) is StreamClosedError


@pytest.mark.parametrize("kind", [0, -1, 1 << 32])
def test_an_extension_needs_a_type_of_its_own(kind: int) -> None:
    async def handler(stream: MuxadoStream) -> None:
        raise AssertionError("never called")

    with pytest.raises(ValueError, match="an extension's type"):
        MuxadoConfig(extensions={kind: handler})


@with_types
async def test_a_handler_that_waits_for_something_else_ends_with_its_session(kind: Kind) -> None:
    ended: list[str] = []

    async def handler(stream: MuxadoStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("ended")

    extensions = {0xFFFFFF01: handler}
    async with session_pair(kind, server={"extensions": extensions}) as (client, _):
        await client.open_stream(type=0xFFFFFF01)
        await wait_all_tasks_blocked()
        assert ended == []
    assert ended == ["ended"]
