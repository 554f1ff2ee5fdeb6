"""A server that is asked to stop gently loses no request."""

from functools import partial

import pytest
import trio
import trio.testing

from trio_muxado import (
    ErrorCode,
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    OpenStreamError,
    open_muxado_session,
    serve_muxado,
)


async def echo_at_the_end(stream: MuxadoStream) -> None:
    received = b"".join([chunk async for chunk in stream])
    await stream.send_all(received)


async def serve_echo(session: MuxadoSession) -> None:
    await session.serve_streams(echo_at_the_end)


@pytest.mark.parametrize("wire", ["v1", "v2"])
async def test_running_requests_end_well_and_new_ones_are_safe_to_retry(wire) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve_muxado, serve_echo, 0, host="127.0.0.1", stop=stop)
        )
        port = listeners[0].socket.getsockname()[1]
        async with open_muxado_session(
            "127.0.0.1", port, config=MuxadoConfig(wire=wire)
        ) as session:
            stream = await session.open_stream()
            await stream.send_all(b"half of it, ")
            # A second one is answered, so that the server has surely seen the first.
            async with await session.open_stream() as other:
                await other.send_eof()
                assert await other.receive_some() == b""
            stop.set()
            with pytest.raises(OpenStreamError) as refused:
                while True:
                    await session.open_stream()
            assert refused.value.safe_to_retry
            await stream.send_all(b"and the rest")
            await stream.send_eof()
            assert b"".join([c async for c in stream]) == b"half of it, and the rest"
            await stream.aclose()
            reason = await session.wait_closed()
            assert (reason.code, reason.initiator) == (ErrorCode.NO_ERROR, "remote")
    # serve_muxado has returned, or the nursery would still wait.
    with pytest.raises(OSError, match=r"connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_client_that_said_nothing_yet_does_not_hold_the_server_up() -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve_muxado, serve_echo, 0, host="127.0.0.1", stop=stop)
        )
        port = listeners[0].socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
            await trio.testing.wait_all_tasks_blocked()
            stop.set()
            assert await silent.receive_some() == b""


async def test_without_connections_it_returns_at_once() -> None:
    stop = trio.Event()
    stop.set()
    await serve_muxado(serve_echo, 0, host="127.0.0.1", stop=stop)
