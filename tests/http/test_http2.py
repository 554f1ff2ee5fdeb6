"""HTTP/2 on a stream, at either end."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import httpcore
import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import MuxadoError, MuxadoStream, StreamResetError
from trio_muxado.http import MuxadoBackend

from ..helpers import V2, Kind, each_wire, session_pair
from .support import body_of, client_of, echo_app, opened, quiet, respond, served


async def test_http2_carries_many_requests_on_one_stream() -> None:
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(echo_app, far):
            backend = MuxadoBackend(near)
            async with httpcore.AsyncConnectionPool(
                http1=False, http2=True, network_backend=backend
            ) as pool:

                async def post(number: int) -> None:
                    body = bytes([number]) * 50_000
                    response = await pool.request("POST", "http://peer/", content=body)
                    assert response.extensions["http_version"] == b"HTTP/2"
                    assert response.content == body

                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        nursery.start_soon(post, number)
                assert opened(near) == 1
            await near.aclose()


# ---- what hypercorn gets wrong


class Client:
    """HTTP/2 by h2, on a stream, with many requests at once."""

    def __init__(self, stream: MuxadoStream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection()
        self.h2.initiate_connection()
        self.events: list[Any] = []

    async def send(self, path: str, body: bytes = b"", *, end: bool = True) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        method = "POST" if body else "GET"
        pseudo = {":method": method, ":authority": "peer", ":scheme": "http", ":path": path}
        self.h2.send_headers(stream_id, list(pseudo.items()), end_stream=end and not body)
        for start in range(0, len(body), 16_000):
            last = end and start + 16_000 >= len(body)
            self.h2.send_data(stream_id, body[start : start + 16_000], end_stream=last)
        await self.flush()
        return stream_id

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def until(self, kind: Any, stream_id: int | None = None) -> Any:
        """The next event of that kind, and stream; the others are kept."""
        while True:
            for event in self.events:
                of_stream = stream_id is None or getattr(event, "stream_id", None) == stream_id
                if isinstance(event, kind) and of_stream:
                    self.events.remove(event)
                    return event
            data = await self.stream.receive_some()
            assert data, f"the stream ended before {kind}"
            for event in self.h2.receive_data(data):
                self.events.append(event)
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            await self.flush()


async def by_path(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    if scope["path"] == "/deaf":
        await trio.sleep_forever()
    if scope["path"] == "/slow":
        await trio.sleep(1)
    if scope["path"] == "/half":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a bug of the application")
    if scope["path"] == "/echo":
        await respond(send, await body_of(receive))
    else:
        await respond(send, scope["path"].encode())


@asynccontextmanager
async def client(**choices: Any) -> AsyncGenerator[Client, None]:
    choices.setdefault("config", quiet())
    async with session_pair(V2, heartbeat=None, close_timeout=1) as (near, far):
        async with served(by_path, far, **choices) as scope:
            async with await near.open_stream() as stream:
                yield Client(stream)
            scope.cancel()


async def test_a_body_that_nobody_reads_holds_up_no_other_request() -> None:
    async with client() as http:
        await http.send("/deaf", bytes(60_000), end=False)
        stream_id = await http.send("/other")
        assert (await http.until(h2.events.DataReceived, stream_id)).data == b"/other"


async def test_windows_open_as_bodies_are_read() -> None:
    async with session_pair(V2, heartbeat=None) as (near, far), served(by_path, far):
        async with client_of(near, http2=True) as http:
            body = bytes(range(250)) * 4000
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(partial(post_and_compare, http, body))
        await near.aclose()


async def post_and_compare(http: Any, body: bytes) -> None:
    assert (await http.post("/echo", content=body)).content == body


async def test_a_body_that_was_never_read_gives_its_window_back() -> None:
    async with client() as http:
        for _ in range(10):
            stream_id = await http.send("/refused", bytes(30_000), end=False)
            await http.until(h2.events.StreamEnded, stream_id)
            reset = await http.until(h2.events.StreamReset, stream_id)
            assert reset.error_code == h2.errors.ErrorCodes.NO_ERROR
        assert http.h2.outbound_flow_control_window > 30_000


async def test_data_behind_an_answer_is_no_trouble() -> None:
    async with client() as http:
        stream_id = await http.send("/refused", b"x", end=False)
        await http.until(h2.events.ResponseReceived, stream_id)
        http.h2.send_data(stream_id, b"late")
        await http.flush()
        stream_id = await http.send("/next")
        assert (await http.until(h2.events.DataReceived, stream_id)).data == b"/next"


async def test_an_answer_that_ends_too_early_is_reset() -> None:
    async with client() as http:
        stream_id = await http.send("/half")
        reset = await http.until(h2.events.StreamReset, stream_id)
        assert reset.error_code == h2.errors.ErrorCodes.INTERNAL_ERROR
        stream_id = await http.send("/next")
        assert (await http.until(h2.events.DataReceived, stream_id)).data == b"/next"


async def test_a_stop_refuses_further_requests_and_answers_those_that_run(
    autojump_clock: MockClock,
) -> None:
    stop = trio.Event()
    async with client(stop=stop) as http:
        slow = await http.send("/slow")
        await http.until(h2.events.SettingsAcknowledged)
        await wait_all_tasks_blocked()
        stop.set()
        await wait_all_tasks_blocked()
        late = await http.send("/late")
        reset = await http.until(h2.events.StreamReset, late)
        assert reset.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
        assert (await http.until(h2.events.DataReceived, slow)).data == b"/slow"
        goaway = await http.until(h2.events.ConnectionTerminated)
        assert (goaway.error_code, goaway.last_stream_id) == (0, slow)


async def test_the_last_request_of_a_connection_cuts_no_other(autojump_clock: MockClock) -> None:
    async with client(config=quiet(keep_alive_max_requests=1)) as http:
        slow = await http.send("/slow")
        for _ in range(3):
            stream_id = await http.send("/quick")
            assert (await http.until(h2.events.DataReceived, stream_id)).data == b"/quick"
        assert (await http.until(h2.events.DataReceived, slow)).data == b"/slow"
        await http.until(h2.events.ConnectionTerminated)


async def test_a_request_that_its_client_resets_is_forgotten(autojump_clock: MockClock) -> None:
    async with client(config=quiet(graceful_timeout=2, keep_alive_timeout=5)) as http:
        for path in ("/deaf", "/slow", "/deaf"):
            stream_id = await http.send(path)
            await http.until(h2.events.SettingsAcknowledged) if stream_id == 1 else None
            http.h2.reset_stream(stream_id)
            await http.flush()
        quick = await http.send("/quick")
        assert (await http.until(h2.events.DataReceived, quick)).data == b"/quick"
        idle_since = trio.current_time()
        with pytest.raises(StreamResetError):  # refused: the connection is idle for too long
            await http.until(h2.events.ConnectionTerminated)
        assert trio.current_time() == idle_since + 5


# ---- the client's HTTP/2


async def test_the_client_reuses_a_connection_for_one_request_at_a_time() -> None:
    async with session_pair(V2, heartbeat=None) as (near, far), served(by_path, far):
        async with client_of(near, http2=True) as http:
            for _ in range(5):
                response = await http.get("/quick")
                assert (response.text, response.http_version) == ("/quick", "HTTP/2")
            assert opened(near) == 1
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(http.get, "/quick")
            assert opened(near) == 5
        await near.aclose()


@pytest.mark.parametrize("code, safe", [(7, True), (2, False)])
async def test_a_request_that_http2_refuses_is_safe_to_retry(code: int, safe: bool) -> None:
    async def handle(stream: MuxadoStream) -> None:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        server.initiate_connection()
        while True:
            for event in server.receive_data(await stream.receive_some()):
                if isinstance(event, h2.events.RequestReceived):
                    server.reset_stream(event.stream_id, code)
            await stream.send_all(server.data_to_send())

    async with session_pair(V2, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handle)
        async with client_of(near, http2=True) as http:
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await http.post("/", content=b"an order")
        assert isinstance(caught.value.__cause__, MuxadoError)
        assert caught.value.__cause__.safe_to_retry is safe
        nursery.cancel_scope.cancel()


@each_wire
@pytest.mark.parametrize("last, safe", [(1, True), (3, False)])
async def test_the_peer_s_goaway_is_heard_although_its_session_has_ended(
    kind: Kind, last: int, safe: bool
) -> None:
    """Nothing of a request could be sent, and what the server had said before tells about it."""
    goes = trio.Event()

    async def handle(stream: MuxadoStream) -> None:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        server.initiate_connection()
        answered = False
        while not answered:
            for event in server.receive_data(await stream.receive_some()):
                if isinstance(event, h2.events.RequestReceived):
                    server.send_headers(event.stream_id, [(":status", "204")], end_stream=True)
                    answered = True
            await stream.send_all(server.data_to_send())
        await goes.wait()
        server.close_connection(last_stream_id=last)
        await stream.send_all(server.data_to_send())
        await stream.aclose()

    async with session_pair(kind, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handle)
        async with client_of(near, http2=True) as http:
            await http.get("/")

            async def order() -> AsyncGenerator[bytes, None]:
                # The request has an idle stream by now, and has sent nothing.
                goes.set()
                await wait_all_tasks_blocked()
                await far.aclose()
                await near.wait_closed()
                yield b"an order"

            with pytest.raises(httpx.TransportError) as caught:
                await http.post("/", content=order(), headers={"content-length": "8"})
        cause = caught.value.__cause__
        assert isinstance(cause, MuxadoError)
        assert cause.safe_to_retry is safe
        assert isinstance(caught.value, httpx.RemoteProtocolError if safe else httpx.WriteError)
