"""Clients that go, and applications that fail, in each phase of a request."""

from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import (
    StreamResetError,
)

from ..helpers import V1, Kind, each_wire, read_all, session_pair
from .support import ABANDONED, body_of, deaf_app, http_pair, quiet, respond, served


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
