"""Who has been given a transport closes it, whatever raises before anything runs over it."""

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_muxado import (
    break_stream,
    client_session,
    dial_muxado,
    forward,
    open_muxado_session,
    serve_muxado_listeners,
    server_session,
)
from trio_muxado._nursery import leaves
from trio_muxado.testing import open_session_pair

from .helpers import HalfCloseable, Kind, MemoryListener, each_wire, tcp_pair


class Oddity(Exception):
    """Nothing that an attribute should raise."""


class Odd(HalfCloseable):
    """Raises when it is asked for an attribute for the time with that number, from 0."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, name: str, number: int) -> None:
        super().__init__(inner)
        self.raised = False
        self._odd = name
        self._left = number

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "__dict__").get("_odd"):
            self._left -= 1
            if self._left == -1:
                self.raised = True
                raise Oddity(name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


Open = Callable[[Odd, trio.abc.Stream, Kind], Awaitable[None]]


async def as_client(odd: Odd, far: trio.abc.Stream, kind: Kind) -> None:
    async with client_session(odd, config=kind.config(heartbeat=None)) as session:
        await session.open_stream()


async def as_server(odd: Odd, far: trio.abc.Stream, kind: Kind) -> None:
    async with server_session(odd, config=kind.config(heartbeat=None)) as session:
        await session.open_stream()


async def as_both(odd: Odd, far: trio.abc.Stream, kind: Kind) -> None:
    async with open_session_pair(config=kind.config(heartbeat=None), link=(odd, far)):
        pass


async def as_dialled(odd: Odd, far: trio.abc.Stream, kind: Kind) -> None:
    async def connect() -> trio.abc.Stream:
        return odd

    async def handle(session: object) -> None:
        pass

    await dial_muxado(handle, "far", 1, connect=connect, config=kind.config(heartbeat=None))


async def as_accepted(odd: Odd, far: trio.abc.Stream, kind: Kind) -> None:
    async def handle(session: object) -> None:
        nursery.cancel_scope.cancel()

    listener = MemoryListener()
    await listener.connect(over=(far, odd))
    async with trio.open_nursery() as nursery:
        config = kind.config(heartbeat=None)
        nursery.start_soon(partial(serve_muxado_listeners, handle, [listener], config=config))


async def as_joined(odd: Odd, far: trio.abc.Stream, kind: Kind) -> None:
    other, beyond = memory_stream_pair()
    await far.aclose()
    await beyond.send_eof()
    await forward(odd, other)


WAYS: list[Open] = [as_client, as_server, as_both, as_dialled, as_accepted, as_joined]


async def raised_by(way: Open, odd: Odd, far: trio.abc.Stream, kind: Kind) -> list[BaseException]:
    with trio.fail_after(30):
        try:
            await way(odd, far, kind)
        except Exception as error:
            return list(leaves(error))
        finally:
            await trio.aclose_forcefully(far)
    return []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["transport_stream", "pending", "do_handshake", "receive_some"])
@each_wire
async def test_an_attribute_that_raises_leaves_nothing_open(
    kind: Kind, name: str, way: Open, autojump_clock: MockClock
) -> None:
    """Whichever time it is asked for."""
    for number in range(20):
        near, far = memory_stream_pair()
        odd = Odd(near, name, number)
        errors = await raised_by(way, odd, far, kind)
        assert odd.closed
        if not odd.raised:
            break
        for error in errors:  # of a session that had begun, it is the cause
            assert isinstance(error, Oddity) or isinstance(error.__cause__, Oddity)
    else:
        pytest.fail("it is asked for without end")


async def test_a_context_that_fails_leaves_no_connection_open() -> None:
    class Failing(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **options: Any) -> Any:
            raise Oddity

    async with trio.open_nursery() as nursery:
        received: list[bytes] = []

        async def serve(tcp: trio.SocketStream) -> None:
            received.append(await tcp.receive_some())
            nursery.cancel_scope.cancel()

        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        context = Failing(ssl.PROTOCOL_TLS_CLIENT)
        port = listener.socket.getsockname()[1]
        with pytest.raises(Oddity):
            async with open_muxado_session("127.0.0.1", port, ssl_context=context):
                pytest.fail("there is no session")
        await trio.sleep_forever()  # until the connection ends
    assert received == [b""]


class Fatal(BaseException):
    """Nothing that a stream may raise, as a test's time limit or an interrupt does."""


class FailsToClose(HalfCloseable):
    async def aclose(self) -> None:
        self.closed = True
        raise Fatal


async def test_what_fails_to_break_leaves_the_other_stream_no_less_broken() -> None:
    async with tcp_pair() as (b, far_b):
        a, _far_a = memory_stream_pair()
        with pytest.raises(Fatal), trio.CancelScope() as scope:
            scope.cancel()
            await forward(b, FailsToClose(a))
        with pytest.raises(trio.BrokenResourceError):
            await far_b.receive_some()


async def test_what_fails_to_break_leaves_its_other_half_no_less_broken() -> None:
    async with tcp_pair() as (b, far_b):
        a, _ = memory_stream_pair()
        with pytest.raises(Fatal):
            await break_stream(trio.StapledStream(FailsToClose(a), b))
        with pytest.raises(trio.BrokenResourceError):
            await far_b.receive_some()
