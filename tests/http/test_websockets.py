"""WebSockets on a stream."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    RejectConnection,
    Request,
    TextMessage,
)

from trio_muxado import MuxadoSession, MuxadoStream
from trio_muxado.http import asgi_handler
from trio_muxado.http._exchange import PROBE

from ..helpers import V1, V2, Kind, each_wire, read_all, session_pair
from .support import App, quiet, served


async def test_a_websocket() -> None:
    async def shout(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "bytes": message["bytes"].upper()})
        await send({"type": "websocket.close"})

    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(shout, far):
            stream = await near.open_stream()
            websocket = WSConnection(ConnectionType.CLIENT)
            await stream.send_all(websocket.send(Request(host="peer", target="/")))
            seen: list[Any] = []
            while not any(isinstance(event, CloseConnection) for event in seen):
                websocket.receive_data(await stream.receive_some())
                for event in websocket.events():
                    seen.append(event)
                    if isinstance(event, AcceptConnection):
                        await stream.send_all(websocket.send(BytesMessage(b"hello")))
            assert any(isinstance(event, BytesMessage) and event.data == b"HELLO" for event in seen)
            await stream.aclose()
            await near.aclose()


# ---- closing


class Noting:
    """Notes what it receives, until it is told that the WebSocket is closed."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.ended = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        try:
            while (message := await receive())["type"] == "websocket.receive":
                self.notes.append(message["text"])
                if message["text"] == "close":
                    await send({"type": "websocket.close", "code": 3001, "reason": "enough"})
            self.notes.append(message["code"])
        finally:
            self.ended.set()


class Visitor:
    """A client's side of a WebSocket."""

    def __init__(self, stream: MuxadoStream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.CLIENT)

    @classmethod
    async def connect(cls, session: MuxadoSession) -> "Visitor":
        visitor = cls(await session.open_stream())
        await visitor.send(Request(host="peer", target="/"))
        await visitor.until(AcceptConnection)
        return visitor

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self.protocol.send(event))

    async def until(self, kind: Any) -> Any:
        while True:
            for event in self.protocol.events():
                if isinstance(event, kind):
                    return event
            data = await self.stream.receive_some()
            assert data, f"the stream ended before {kind}"
            self.protocol.receive_data(data)


@each_wire
async def test_the_application_learns_the_client_s_close_code(kind: Kind) -> None:
    app = Noting()
    async with session_pair(kind, heartbeat=None) as (near, far), served(app, far):
        visitor = await Visitor.connect(near)
        await visitor.send(TextMessage("hello"))
        await visitor.send(CloseConnection(code=4002, reason="bye"))
        assert (await visitor.until(CloseConnection)).code == 4002
        await app.ended.wait()
        assert app.notes == ["hello", 4002]
        assert await read_all(visitor.stream) == b""
        await visitor.stream.aclose()
        await near.aclose()


@each_wire
async def test_the_client_learns_the_application_s_close_code(kind: Kind) -> None:
    app = Noting()
    async with session_pair(kind, heartbeat=None) as (near, far), served(app, far):
        visitor = await Visitor.connect(near)
        await visitor.send(TextMessage("close"))
        event = await visitor.until(CloseConnection)
        assert (event.code, event.reason) == (3001, "enough")
        await visitor.send(event.response())
        await app.ended.wait()
        assert app.notes == ["close", 3001]
        await visitor.stream.aclose()
        await near.aclose()


@each_wire
@pytest.mark.parametrize("end", ["aclose", "reset", "session"])
async def test_a_client_that_goes_without_a_word_is_1006(kind: Kind, end: str) -> None:
    app = Noting()
    async with session_pair(kind, heartbeat=None) as (near, far), served(app, far):
        visitor = await Visitor.connect(near)
        await visitor.send(TextMessage("hello"))
        await wait_all_tasks_blocked()
        await (near.aclose() if end == "session" else getattr(visitor.stream, end)())
        await app.ended.wait()
        assert app.notes == ["hello", 1006]
        await near.aclose()


async def test_a_close_frame_without_a_code_is_1005() -> None:
    app = Noting()
    async with session_pair(V1, heartbeat=None) as (near, far), served(app, far):
        visitor = await Visitor.connect(near)
        await visitor.stream.send_all(b"\x88\x80\0\0\0\0")
        await app.ended.wait()
        assert app.notes == [1005]
        await visitor.stream.aclose()
        await near.aclose()


async def test_what_breaks_the_protocol_is_answered_with_1002() -> None:
    app = Noting()
    async with session_pair(V1, heartbeat=None) as (near, far), served(app, far):
        visitor = await Visitor.connect(near)
        await visitor.stream.send_all(b"\xff\xff\xff\xff")
        assert (await visitor.until(CloseConnection)).code == 1002
        await app.ended.wait()
        assert app.notes == [1002]
        await visitor.stream.aclose()
        await near.aclose()


async def test_a_message_that_is_too_big_is_1009() -> None:
    app = Noting()
    config = quiet(websocket_max_message_size=10)
    async with session_pair(V1, heartbeat=None) as (near, far), served(app, far, config=config):
        visitor = await Visitor.connect(near)
        await visitor.send(TextMessage("x" * 11))
        assert (await visitor.until(CloseConnection)).code == 1009
        await app.ended.wait()
        assert app.notes == [1009]
        await visitor.stream.aclose()
        await near.aclose()


# ---- nothing outlives its stream


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    await trio.sleep_forever()


async def silent(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    await trio.sleep_forever()


async def ticking(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": "tick"})
        await trio.sleep(1)


@pytest.mark.parametrize("app", [deaf, silent, ticking])
@pytest.mark.parametrize("end", ["close frame", "aclose", "reset", "unread", "unread, reset"])
async def test_a_handler_ends_with_its_websocket(
    app: App, end: str, autojump_clock: MockClock
) -> None:
    config = quiet(graceful_timeout=7, websocket_ping_interval=1000)
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with asgi_handler(app, config=config) as handle_stream:
            async with trio.open_nursery() as nursery:
                visitor = Visitor(await near.open_stream())
                nursery.start_soon(handle_stream, await far.accept_stream())
                await visitor.send(Request(host="peer", target="/"))
                if app is not silent:
                    await visitor.until(AcceptConnection)
                    if end.startswith("unread"):
                        with trio.move_on_after(2):
                            while True:
                                await visitor.send(TextMessage("x" * 10_000))
                    if end == "close frame":
                        await visitor.send(CloseConnection(code=1000))
                gone = trio.current_time()
                await (visitor.stream.reset() if "reset" in end else visitor.stream.aclose())
            assert trio.current_time() <= gone + 7 + PROBE
        await near.aclose()


async def test_a_turned_down_websocket_is_403_and_more_data_is_no_trouble() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await send({"type": "websocket.close"})

    async with session_pair(V2, heartbeat=None) as (near, far), served(refuse, far):
        visitor = Visitor(await near.open_stream())
        await visitor.send(Request(host="peer", target="/"))
        event = await visitor.until(RejectConnection)
        assert event.status_code == 403
        await visitor.stream.aclose()
        await near.aclose()
