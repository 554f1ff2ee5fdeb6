"""Stopping a server, in each phase of what it does."""

from typing import Any

import httpx
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ..helpers import V1, read_all, session_pair
from .support import client_of, respond, served


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
