"""Requests and their answers: hypercorn at one end, httpx, httpcore or curl at the other."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import (
    MuxadoSession,
    StreamResetError,
)

from ..helpers import V1, V2, Kind, each_wire, read_all, session_pair, tcp_pair
from .support import (
    client_of,
    echo_app,
    http_pair,
    opened,
    quiet,
    respond,
    served,
)


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
async def test_fifty_requests_run_side_by_side(kind: Kind, autojump_clock: MockClock) -> None:
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


async def test_a_request_on_a_kept_connection_needs_no_scope_but_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def counted(name: str, make: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(name)
        return make(*args, **kwargs)

    async with session_pair(V2, heartbeat=None) as (near, far), served(echo_app, far):
        async with await near.open_stream() as stream:
            for number in range(3):
                if number == 2:
                    for name in ("CancelScope", "move_on_after", "fail_after"):
                        monkeypatch.setattr(trio, name, partial(counted, name, getattr(trio, name)))
                await stream.send_all(b"GET /x HTTP/1.1\r\nhost: peer\r\n\r\n")
                await wait_all_tasks_blocked()
                assert (await stream.receive_some(10_000)).endswith(b"/x")
            monkeypatch.undo()
        await near.aclose()
    assert made == ["CancelScope"]  # of the call of the application


async def test_a_client_that_is_silent_for_the_read_timeout(autojump_clock: MockClock) -> None:
    config = quiet(read_timeout=50)
    async with (
        session_pair(V2, heartbeat=None) as (near, far),
        served(echo_app, far, config=config),
    ):
        async with await near.open_stream() as stream:
            await stream.send_all(b"GET /x HT")
            with pytest.raises(StreamResetError, match="STREAM_REFUSED"):
                await stream.receive_some()
            assert trio.current_time() == pytest.approx(50)
        await near.aclose()
