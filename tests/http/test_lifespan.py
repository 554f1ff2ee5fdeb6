"""An application's lifespan, and what is no application."""

import asyncio
import contextlib
import json
import logging
from typing import Any

import httpx
import pytest
import trio
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError
from trio.testing import MockClock, memory_stream_pair

from trio_muxado import MuxadoError, SessionEndedError, client_session, server_session
from trio_muxado.http import MuxadoTransport, asgi_handler, serve_asgi
from trio_muxado.testing import Link

from ..helpers import V1, session_pair
from .support import Changing, Lively, client_of, echo_app, http_pair, quiet, respond, served
from .test_scope import ASK, UPGRADE


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


@pytest.mark.parametrize("how", ["cancelled", "raises", "stopped"])
async def test_the_shutdown_runs_however_the_block_ends(
    how: str, autojump_clock: MockClock
) -> None:
    notes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            await trio.sleep(1)  # it needs its time, and checkpoints
            notes.append(step)
            await send({"type": f"lifespan.{step}.complete"})

    with trio.CancelScope() as scope, contextlib.suppress(ValueError):
        async with asgi_handler(app, config=quiet(graceful_timeout=2)):
            if how == "cancelled":
                scope.cancel()
                await trio.sleep_forever()
            if how == "raises":
                raise ValueError
    assert notes == ["startup", "shutdown"]


async def test_a_shutdown_that_never_ends_is_bounded(autojump_clock: MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    start = trio.current_time()
    with pytest.raises(LifespanTimeoutError, match="shutdown"):
        async with asgi_handler(app, config=quiet(shutdown_timeout=5)):
            pass
    assert trio.current_time() == start + 5
    with trio.CancelScope() as scope:
        async with asgi_handler(app, config=quiet(graceful_timeout=2)):
            scope.cancel()
            await trio.sleep_forever()
    assert trio.current_time() == start + 7


async def test_what_runs_behind_an_answer_ends_before_the_shutdown(
    autojump_clock: MockClock,
) -> None:
    notes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                notes.append(step)
                await send({"type": f"lifespan.{step}.complete"})
            return
        await respond(send)
        await trio.sleep(float(scope["path"][1:]))
        notes.append("background")

    for seconds, expected in (("1", ["startup", "background", "shutdown"]), ("9", None)):
        notes.clear()
        config = quiet(graceful_timeout=2)
        async with session_pair(V1, heartbeat=None) as (near, far):
            async with served(app, far, config=config), client_of(near) as http:
                assert (await http.get(f"/{seconds}")).status_code == 200
                await http.aclose()
                await near.aclose()
        assert notes == (expected or ["startup", "shutdown"])


# ---- what ends the program


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("when", ["startup", "request", "answered", "websocket"])
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_ends_the_program_comes_out_bare(
    error: type[BaseException], when: str, grouped: bool, autojump_clock: MockClock
) -> None:
    async def end() -> None:
        if grouped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(raise_it)
        await raise_it()

    async def raise_it() -> None:
        raise error("3")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if when == "startup":
                await end()
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await trio.sleep_forever()
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        if when == "answered":
            await respond(send)
        await end()

    async def run() -> None:
        transports = memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def client() -> None:
                with contextlib.suppress(MuxadoError):
                    async with client_session(transports[0]) as session:
                        stream = await session.open_stream()
                        await stream.send_all(UPGRADE if when == "websocket" else ASK)
                        await trio.sleep_forever()

            async def server() -> None:
                with pytest.raises(error) as caught:
                    async with server_session(transports[1]) as session:
                        await serve_asgi(app, session, config=quiet())
                assert type(caught.value) is error
                nursery.cancel_scope.cancel()

            nursery.start_soon(client)
            nursery.start_soon(server)

    await run()


# ---- arguments that belong elsewhere


class Elsewhere:
    """A configuration of another server, or a WSGI application."""

    wsgi_app = None

    def __call__(self) -> None: ...


class Quart:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class AsyncioWSGIMiddleware(Quart):
    pass


@pytest.mark.parametrize(
    "app, choices, error, match",
    [
        (None, {}, TypeError, "ASGI application"),
        (json.loads, {}, TypeError, "called with scope, receive and send"),
        (lambda environ, start_response: [], {}, TypeError, "called with scope"),
        (Elsewhere(), {}, TypeError, "TrioWSGIMiddleware"),
        (Quart(), {}, TypeError, "QuartTrio"),
        (AsyncioWSGIMiddleware(), {}, TypeError, "TrioWSGIMiddleware"),
        (
            echo_app,
            {"config": Elsewhere()},
            TypeError,
            r"hypercorn\.config\.Config, not .*Elsewhere",
        ),
        (echo_app, {"ssl_context": True}, TypeError, "SSLContext"),
        (echo_app, {"scheme": "wss"}, ValueError, "'http' or 'https'"),
    ],
)
async def test_wrong_arguments_say_what_to_do(
    app: Any, choices: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        async with asgi_handler(app, **choices):
            raise AssertionError("unreachable")


def test_asyncio_is_told_to_run_trio() -> None:
    async def serve() -> None:
        async with asgi_handler(echo_app):
            raise AssertionError("unreachable")

    async def ask() -> None:
        transport = MuxadoTransport(Changing())
        await transport.handle_async_request(httpx.Request("GET", "http://peer/"))

    for call in (serve, ask):
        with pytest.raises(RuntimeError, match="trio"):
            asyncio.run(call())


async def test_an_application_that_needs_asyncio_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        asyncio.get_running_loop()

    config = quiet(errorlog=logging.getLogger("applications"))
    async with http_pair(app, config=config) as (http, _, _):
        assert (await http.get("/")).status_code == 500
    assert "it needs asyncio, and is run by trio" in caplog.text
