"""A user's program, to be type-checked and never run: see `compat_typing` in noxfile.py.

It says in types what every part of the public face gives back, so that a name which turns into
`Any` (a stub that lost it, an annotation that a checker can't read) is an error here.
"""

import ssl

import trio
from typing_extensions import assert_type

from trio_muxado import (
    CloseReason,
    ErrorCode,
    Heartbeat,
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    client_session,
    open_muxado_session,
    serve_muxado,
    serve_muxado_listeners,
    server_session,
)

CONFIG = MuxadoConfig(wire="v2", typed=True, heartbeat=Heartbeat(interval=3, tolerance=10))
PLAIN = MuxadoConfig(heartbeat=None)


async def handle_stream(stream: MuxadoStream) -> None:
    async with stream:
        async for chunk in stream:
            await stream.send_all(chunk)
        await stream.send_eof()


async def handle_session(session: MuxadoSession) -> None:
    await session.serve_streams(handle_stream)


async def use_stream(stream: MuxadoStream) -> None:
    assert_type(stream.id, int)
    assert_type(stream.type, int)
    assert_type(stream.priority, int)
    stream.priority = 3
    assert_type(stream.session, MuxadoSession)
    await stream.send_all(b"hello")
    await stream.send_all(bytearray(b"hello"))
    await stream.send_all(memoryview(b"hello"))
    await stream.wait_send_all_might_not_block()
    assert_type(stream.is_readable(), bool)
    received = bytes(await stream.receive_some())
    received += bytes(await stream.receive_some(10))
    assert_type(received, bytes)
    await stream.reset(ErrorCode.STREAM_CANCELLED)
    await stream.aclose()


async def use_session(session: MuxadoSession) -> None:
    stream = await session.open_stream(type=1, priority=2)
    assert_type(stream, MuxadoStream)
    assert_type(await session.accept_stream(), MuxadoStream)
    async for accepted in session:
        assert_type(accepted, MuxadoStream)
    assert_type(await session.ping(), float)
    await session.goaway(ErrorCode.NO_ERROR, b"bye")
    await session.drain()
    await session.aclose()
    reason = await session.wait_closed()
    assert_type(reason, CloseReason)
    assert_type(session.transport_stream, trio.abc.Stream)


async def client(context: ssl.SSLContext, transport: trio.abc.Stream) -> None:
    async with open_muxado_session("localhost", 8765) as session:
        assert_type(session, MuxadoSession)
        await use_session(session)
    async with open_muxado_session("h", 1, ssl_context=context, config=CONFIG) as session:
        await use_stream(await session.open_stream())
    async with client_session(transport, config=PLAIN) as session:
        assert_type(session, MuxadoSession)
    async with server_session(transport) as session:
        assert_type(session, MuxadoSession)


async def server(listeners: list[trio.SocketListener]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_muxado, handle_session, 0)
        nursery.start_soon(serve_muxado_listeners, handle_session, listeners)
    await serve_muxado(handle_session, 8765, host="127.0.0.1", ssl_context=None, config=CONFIG)


async def over_a_session(session: MuxadoSession) -> None:
    """A session is a listener, to trio's own code as well."""
    await trio.serve_listeners(handle_stream, [session])


def half_closeable(stream: MuxadoStream) -> trio.abc.HalfCloseableStream:
    return stream
