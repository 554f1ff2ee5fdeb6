"""The client's streams: used again, kept for a while, given up."""

import ssl

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import (
    MuxadoStream,
)
from trio_muxado.http import asgi_handler

from ..helpers import V1, Kind, each_wire, session_pair
from .support import answer_once, client_of, echo_app, http_pair, opened, quiet


@each_wire
async def test_connections_are_kept_alive_and_used_again(kind: Kind) -> None:
    async with http_pair(echo_app, kind) as (http, near, _):
        for _ in range(5):
            assert (await http.get("/")).status_code == 200
        assert opened(near) == 1


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
    async with http_pair(echo_app, config=quiet(keep_alive_timeout=5)) as (http, near, far):
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
