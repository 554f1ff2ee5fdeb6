"""What the client raises, and why."""

import contextlib
import importlib
import ssl
import sys
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoStream,
    SessionEndedError,
    StreamResetError,
)
from trio_muxado.testing import Link

from ..helpers import V1, V2, Kind, each_wire, session_pair
from .support import (
    ABANDONED,
    client_of,
    deaf_app,
    opened,
    served,
)


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
