"""Slots: few streams, many requests.  Nobody starves, nothing is lost, and nothing is quadratic."""

import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import MuxadoSession

from ..helpers import V2, Kind, cancel_at_checkpoint, each_wire, session_pair
from .support import (
    App,
    client_of,
    echo_app,
    http_pair,
    opened,
    respond,
    served,
    transport_of,
)

IDLE = "<MuxadoTransport 0 busy, {} idle, 0 waiting>"


async def at_once(count: int, one: Callable[[], Awaitable[Any]]) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


def gets(http: httpx.AsyncClient, url: str = "/") -> Callable[[], Awaitable[None]]:
    async def get() -> None:
        assert (await http.get(url)).status_code == 200

    return get


# ---- idle streams yield


@each_wire
async def test_requests_take_idle_streams_where_the_session_has_no_slot(kind: Kind) -> None:
    async with http_pair(echo_app, kind, client={"max_outbound_streams": 8}) as (http, near, _):
        await at_once(200, gets(http))
        assert opened(near) == 8
        assert transport_of(http) == IDLE.format(8)


@each_wire
async def test_idle_streams_yield_to_other_clients_of_the_session(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, client={"max_outbound_streams": 4}) as pair:
        near, far = pair
        async with served(echo_app, far):
            async with client_of(near) as one, client_of(near) as two:
                for http in (one, two, one, two):
                    await at_once(20, gets(http))
            await near.aclose()


@each_wire
async def test_idle_streams_yield_to_whoever_opens_a_stream(kind: Kind) -> None:
    async with http_pair(echo_app, kind, client={"max_outbound_streams": 2}) as (http, near, _):
        await at_once(2, gets(http))
        async with await near.open_stream():
            assert transport_of(http) == IDLE.format(2)  # it has not looked
            await http.get("/")
            assert transport_of(http) == IDLE.format(1)


@each_wire
@pytest.mark.parametrize("bound", ["session", "transport"])
async def test_idle_streams_yield_to_requests_for_another_host(kind: Kind, bound: str) -> None:
    limit: dict[str, Any] = {"max_outbound_streams": 3} if bound == "session" else {}
    async with session_pair(kind, heartbeat=None, client=limit) as (near, far):
        async with served(echo_app, far):
            choices: dict[str, Any] = {} if limit else {"max_streams": 3}
            async with client_of(near, **choices) as http:
                for number in range(4):
                    await at_once(7, gets(http, f"http://host-{number}/"))
                live = near.statistics().streams
                assert sum(live.values()) <= 3
            await near.aclose()


async def test_a_request_that_waits_for_a_slot_gets_one_of_a_stream_that_ends_badly() -> None:
    async def crash(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/":
            await respond(send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ValueError("a bug of the application")

    async with http_pair(crash, V2) as (_, near, _):
        async with client_of(near, max_streams=2) as http:

            async def bad() -> None:
                with pytest.raises(httpx.RemoteProtocolError):
                    await http.get("/bad")

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(bad)
                    nursery.start_soon(gets(http))
            assert "0 busy" in transport_of(http)


# ---- streams are not kept for longer than the server keeps them


async def test_an_idle_stream_is_not_used_after_half_of_hypercorn_s_time(
    autojump_clock: MockClock,
) -> None:
    async with http_pair(echo_app) as (http, near, _):
        for pause, number in ((0.0, 1), (2.4, 1), (2.6, 2), (2.4, 2), (2.6, 3)):
            await trio.sleep(pause)
            assert (await http.post("/", content=b"x")).status_code == 200
            assert opened(near) == number
            assert transport_of(http) == IDLE.format(1)


@each_wire
async def test_as_many_streams_are_kept_as_the_limits_say(kind: Kind) -> None:
    async with http_pair(echo_app, kind) as (_, near, _):
        limits = httpx.Limits(max_keepalive_connections=3)
        async with client_of(near, limits=limits) as http:
            await at_once(20, gets(http))
            assert transport_of(http) == IDLE.format(3)
        await wait_all_tasks_blocked()
        assert not near.statistics().streams.get("open")


# ---- cancelled requests leave nothing behind


@each_wire
@pytest.mark.parametrize("bound", ["session", "transport"])
async def test_a_request_may_be_cancelled_anywhere(kind: Kind, bound: str) -> None:
    limit: dict[str, Any] = {"max_outbound_streams": 1} if bound == "session" else {}
    async with session_pair(kind, heartbeat=None, client=limit) as (near, far):
        async with served(echo_app, far):
            choices: dict[str, Any] = {} if limit else {"max_streams": 1}
            async with client_of(near, **choices) as http:
                for checkpoint in range(60):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(gets(http))
                        nursery.start_soon(cancel_at_checkpoint, checkpoint, gets(http))
                    assert (await http.get("/")).status_code == 200
                assert transport_of(http) == IDLE.format(1)
            await near.aclose()


async def test_requests_that_wait_may_be_cancelled_at_any_time(autojump_clock: MockClock) -> None:
    random_times = random.Random(19)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await trio.sleep(random_times.uniform(0, 0.004))
        await respond(send)

    async with http_pair(app) as (_, near, _):
        async with client_of(near, max_streams=4) as http:

            async def churn() -> None:
                for _ in range(50):
                    with trio.move_on_after(random_times.uniform(0, 0.02)):
                        await http.get("/")

            await at_once(12, churn)
            await at_once(20, gets(http))
            assert "0 busy" in transport_of(http)
        await wait_all_tasks_blocked()
        assert not near.statistics().streams.get("open")


# ---- what many requests cost


async def calls_of(work: Callable[[], Awaitable[Any]]) -> int:
    """Calls of Python functions while it runs."""
    calls = 0

    # A trace function that traces no lines is called at calls alone; a profiler would be called
    # at each return and each function in C as well.
    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    before = sys.gettrace()
    sys.settrace(count)
    try:
        await work()
    finally:
        sys.settrace(before)
    return calls


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await respond(send, b"hello")


@pytest.mark.parametrize("few, many", [(50, 400)])
async def test_a_request_of_many_costs_what_one_of_few_costs(few: int, many: int) -> None:
    async with http_pair(hello, V2) as (http, _, _):
        await at_once(few, gets(http))
        one_of_few = await calls_of(partial(at_once, few, gets(http))) / few
        one_of_many = await calls_of(partial(at_once, many, gets(http))) / many
        assert one_of_many < 1.3 * one_of_few


async def test_300_at_once_take_less_than_twice_the_calls_of_bare_streams() -> None:
    async with http_pair(hello, V2) as (http, near, _):

        async def bare() -> None:
            async with await near.open_stream() as stream:
                request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                await stream.send_all(request)
                answer = b"".join([piece async for piece in stream])
                assert answer.endswith(b"hello")

        await at_once(10, bare)
        await at_once(10, gets(http))
        without = await calls_of(partial(at_once, 300, bare))
        with_httpx = await calls_of(partial(at_once, 300, gets(http)))
        assert with_httpx < 2 * without


@pytest.mark.parametrize("bound", ["session", "transport"])
async def test_400_in_flight_on_8_streams_cost_what_8_at_once_do(bound: str) -> None:
    limit: dict[str, Any] = {"max_outbound_streams": 8} if bound == "session" else {}
    async with session_pair(V2, heartbeat=None, client=limit) as (near, far):
        async with served(hello, far):
            choices: dict[str, Any] = {} if limit else {"max_streams": 8}
            async with client_of(near, **choices) as http:
                await at_once(8, gets(http))

                async def one_after_the_other() -> None:
                    for _ in range(25):
                        await gets(http)()

                eight_at_once = await calls_of(partial(at_once, 8, one_after_the_other)) / 200
                in_flight = await calls_of(partial(at_once, 400, gets(http))) / 400
                assert opened(near) == 8
                assert in_flight < 1.3 * eight_at_once
            await near.aclose()


# ---- arguments


def arguments(session: MuxadoSession) -> list[tuple[type[Exception], str, dict[str, Any]]]:
    return [
        (TypeError, "session", {"session": None}),
        (TypeError, "session", {"session": httpx.Limits()}),
        (ValueError, "max_streams", {"session": session, "max_streams": 0}),
        (TypeError, "float", {"session": session, "max_streams": 1.5}),
        (ValueError, "retries", {"session": session, "retries": -1}),
        (TypeError, "ssl_context", {"session": session, "ssl_context": True}),
        (
            ValueError,
            "max_streams and limits",
            {"session": session, "max_streams": 1, "limits": httpx.Limits(max_connections=2)},
        ),
    ]


async def test_wrong_arguments_are_named() -> None:
    app: App = echo_app
    async with http_pair(app) as (_, near, _):
        for error, match, choices in arguments(near):
            with pytest.raises(error, match=match):
                client_of(**choices)
