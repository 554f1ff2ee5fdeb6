"""Clients that go, applications that fail, and servers that stop: in each phase of a request.

Whatever happens when: the handler ends within ``graceful_timeout``, no slot is kept, half an answer
never looks whole, and the next request is answered.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import MuxadoSession, MuxadoStream
from trio_muxado.http import MuxadoTransport, asgi_handler

from ..helpers import V2, outcome_of, session_pair
from .support import client_of, quiet, respond

GRACE = 7.0
"""What ``graceful_timeout`` is here."""

BIG = 2_000_000
"""Bytes that no window takes."""

PHASES = ("unread", "read some", "thinking", "begun", "streaming", "blocked", "answered")
each_phase = pytest.mark.parametrize("phase", PHASES)
each_version = pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])


class Phased:
    """An application that stays in one phase, and deaf there, or does something in it."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.reached = trio.Event()
        self.what_then: Any = trio.sleep_forever
        self.running = 0
        self.told: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/":
            await respond(send, b"fine")
            return
        self.running += 1
        try:
            await self.stay(receive, send)
            await self.what_then()
        finally:
            self.running -= 1

    async def stay(self, receive: Any, send: Any) -> None:
        if self.phase == "read some":
            await receive()
        elif self.phase == "thinking":
            while (await receive())["more_body"]:
                pass
        elif self.phase != "unread":
            headers = [(b"content-length", b"4")] if self.phase == "answered" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self.phase in ("streaming", "blocked"):
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if self.phase == "answered":
            await send({"type": "http.response.body", "body": b"done"})
        self.reached.set()
        if self.phase == "blocked":
            while True:
                await send({"type": "http.response.body", "body": bytes(BIG), "more_body": True})
                await trio.sleep(0.01)  # else the clock never leaps


@asynccontextmanager
async def serving(
    app: Any, far: MuxadoSession, stop: trio.Event | None = None
) -> AsyncGenerator[list[MuxadoStream], None]:
    handlers: list[MuxadoStream] = []
    config = quiet(graceful_timeout=GRACE)
    async with asgi_handler(app, config=config, stop=stop) as handle_stream:

        async def handle(stream: MuxadoStream) -> None:
            handlers.append(stream)
            try:
                await handle_stream(stream)
            finally:
                handlers.remove(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.serve_streams, handle)
            yield handlers
            nursery.cancel_scope.cancel()


def body_for(phase: str) -> bytes:
    return b"x" if phase == "thinking" else bytes(BIG)


async def request(http: httpx.AsyncClient, phase: str) -> httpx.Response:
    async with http.stream("POST", "/phase", content=body_for(phase)) as response:
        if phase == "blocked":
            await trio.sleep_forever()
        await response.aread()
        return response


async def check_all_is_well(near: MuxadoSession, handlers: list[Any], http: Any) -> None:
    await wait_all_tasks_blocked()
    assert handlers == []
    live = {state: n for state, n in near.statistics().streams.items() if n}
    assert not live
    assert (await http.get("/")).text == "fine"


# ---- the client goes


@each_version
@each_phase
async def test_a_client_that_is_cancelled(
    phase: str, http2: bool, autojump_clock: MockClock
) -> None:
    app = Phased(phase)
    async with session_pair(V2, heartbeat=None) as (near, far), serving(app, far) as handlers:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with client_of(near, http2=http2, limits=limits) as http:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(request, http, phase)
                    await app.reached.wait()
                    await wait_all_tasks_blocked()
                    gone = trio.current_time()
                    scope.cancel()
            while app.running if phase != "answered" else handlers:
                await trio.sleep(0.1)
            assert trio.current_time() <= gone + GRACE + 0.2
            await check_all_is_well(near, handlers, http)
        assert app.running == (phase == "answered")  # a background task is none of the client's


@each_phase
async def test_a_session_that_is_closed_by_the_client(
    phase: str, autojump_clock: MockClock
) -> None:
    app = Phased(phase)
    async with session_pair(V2, heartbeat=None, close_timeout=1) as (near, far):
        async with serving(app, far) as handlers, client_of(near) as http:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outcome_of, lambda: request(http, phase))
                await app.reached.wait()
                await wait_all_tasks_blocked()
                await near.aclose()
                gone = trio.current_time()
                nursery.cancel_scope.cancel()
            while handlers:
                await trio.sleep(0.1)
            assert trio.current_time() <= gone + GRACE + 0.2


@pytest.mark.parametrize("phase", ["thinking", "begun", "streaming"])
async def test_a_client_that_closes_its_stream_and_an_application_that_does_not_care(
    phase: str, autojump_clock: MockClock
) -> None:
    app = Phased(phase)
    async with session_pair(V2, heartbeat=None) as (near, far), serving(app, far) as handlers:
        stream = await near.open_stream()
        await stream.send_all(b"GET /phase HTTP/1.1\r\nhost: peer\r\n\r\n")
        await app.reached.wait()
        await wait_all_tasks_blocked()
        await stream.aclose()
        gone = trio.current_time()
        while handlers:
            await trio.sleep(0.1)
        assert gone + GRACE <= trio.current_time() <= gone + GRACE + 0.2


async def test_an_answer_to_a_half_closed_client_has_time_with_each_piece(
    autojump_clock: MockClock,
) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            await trio.sleep(GRACE - 1)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body"})

    async with session_pair(V2, heartbeat=None) as (near, far), serving(slow, far):
        async with await near.open_stream() as stream:
            await stream.send_all(b"GET / HTTP/1.0\r\nhost: peer\r\n\r\n")
            await stream.send_eof()
            assert b"".join([piece async for piece in stream]).endswith(b"xxxxx")


# ---- the application fails


async def fails() -> None:
    raise ValueError("a bug of the application")


async def returns() -> None:
    pass


@each_version
@pytest.mark.parametrize("what", [fails, returns])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "blocked"])
async def test_an_application_that_ends_too_early(
    phase: str, what: Any, http2: bool, autojump_clock: MockClock
) -> None:
    app = Phased(phase)
    app.what_then = what
    async with session_pair(V2, heartbeat=None) as (near, far), serving(app, far) as handlers:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with client_of(near, http2=http2, limits=limits) as http:
            outcome = await outcome_of(lambda: request(http, phase))
            if phase == "answered":
                assert outcome.text == "done"
            elif phase in ("begun", "streaming"):
                assert isinstance(outcome, httpx.TransportError)
            else:
                assert outcome.status_code == 500
            await check_all_is_well(near, handlers, http)


@pytest.mark.parametrize("what", [fails, returns])
@pytest.mark.parametrize("eof", [False, True])
async def test_half_an_answer_never_looks_whole_on_http_1_0(what: Any, eof: bool) -> None:
    app = Phased("streaming")
    app.what_then = what
    async with session_pair(V2, heartbeat=None) as (near, far), serving(app, far):
        async with await near.open_stream() as stream:
            await stream.send_all(b"GET /phase HTTP/1.0\r\n\r\n")
            if eof:
                await stream.send_eof()
            with pytest.raises(trio.BrokenResourceError):
                async for _ in stream:
                    pass


async def test_what_is_too_short_for_its_length_does_not_look_whole() -> None:
    async def short(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half"})

    async with session_pair(V2, heartbeat=None) as (near, far), serving(short, far):
        async with client_of(near) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get("/")


# ---- the server stops


@each_version
@each_phase
async def test_a_server_that_stops(phase: str, http2: bool, autojump_clock: MockClock) -> None:
    app = Phased(phase)
    stop = trio.Event()
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with serving(app, far, stop) as handlers:
            async with client_of(near, http2=http2) as http, trio.open_nursery() as nursery:
                outcomes: list[Any] = []

                async def ask() -> None:
                    outcomes.append(await outcome_of(lambda: request(http, phase)))

                nursery.start_soon(ask)
                await app.reached.wait()
                await wait_all_tasks_blocked()
                stop.set()
                stopped = trio.current_time()
                while handlers or app.running:
                    await trio.sleep(0.1)
                assert trio.current_time() <= stopped + GRACE + 0.2
                nursery.cancel_scope.deadline = trio.current_time() + 1
            if phase == "answered":
                assert outcomes[0].text == "done"
                assert trio.current_time() < math.inf
            elif phase != "blocked":
                assert isinstance(outcomes[0], httpx.TransportError)


@each_version
async def test_a_request_that_runs_when_the_server_stops_is_answered(
    http2: bool, autojump_clock: MockClock
) -> None:
    app = Phased("thinking")
    stop = trio.Event()
    go_on = trio.Event()
    app.what_then = go_on.wait
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with asgi_handler(app, config=quiet(graceful_timeout=GRACE), stop=stop) as handle:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.serve_streams, handle)
                transport = MuxadoTransport(near, http2=http2)
                async with httpx.AsyncClient(transport=transport, timeout=None) as http:
                    statuses: list[int] = []

                    async def ask() -> None:
                        statuses.append(
                            (await http.post("http://peer/x", content=b"x")).status_code
                        )

                    nursery.start_soon(ask)
                    await app.reached.wait()
                    stop.set()
                    await trio.sleep(GRACE - 1)
                    go_on.set()
                    while not statuses:
                        await trio.sleep(0.1)
                    assert statuses == [500]  # it has sent nothing, and that is its answer
                await far.drain()
                await far.aclose()


@each_version
async def test_an_answer_is_sent_whole_before_its_application_hears_the_end(http2: bool) -> None:
    """As Starlette streams: what waits for the end of the client cancels what sends."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        assert not (await receive())["more_body"]
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                assert (await receive())["type"] == "http.disconnect"
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await wait_all_tasks_blocked()
            await respond(send, b"x" * 100_000)
            nursery.cancel_scope.cancel()

    async with session_pair(V2, heartbeat=None) as (near, far), serving(app, far):
        async with client_of(near, http2=http2) as http:
            for _ in range(10):
                assert len((await http.get("/")).content) == 100_000
