"""A message that is alone goes to the socket in the step of its call, before the writer's turn."""

from __future__ import annotations

import os
import socket
from contextvars import ContextVar
from errno import EPIPE

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado import MuxadoSession, MuxadoStream

from .helpers import (
    Kind,
    each_wire,
    echo,
    read_all,
    read_exactly,
    session_pair,
    socket_pair,
    together,
)

WRITER = "trio_muxado._writer.FrameWriter.run"


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In whose step each write to a socket was made: the names of tasks."""
    names: list[str] = []
    writev = os.writev

    def spy(fd: int, buffers: list[bytes | memoryview]) -> int:
        names.append(trio.lowlevel.current_task().name)
        return writev(fd, buffers)

    monkeypatch.setattr(os, "writev", spy)
    return names


def here() -> str:
    return trio.lowlevel.current_task().name


async def answer(stream: MuxadoStream) -> None:
    await stream.send_all(await read_all(stream))


HANDLER = f"{__name__}.answer"


async def request(session: MuxadoSession) -> None:
    async with await session.open_stream() as stream:
        await stream.send_all(b"request")
        await stream.send_eof()
        assert await read_all(stream) == b"request"


@each_wire
async def test_a_request_alone(kind: Kind, writers: list[str]) -> None:
    async with (
        session_pair(kind, transports=socket_pair(), heartbeat=None) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.serve_streams, answer)
        await request(client)
        await wait_all_tasks_blocked()
        writers.clear()
        for _ in range(10):
            await request(client)
        assert writers == [here(), HANDLER] * 10
        nursery.cancel_scope.cancel()


@each_wire
async def test_requests_at_once_go_together(kind: Kind, writers: list[str]) -> None:
    async with (
        session_pair(kind, transports=socket_pair(), heartbeat=None) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.serve_streams, answer)
        await request(client)
        writers.clear()
        await together(*[lambda: request(client)] * 7)
        assert writers == [WRITER] * 2
        nursery.cancel_scope.cancel()


@each_wire
async def test_a_conversation(kind: Kind, writers: list[str]) -> None:
    """Not its first message, which may be all: then the end goes in the same frame."""
    async with (
        session_pair(kind, transports=socket_pair(), heartbeat=None) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.serve_streams, echo)
        stream = await client.open_stream()
        for _ in range(3):
            await stream.send_all(b"word")
            assert await stream.receive_some() == b"word"
        # Of the first exchange the opening may go before its message.
        assert set(writers[:-4]) == {WRITER}
        assert writers[-4:] == [here(), "tests.helpers.sessions.echo"] * 2
        nursery.cancel_scope.cancel()


@each_wire
async def test_what_is_sent_one_way_is_the_writers(kind: Kind, writers: list[str]) -> None:
    """Once at most it goes at once: nothing says whether more is to come."""
    async with session_pair(kind, transports=socket_pair(), heartbeat=None) as (client, server):
        await wait_all_tasks_blocked()
        for _ in range(5):
            stream = await client.open_stream()
            await stream.send_all(b"news")
            await stream.send_eof()
        for _ in range(5):
            assert await read_all(await server.accept_stream()) == b"news"
        assert writers.count(here()) == 1
        assert writers[0] == here()


@each_wire
async def test_what_the_socket_does_not_take_is_the_writers(kind: Kind, writers: list[str]) -> None:
    near, far = socket_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    content = bytes(range(250)) * 100
    async with session_pair(kind, transports=(near, far), heartbeat=None) as (client, server):
        stream = await client.open_stream()
        client._engine.connection.send(stream._core, content)  # as send_all does, and not yet sent
        await stream.send_eof()
        assert writers[0] == here()
        assert await read_all(await server.accept_stream()) == content
        assert set(writers[1:]) == {WRITER}


@each_wire
async def test_what_follows_what_the_socket_did_not_take_comes_after_it(kind: Kind) -> None:
    near, far = socket_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with session_pair(kind, transports=(near, far), heartbeat=None) as (client, server):
        first, second = await client.open_stream(), await client.open_stream()
        await second.send_all(b"hello")
        accepted = [await server.accept_stream(), await server.accept_stream()]
        writer = client._engine.writer
        for turn in range(20):
            writer.alone = True
            content = bytes([turn]) * 9_000
            client._engine.connection.send(first._core, content)
            writer.send_now()
            writer.alone = True
            await second.send_all(content)
            for stream in accepted:
                if stream.id == second.id and not turn:
                    assert await read_exactly(stream, 5) == b"hello"
                assert await read_exactly(stream, 9_000) == content


@each_wire
async def test_a_transport_that_breaks_then_ends_the_session(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the call: what it has queued could not be sent, as if the writer had found that out."""

    def broken(fd: int, buffers: object) -> int:
        raise OSError(EPIPE, "broken")

    async with session_pair(kind, transports=socket_pair(), heartbeat=None, close_timeout=0.01) as (
        client,
        _,
    ):
        stream = await client.open_stream()
        await stream.send_all(b"lost")
        monkeypatch.setattr(os, "writev", broken)
        await stream.send_eof()
        reason = await client.wait_closed()
        assert isinstance(reason.error, OSError)
        assert not client._engine.writer.alone


@each_wire
async def test_with_a_tracer_all_is_the_writers(kind: Kind, writers: list[str]) -> None:
    """What a tracer raises ends the session, and must not come out of a call."""
    async with (
        session_pair(kind, transports=socket_pair(), heartbeat=None, tracer=lambda frame: None) as (
            client,
            server,
        ),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.serve_streams, answer)
        await request(client)
        assert set(writers) == {WRITER}
        nursery.cancel_scope.cancel()


async def test_a_session_that_is_over_sends_nothing(writers: list[str]) -> None:
    kind = Kind("v2", "v2")
    async with session_pair(kind, transports=socket_pair(), heartbeat=None) as (client, _):
        await client.aclose()
        writer = client._engine.writer
        assert not writer.alone
        assert not writer.sends_now


# ---- handlers that the frame reader starts


place: ContextVar[str] = ContextVar("place", default="nowhere")


@each_wire
async def test_a_handler_has_the_context_of_whoever_serves(kind: Kind) -> None:
    seen: list[str] = []

    async def handle(stream: MuxadoStream) -> None:
        seen.append(place.get())
        await answer(stream)

    async def serve(session: MuxadoSession) -> None:
        place.set("in serve")
        await session.serve_streams(handle)

    async with (
        session_pair(kind, transports=socket_pair(), heartbeat=None) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve, server)
        await request(client)
        await together(*[lambda: request(client)] * 3)
        await request(client)
        assert seen == ["in serve"] * 5
        nursery.cancel_scope.cancel()


@each_wire
async def test_the_one_who_waits_longer_gets_the_stream(kind: Kind) -> None:
    """Also where only the other one could begin at once."""
    served: list[int] = []

    async def handle(stream: MuxadoStream) -> None:
        served.append(stream.id)
        await answer(stream)

    async with (
        session_pair(kind, transports=socket_pair(), heartbeat=None) as (client, server),
        trio.open_nursery() as nursery,
    ):
        await request_of(client, server)
        accepted: list[MuxadoStream] = []

        async def accept() -> None:
            accepted.append(await server.accept_stream())

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        nursery.start_soon(server.serve_streams, handle)
        await wait_all_tasks_blocked()
        stream = await client.open_stream()
        await stream.send_eof()
        await wait_all_tasks_blocked(0.01)
        assert [one.id for one in accepted] == [stream.id]
        await request(client)
        assert served == [stream.id + 2]
        nursery.cancel_scope.cancel()


async def request_of(client: MuxadoSession, server: MuxadoSession) -> None:
    """The first one, which shows the server what the wire is."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request, client)
        await answer_and_close(await server.accept_stream())


async def answer_and_close(stream: MuxadoStream) -> None:
    async with stream:
        await answer(stream)
