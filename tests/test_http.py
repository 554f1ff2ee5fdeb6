"""HTTP over streams: hypercorn at one end, httpx, httpcore or curl at the other.

Where a test runs over TCP it is for the addresses or for curl; the rest is in memory.  hypercorn
and httpcore keep time by trio's clock, except for the age of httpcore's idle connections.
"""

import contextlib
import importlib
import shutil
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpcore
import httpx
import pytest
import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionEndedError,
    StreamResetError,
)
from trio_muxado.http import MuxadoBackend, MuxadoTransport, asgi_handler, serve_asgi
from trio_muxado.testing import Link

from .helpers import V1, V2, Kind, each_wire, read_all, session_pair, tcp_pair

ABANDONED = r"ignore:Async generator '(httpcore|httpx)\.:ResourceWarning"
"""httpx and httpcore loop over async generators without ``aclosing``, so where a body is sent or
read only in part, theirs are left to the garbage collector, of which trio warns.  It is the same
over TCP, and nobody outside can close what only their frames hold.  One of ours, or of the test,
is still an error."""

App = Callable[[Any, Any, Any], Awaitable[None]]


def quiet(**choices: Any) -> Config:
    """A configuration that keeps its log to itself."""
    return Config.from_mapping({"errorlog": None, **choices})


async def respond(send: Any, body: bytes = b"", status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def echo_app(scope: Any, receive: Any, send: Any) -> None:
    """Sends the body back, or the path where there is none."""
    assert scope["type"] == "http"
    await respond(send, await body_of(receive) or scope["path"].encode())


async def deaf_app(scope: Any, receive: Any, send: Any) -> None:
    """Never answers, and does not want to know that nobody waits any more."""
    assert scope["type"] == "http"
    await trio.sleep_forever()


@asynccontextmanager
async def served(
    app: App, session: MuxadoSession, **choices: Any
) -> AsyncGenerator[trio.CancelScope, None]:
    """Serve to a session while the block runs, and until the session has ended."""
    choices.setdefault("config", quiet())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_asgi, app, session, **choices))
        yield nursery.cancel_scope


@asynccontextmanager
async def http_pair(
    app: App, kind: Kind = V1, *, client: dict[str, Any] | None = None, **choices: Any
) -> AsyncGenerator[tuple[httpx.AsyncClient, MuxadoSession, MuxadoSession], None]:
    """A client whose requests an application at the session's other end answers."""
    async with session_pair(kind, heartbeat=None, client=client) as (near, far):
        async with served(app, far, **choices):
            async with client_of(near) as http:
                yield http, near, far
            await near.aclose()


def client_of(session: MuxadoSession, **choices: Any) -> httpx.AsyncClient:
    transport = MuxadoTransport(session, **choices)
    return httpx.AsyncClient(transport=transport, base_url="http://peer", timeout=None)


def opened(session: MuxadoSession) -> int:
    return session.statistics().opened


# ---- requests and responses


@each_wire
async def test_a_request_is_answered_in_memory(kind: Kind) -> None:
    async with http_pair(echo_app, kind) as (http, _, _):
        response = await http.get("/hello")
        assert (response.status_code, response.content) == (200, b"/hello")
        assert response.http_version == "HTTP/1.1"


@each_wire
async def test_a_request_is_answered_over_tcp_and_the_addresses_are_known(kind: Kind) -> None:
    async def addresses(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await respond(send, repr((scope["client"], scope["server"])).encode())

    async with tcp_pair() as transports:
        near: Any = transports[0]
        expected = near.socket.getsockname(), near.socket.getpeername()
        async with session_pair(kind, transports=transports) as (client, server):
            async with served(addresses, server), client_of(client) as http:
                response = await http.get("/")
                assert response.text == repr(expected)
                await http.aclose()
                await client.aclose()


@each_wire
async def test_connections_are_kept_alive_and_used_again(kind: Kind) -> None:
    async with http_pair(echo_app, kind) as (http, near, _):
        for _ in range(5):
            assert (await http.get("/")).status_code == 200
        assert opened(near) == 1


@each_wire
async def test_a_large_body_comes_back_whole(kind: Kind) -> None:
    async with http_pair(echo_app, kind) as (http, _, _):
        body = bytes(range(200)) * 1000
        assert (await http.post("/", content=body)).content == body


@each_wire
async def test_a_response_is_read_while_it_is_made(kind: Kind) -> None:
    go_on = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async with http_pair(slow, kind) as (http, near, _):
        async with http.stream("GET", "/") as response:
            parts = response.aiter_raw()
            assert await anext(parts) == b"first"
            go_on.set()
            assert [part async for part in parts] == [b"last"]
        await http.get("/")
        assert opened(near) == 1


@each_wire
async def test_fifty_requests_run_side_by_side(kind: Kind) -> None:
    waiting: list[str] = []
    all_there = trio.Event()

    async def meet(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        waiting.append(scope["path"])
        if len(waiting) == 50:
            all_there.set()
        await all_there.wait()
        await respond(send, scope["path"].encode())

    async with http_pair(meet, kind) as (http, near, _):

        async def get(path: str) -> None:
            assert (await http.get(path)).text == path

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(get, f"/{number}")
        assert opened(near) == 50


@each_wire
async def test_a_tunnel_s_agent_serves_and_the_relay_asks(kind: Kind) -> None:
    async with session_pair(kind, server={"wire": kind.wire}) as (agent, relay):
        async with served(echo_app, agent):
            async with client_of(relay) as http:
                assert (await http.get("/reverse")).text == "/reverse"
            await relay.aclose()


async def test_both_ends_may_serve_at_the_same_time() -> None:
    async with session_pair(V1) as (near, far):
        async with served(echo_app, near), served(echo_app, far):
            async with client_of(near) as one, client_of(far) as other:
                assert (await one.get("/there")).text == "/there"
                assert (await other.get("/back")).text == "/back"
            await near.aclose()


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


async def test_tls_on_a_stream_for_a_peer_that_passes_it_on(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def handle(stream: MuxadoStream) -> None:
        secret = trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
        with contextlib.suppress(trio.BrokenResourceError):
            while b"GET / HTTP/1.1" in await secret.receive_some():
                await secret.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handle)
        async with client_of(near, ssl_context=client_context) as http:
            assert (await http.get("https://localhost/")).status_code == 200
            assert (await http.get("https://localhost/")).status_code == 200
            assert opened(near) == 1
        async with client_of(near, ssl_context=client_context) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get("https://elsewhere/")
        await near.aclose()


# ---- connections that have ended


async def answer_once(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@each_wire
@pytest.mark.parametrize("end", ["aclose", "send_eof", "reset"])
async def test_an_idle_connection_that_has_ended_is_not_used_again(kind: Kind, end: str) -> None:
    async def handle(stream: MuxadoStream) -> None:
        await answer_once(stream)
        await next_request.wait()
        await getattr(stream, end)()
        await trio.sleep_forever()

    async with session_pair(kind, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handle)
        async with client_of(near) as http:
            for number in range(1, 4):
                next_request = trio.Event()
                # Not to be sent twice, and httpx has no way to know if it was processed.
                assert (await http.post("/", content=b"once")).status_code == 200
                assert opened(near) == number
                next_request.set()
                await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_nor_is_one_with_tls_on_it(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def handle(stream: MuxadoStream) -> None:
        secret = trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
        await answer_once(secret)
        await secret.aclose()

    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handle)
        async with client_of(near, ssl_context=client_context) as http:
            for number in range(1, 4):
                assert (await http.post("https://localhost/", content=b"once")).status_code == 200
                assert opened(near) == number
                await wait_all_tasks_blocked()
        await near.aclose()


async def test_hypercorn_s_idle_timeout_costs_the_client_nothing(autojump_clock: MockClock) -> None:
    async with http_pair(echo_app) as (http, near, far):
        for number in range(1, 4):
            assert (await http.post("/", content=b"x")).status_code == 200
            assert opened(near) == number
            await trio.sleep(6)
        assert not far.statistics().streams.get("open")


async def test_a_connection_that_the_client_closes_is_gone_at_once(mock_clock: MockClock) -> None:
    async with session_pair(V1, heartbeat=None) as (near, far):
        async with asgi_handler(echo_app, config=quiet()) as handle_stream:
            stream = await near.open_stream()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle_stream, await far.accept_stream())
                await stream.send_all(b"GET / HTTP/1.1\r\nhost: peer\r\n\r\n")
                assert b" 200 " in await stream.receive_some()
                await stream.aclose()
            # All of it has ended, though no time has passed.


async def test_a_client_may_half_close_and_wait_for_the_answer() -> None:
    asked, go_on = trio.Event(), trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        asked.set()
        await go_on.wait()
        await respond(send, b"late")

    async with session_pair(V2, heartbeat=None) as (near, far), served(slow, far):
        async with await near.open_stream() as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: peer\r\n\r\n")
            await stream.send_eof()
            await asked.wait()
            await wait_all_tasks_blocked()
            go_on.set()
            assert (await read_all(stream)).endswith(b"\r\n\r\nlate")
        await near.aclose()


@pytest.mark.filterwarnings(ABANDONED)
async def test_who_stops_reading_a_response_is_gone_for_the_application() -> None:
    ended = trio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        assert await body_of(receive) == b""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async with http_pair(endless) as (http, _, _):
        async with http.stream("GET", "/") as response:
            assert await anext(response.aiter_raw()) == b"first"
        await ended.wait()


# ---- what goes wrong


@each_wire
async def test_an_application_s_error_is_a_500_and_the_session_goes_on(kind: Kind) -> None:
    async def crash(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/late":
            headers = [(b"content-length", b"1000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if scope["path"] != "/":
            raise ValueError("a bug of the application")
        await respond(send)

    async with http_pair(crash, kind) as (http, near, _):
        assert (await http.get("/early")).status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/late")
        assert (await http.get("/")).status_code == 200
        assert near.statistics().reset_by_peer == 0


@pytest.mark.parametrize(
    "request_line, status",
    [(b"hello, muxado\r\n\r\n", b" 400 "), (b"GET / HTTP/1.1\r\n\r\n", b" 400 ")],
)
async def test_what_is_not_http_ends_only_its_stream(request_line: bytes, status: bytes) -> None:
    async with http_pair(echo_app) as (http, near, _):
        async with await near.open_stream() as stream:
            await stream.send_all(request_line)
            assert status in await read_all(stream)
        assert (await http.get("/")).status_code == 200


async def test_an_error_inside_hypercorn_ends_only_its_stream() -> None:
    # It decodes the host as UTF-8 in the task that reads.
    async with http_pair(echo_app, config=quiet(server_names=["peer"])) as (http, near, _):
        async with await near.open_stream() as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: \xff\r\n\r\n")
            with pytest.raises(StreamResetError):
                await read_all(stream)
        assert (await http.get("/")).status_code == 200


@each_wire
async def test_a_session_that_is_closed_during_a_request(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (near, far):
        async with served(deaf_app, far) as scope, client_of(near) as http:

            async def close() -> None:
                await wait_all_tasks_blocked()
                scope.cancel()
                await far.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(close)
                with pytest.raises(httpx.ReadError) as caught:
                    await http.get("/")
            assert isinstance(caught.value.__cause__, MuxadoError)
            with pytest.raises(httpx.ConnectError) as refused:
                await http.get("/")
            assert isinstance(refused.value.__cause__, SessionEndedError)


@each_wire
async def test_a_session_that_breaks_during_a_response(kind: Kind) -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await trio.sleep_forever()

    link = Link()
    transports = link.client, link.server
    failure = pytest.RaisesGroup(SessionEndedError)
    with failure:
        async with session_pair(kind, transports=transports, heartbeat=None) as (near, far):
            async with served(half, far):
                async with client_of(near) as http, http.stream("GET", "/") as response:
                    parts = response.aiter_raw()
                    assert await anext(parts) == b"half"
                    link.cut()
                    with pytest.raises(httpx.ReadError) as caught:
                        await anext(parts)
                    assert isinstance(caught.value.__cause__, SessionEndedError)


async def test_a_refused_stream_says_that_it_can_be_tried_again() -> None:
    async with session_pair(V2, heartbeat=None) as (near, far), client_of(near) as http:

        async def refuse() -> None:
            stream = await far.accept_stream()
            await stream.reset(ErrorCode.STREAM_REFUSED)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(httpx.ReadError) as caught:
                await http.get("/")
        assert isinstance(caught.value.__cause__, StreamResetError)
        assert caught.value.__cause__.safe_to_retry


@pytest.mark.filterwarnings(ABANDONED)
@pytest.mark.parametrize(
    "method, timeout, expected",
    [
        ("GET", httpx.Timeout(None, read=2), httpx.ReadTimeout),
        ("POST", httpx.Timeout(None, write=2), httpx.WriteTimeout),
        ("GET", httpx.Timeout(None, connect=2), httpx.ConnectTimeout),
        ("GET", httpx.Timeout(None, pool=2), httpx.PoolTimeout),
    ],
)
async def test_timeouts(
    method: str,
    timeout: httpx.Timeout,
    expected: type[httpx.TransportError],
    autojump_clock: MockClock,
) -> None:
    one_stream = httpx.Limits(max_connections=1)
    async with session_pair(V1, heartbeat=None, client={"max_outbound_streams": 1}) as (near, _):
        async with trio.open_nursery() as nursery:
            if expected is httpx.PoolTimeout:
                http = client_of(near, limits=one_stream)
                nursery.start_soon(http.get, "/")
            else:
                http = client_of(near)
            if expected is httpx.ConnectTimeout:
                nursery.start_soon(http.get, "/")
            await wait_all_tasks_blocked()
            start = trio.current_time()
            with pytest.raises(expected) as caught:
                body = bytes(2_000_000) if method == "POST" else b""
                await http.request(method, "/", content=body, timeout=timeout)
            assert trio.current_time() == pytest.approx(start + 2)
            assert caught.value.request.method == method
            nursery.cancel_scope.cancel()
        await http.aclose()


def test_without_its_packages_the_module_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("trio_muxado.http")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match=r"pip install 'trio_muxado\[http\]'"):
        importlib.import_module("trio_muxado.http")


# ---- the application's life, and the end of it


class Lively:
    """An application with a lifespan, which notes what happens to it."""

    def __init__(self, *, fails: str = "") -> None:
        self.fails = fails
        self.notes: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.notes.append("request")
            await respond(send, scope["state"]["word"].encode())
            return
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            self.notes.append(step)
            scope["state"]["word"] = "shared"
            outcome = "failed" if self.fails == step else "complete"
            await send({"type": f"lifespan.{step}.{outcome}"})


async def test_a_lifespan_is_around_all_requests_of_all_sessions() -> None:
    app = Lively()
    async with asgi_handler(app, config=quiet()) as handle_stream:
        for _ in range(2):
            async with session_pair(V1) as (near, far), trio.open_nursery() as nursery:
                nursery.start_soon(far.serve_streams, handle_stream)
                async with client_of(near) as http:
                    assert (await http.get("/")).text == "shared"
                await near.aclose()
    assert app.notes == ["startup", "request", "request", "shutdown"]


async def test_a_session_that_breaks_ends_the_lifespan_in_good_order() -> None:
    app = Lively()
    link = Link()
    async with session_pair(V1, transports=(link.client, link.server)) as (_, far):
        link.cut(OSError("the cable"))
        with pytest.raises(SessionEndedError):
            await serve_asgi(app, far, config=quiet())
    assert app.notes == ["startup", "shutdown"]


@pytest.mark.parametrize("step", ["startup", "shutdown"])
async def test_a_lifespan_that_fails_is_told(step: str) -> None:
    app = Lively(fails=step)
    with pytest.raises(LifespanFailureError, match=step):
        async with asgi_handler(app, config=quiet()):
            assert step == "shutdown"


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    app = Lively()
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with asgi_handler(app, config=quiet()):
            raise error
    assert caught.value is error
    assert app.notes == ["startup", "shutdown"]
    with trio.CancelScope() as scope:
        async with asgi_handler(app, config=quiet()):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_application_needs_no_lifespan() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await respond(send)

    for app in (silent, echo_app):
        async with http_pair(app) as (http, _, _):
            assert (await http.get("/")).status_code == 200


async def test_an_application_that_ignores_the_end_is_cancelled(autojump_clock: MockClock) -> None:
    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(deaf_app, far, config=quiet(graceful_timeout=7)):
            stream = await near.open_stream()
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: peer\r\n\r\n")
            await wait_all_tasks_blocked()
            await near.aclose()
            end = trio.current_time()
        assert trio.current_time() == end + 7


async def test_a_client_that_does_not_read_cannot_hold_up_the_end() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            body = bytes(100_000)
            await send({"type": "http.response.body", "body": body, "more_body": True})

    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(endless, far) as scope:
            stream = await near.open_stream()
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: peer\r\n\r\n")
            await wait_all_tasks_blocked()
            scope.cancel()
        with pytest.raises(StreamResetError):
            await read_all(stream)


async def test_stopping_gently_answers_what_runs_and_closes_what_is_idle(
    mock_clock: MockClock,
) -> None:
    stop, go_on = trio.Event(), trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/slow":
            await go_on.wait()
        await respond(send, b"done")

    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(app, far, stop=stop), client_of(near) as http:
            responses: list[httpx.Response] = []

            async def get(path: str) -> None:
                responses.append(await http.get(path))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(get, "/slow")
                await wait_all_tasks_blocked()
                await get("/")
                # One more, without a request so far: that is not lost either.
                late = await near.open_stream()
                await wait_all_tasks_blocked()
                stop.set()
                await wait_all_tasks_blocked()
                assert far.statistics().streams["open"] == 2  # no time has passed
                await late.send_all(b"GET / HTTP/1.1\r\nhost: peer\r\n\r\n")
                assert b"connection: close" in await read_all(late)
                await late.aclose()
                go_on.set()
            assert [response.text for response in responses] == ["done", "done"]
            assert responses[1].headers["connection"] == "close"
            await far.drain()
            await far.aclose()


# ---- curl

if curl := shutil.which("curl"):

    @asynccontextmanager
    async def proxy_to(session: MuxadoSession) -> AsyncIterator[int]:
        """A TCP port whose connections are streams of the session."""

        async def handle(tcp: trio.SocketStream) -> None:
            async with await session.open_stream() as stream, trio.open_nursery() as nursery:

                async def copy(source: Any, sink: Any) -> None:
                    with contextlib.suppress(trio.BrokenResourceError):
                        async for chunk in source:
                            await sink.send_all(chunk)
                        await sink.send_eof()

                nursery.start_soon(copy, tcp, stream)
                nursery.start_soon(copy, stream, tcp)

        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, host="127.0.0.1")
            listeners = await nursery.start(serve, handle, 0)
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()

    @each_wire
    @pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
    async def test_curl(kind: Kind, version: str, tmp_path: Any) -> None:
        (tmp_path / "body").write_bytes(bytes(range(200)) * 1000)
        async with tcp_pair() as transports:
            async with session_pair(kind, transports=transports) as (near, far):
                async with served(echo_app, far), proxy_to(near) as port:
                    url = f"http://127.0.0.1:{port}/"
                    options = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]
                    data = ["--data-binary", f"@{tmp_path}/body", "--header", "Expect:"]
                    # The second on the same connection.  curl 7.88 and hypercorn can't do that
                    # with HTTP/2, over TCP as little as here.
                    count = 1 if "http2" in version else 2
                    command = [str(curl), version, *options, *data, *[url] * count]
                    done = await trio.run_process(
                        command, capture_stdout=True, capture_stderr=True, check=False
                    )
                    assert (done.returncode, done.stderr) == (0, b"")
                    assert done.stdout == (tmp_path / "body").read_bytes() * count
                    await near.aclose()
