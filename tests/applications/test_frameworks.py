"""FastAPI, Starlette, Quart and Flask over a session, in the good case and in each bad one.

Only the real clock is of use: Flask runs in threads.  A test waits for a state, never for a time,
and a deadline far above guards against a hang.
"""

import hashlib
import importlib
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    RejectConnection,
    Request,
    TextMessage,
)

from trio_muxado import MuxadoConfig, MuxadoSession, MuxadoStream, StreamResetError
from trio_muxado.http import MuxadoTransport, asgi_handler
from trio_muxado.testing import open_session_pair

from ..helpers import outcome_of
from ..http.support import quiet
from .frameworks.control import Control

pytestmark = [
    pytest.mark.applications,
    # Their own, and httpx's, where a client stops in the middle.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

GRACE = 0.5
ASYNC = ["fastapi", "starlette", "quart"]
ALL = [*ASYNC, "flask"]
each_framework = pytest.mark.parametrize("framework", ALL)
each_version = pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])

REQUESTS = [
    "unread",  # the application reads nothing of the body
    "reading",  # it has read some of it, and is busy
    "receiving",  # it waits for the rest, which the client holds back
    "streaming",  # it has sent some of the answer
    "events",  # it sends one piece after the other, for ever
]
WEBSOCKETS = [
    "handshake",  # the application has not accepted it yet
    "listening",  # it waits for a message
    "websocket",  # it is busy with one
]
PHASES = [
    *itertools.product(ALL, REQUESTS, [False, True]),  # the last is for HTTP/2
    *itertools.product(ASYNC, WEBSOCKETS, [False]),
]


def id_of(case: tuple[str, str, bool]) -> str:
    return "-".join([*case[:2], *(["HTTP/2"] if case[2] else [])])


each_case = pytest.mark.parametrize("case", PHASES, ids=id_of)


class Service:
    """A framework's service at one end of a session, and a client at the other."""

    def __init__(self, near: MuxadoSession, far: MuxadoSession, control: Control) -> None:
        self.near = near
        self.far = far
        self.control = control
        self.handlers: list[MuxadoStream] = []
        self.stop = trio.Event()

    async def all_slots_are_back(self) -> None:
        while self.handlers or any(self.control.running.values()):
            await trio.sleep(0.01)
        while any(self.near.statistics().streams.values()):
            await trio.sleep(0.01)


@asynccontextmanager
async def service(framework: str, **choices: Any) -> AsyncGenerator[Service, None]:
    pytest.importorskip(framework, reason="the dependency group `applications` has it")
    module = importlib.import_module(f"{__package__}.frameworks.{framework}_app")
    control = Control()
    config = MuxadoConfig(heartbeat=None, close_timeout=1)
    with trio.fail_after(60):
        async with open_session_pair(config=config) as (near, far), trio.open_nursery() as nursery:
            here = Service(near, far, control)
            app = module.make(control, **choices)
            graceful = quiet(graceful_timeout=GRACE)
            async with asgi_handler(app, config=graceful, stop=here.stop) as handle_stream:

                async def handle(stream: MuxadoStream) -> None:
                    here.handlers.append(stream)
                    try:
                        await handle_stream(stream)
                    finally:
                        here.handlers.remove(stream)

                nursery.start_soon(far.serve_streams, handle)
                yield here
                await here.all_slots_are_back()
            nursery.cancel_scope.cancel()
    if framework != "flask":
        assert [note for note in control.notes if isinstance(note, str)] == ["startup", "shutdown"]


def client_of(here: Service, *, http2: bool = False) -> httpx.AsyncClient:
    limits = httpx.Limits(max_keepalive_connections=0)
    transport = MuxadoTransport(here.near, http2=http2, limits=limits)
    return httpx.AsyncClient(transport=transport, base_url="http://peer", timeout=None)


# ---- the good case


@each_version
@each_framework
async def test_json_a_streamed_answer_and_an_event_source(framework: str, http2: bool) -> None:
    async with service(framework) as here, client_of(here, http2=http2) as http:
        response = await http.get("/json", params={"q": "ä"})
        assert response.json() == {"seen": "ä", "scheme": "http"}
        response = await http.get("/stream")
        assert response.text.split() == [str(number) for number in range(1000)]
        async with http.stream("GET", "/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            seen = 0
            async for line in response.aiter_lines():
                seen += line == "data: tick"
                if seen == 5:
                    break


async def pieces(size: int) -> AsyncIterator[bytes]:
    piece = bytes(range(256)) * 400
    while size:
        yield piece[:size]
        size -= min(size, len(piece))


@each_version
@each_framework
async def test_an_upload_of_50_mb(framework: str, http2: bool) -> None:
    size = 50_000_000
    digest = hashlib.sha256()
    async for piece in pieces(size):
        digest.update(piece)
    async with service(framework) as here, client_of(here, http2=http2) as http:
        # hypercorn's middleware for WSGI passes no body on whose length is not known.
        length = {"content-length": str(size)}
        response = await http.post("/upload", content=pieces(size), headers=length)
        assert response.json() == {"size": size, "digest": digest.hexdigest()}


class Visitor:
    """A client's side of a WebSocket."""

    def __init__(self, stream: MuxadoStream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.CLIENT)

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self.protocol.send(event))

    async def until(self, *kinds: Any) -> Any:
        while True:
            for event in self.protocol.events():
                if isinstance(event, kinds):
                    return event
            data = await self.stream.receive_some()
            assert data, f"the stream ended before {kinds}"
            self.protocol.receive_data(data)


@asynccontextmanager
async def visitor_of(here: Service) -> AsyncGenerator[Visitor, None]:
    async with await here.near.open_stream() as stream:
        visitor = Visitor(stream)
        await visitor.send(Request(host="peer", target="/echo"))
        await visitor.until(AcceptConnection)
        yield visitor


@pytest.mark.parametrize("framework", ASYNC)
async def test_a_websocket_both_ways(framework: str) -> None:
    async with service(framework) as here:
        async with visitor_of(here) as visitor:
            for word in ("hello", "x" * 100_000):
                await visitor.send(TextMessage(word))
                received = ""
                while len(received) < len(word):
                    received += (await visitor.until(TextMessage)).data
                assert received == word.upper()
            await visitor.send(CloseConnection(code=4002))
            assert (await visitor.until(CloseConnection)).code == 4002
        await here.all_slots_are_back()
        if framework != "quart":  # which does not tell its handler
            assert 4002 in here.control.notes


# ---- what goes wrong, in each phase


async def ask(here: Service, phase: str, http2: bool = False) -> Any:
    """A request that comes to the phase and stays there; what becomes of it."""
    if phase == "handshake":
        async with await here.near.open_stream() as stream:
            visitor = Visitor(stream)
            await visitor.send(Request(host="peer", target="/handshake"))
            return (await visitor.until(RejectConnection)).status_code
    if phase in WEBSOCKETS:
        async with visitor_of(here) as visitor:
            await visitor.send(TextMessage("hello" if phase == "listening" else "stay"))
            if phase == "listening":
                await visitor.until(TextMessage)
                here.control.reached.set()
            return (await visitor.until(CloseConnection)).code
    async with client_of(here, http2=http2) as http:
        if phase == "events":
            async with http.stream("GET", "/events") as response:
                async for _ in response.aiter_raw():
                    here.control.reached.set()
            return "whole"
        if phase == "receiving":
            length = {"content-length": "2000"}
            response = await http.post(f"/{phase}", content=held_back(here), headers=length)
        else:
            size = 1000 if phase == "unread" else 100_000
            response = await http.post(f"/{phase}", content=bytes(size))
        return response.status_code


async def held_back(here: Service) -> AsyncIterator[bytes]:
    """A body whose second half comes when nobody waits for it any more."""
    yield bytes(1000)
    await here.control.reached.wait()
    while here.control.running["receiving"]:
        await trio.sleep(0.01)
    yield bytes(1000)


def check_no_half_body_was_taken(here: Service, phase: str) -> None:
    if phase == "receiving":
        assert here.control.received == 1000
        assert "all received" not in here.control.notes


@each_case
async def test_a_client_that_goes(case: tuple[str, str, bool]) -> None:
    framework, phase, http2 = case
    async with service(framework) as here, trio.open_nursery() as nursery:
        nursery.start_soon(ask, here, phase, http2)
        await here.control.reached.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await here.all_slots_are_back()
        check_no_half_body_was_taken(here, phase)


@each_case
async def test_a_server_that_stops(case: tuple[str, str, bool]) -> None:
    framework, phase, http2 = case
    outcomes: list[Any] = []
    async with service(framework) as here, trio.open_nursery() as nursery:

        async def go() -> None:
            outcomes.append(await outcome_of(lambda: ask(here, phase, http2)))

        nursery.start_soon(go)
        await here.control.reached.wait()
        here.stop.set()
        await here.all_slots_are_back()
        check_no_half_body_was_taken(here, phase)
    if phase == "handshake":
        assert isinstance(outcomes[0], StreamResetError)
    elif phase in WEBSOCKETS:
        assert outcomes == [1001]
    else:
        assert isinstance(outcomes[0], httpx.TransportError)


# Where the application does nothing, or is not called yet, it can't raise.
RAISING = [case for case in PHASES if case[1] != "listening" and case[:2] != ("flask", "receiving")]


@pytest.mark.parametrize("case", RAISING, ids=id_of)
async def test_an_application_that_raises(case: tuple[str, str, bool]) -> None:
    framework, phase, http2 = case
    async with service(framework) as here:
        here.control.fails = True
        outcome = await outcome_of(lambda: ask(here, phase, http2))
        await here.all_slots_are_back()
        check_no_half_body_was_taken(here, phase)
    if phase == "websocket":
        assert outcome == (1000 if framework == "quart" else 1011)
    elif phase in ("streaming", "events"):
        assert isinstance(outcome, httpx.TransportError)
    else:
        assert outcome == 500
    assert trio.current_time() < math.inf


@each_version
async def test_flask_is_not_called_for_a_body_that_is_too_large(http2: bool) -> None:
    """What fails while the body comes is the middleware, and not Flask."""
    async with service("flask", max_body_size=500) as here:
        assert await ask(here, "receiving", http2) == 400
        await here.all_slots_are_back()
        check_no_half_body_was_taken(here, "receiving")
        assert "called" not in here.control.notes
