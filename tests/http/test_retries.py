"""What was certainly not processed is repeated; and a client outlives a session."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import ErrorCode, MuxadoError, MuxadoStream
from trio_muxado.http import MuxadoTransport
from trio_muxado.testing import Link

from ..helpers import V1, V2, Kind, each_wire, session_pair
from .support import ABANDONED, Changing, body_of, client_of, echo_app, quiet, respond, served

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def refuse(stream: MuxadoStream) -> None:
    await stream.reset(ErrorCode.STREAM_REFUSED)


async def answer(stream: MuxadoStream) -> None:
    data = b""
    while not data.endswith(b"an order") and not data.endswith(b"0\r\n\r\n"):
        data += await stream.receive_some()
    await stream.send_all(OK)
    assert await stream.receive_some() == b""


class Peer:
    """Refuses the first streams, and answers on the others."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.streams = 0

    async def __call__(self, stream: MuxadoStream) -> None:
        self.streams += 1
        await (refuse if self.streams <= self.refusals else answer)(stream)


async def pieces() -> AsyncIterator[bytes]:
    yield b"an "
    yield b"order"


@each_wire
@pytest.mark.parametrize("refusals, retries", [(0, 0), (1, 1), (2, 2), (2, 5)])
async def test_a_refused_request_is_repeated(
    kind: Kind, refusals: int, retries: int, autojump_clock: MockClock
) -> None:
    peer = Peer(refusals)
    async with session_pair(kind, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, peer)
        async with client_of(near, retries=retries) as http:
            assert (await http.post("/", content=b"an order")).text == "ok"
        assert peer.streams == refusals + 1
        await near.aclose()


@each_wire
@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_a_request_is_repeated_as_often_as_it_may_be(
    kind: Kind, retries: int, autojump_clock: MockClock
) -> None:
    peer = Peer(100)
    async with session_pair(kind, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, peer)
        async with client_of(near, retries=retries) as http:
            with pytest.raises(httpx.ReadError) as caught:
                await http.post("/", content=b"an order")
        assert isinstance(caught.value.__cause__, MuxadoError)
        assert caught.value.__cause__.safe_to_retry
        assert peer.streams == retries + 1
        await near.aclose()


async def test_what_may_have_been_processed_is_not_repeated() -> None:
    seen = 0

    async def half(stream: MuxadoStream) -> None:
        nonlocal seen
        seen += 1
        await stream.receive_some()
        await stream.reset(ErrorCode.STREAM_CANCELLED)

    async with session_pair(V2, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, half)
        async with client_of(near, retries=5) as http:
            with pytest.raises(httpx.ReadError):
                await http.post("/", content=b"an order")
        assert seen == 1
        await near.aclose()


@pytest.mark.filterwarnings(ABANDONED)
async def test_a_body_that_has_been_asked_for_is_not_repeated_unless_it_is_bytes() -> None:
    peer = Peer(1)
    async with session_pair(V2, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, peer)
        async with client_of(near, retries=1) as http:
            with pytest.raises(httpx.ReadError):
                await http.post("/", content=pieces())
            assert (await http.post("/", content=pieces())).text == "ok"
        await near.aclose()


# ---- a request that meets the end of an idle stream


@each_wire
@pytest.mark.parametrize("retries", [0, 1])
async def test_a_request_that_crosses_the_end_of_an_idle_stream(
    kind: Kind, retries: int, autojump_clock: MockClock
) -> None:
    done = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal done
        assert scope["type"] == "http"
        assert await body_of(receive) == b"an order"
        done += 1
        await respond(send)

    link = Link(latency=0.05)
    transports = link.client, link.server
    reasons: list[Any] = []
    async with session_pair(kind, transports=transports, heartbeat=None) as (near, far):
        async with served(app, far, config=quiet(keep_alive_timeout=1)):
            for pause in (0.80, 0.86, 0.90, 0.94, 0.98, 1.02, 1.20):
                async with client_of(near, retries=retries) as http:
                    before = done
                    await http.post("/", content=b"an order")
                    await trio.sleep(pause)
                    try:
                        await http.post("/", content=b"an order")
                    except httpx.TransportError as error:
                        reasons.append(error.__cause__)
                        assert done == before + 1
                    else:
                        assert done == before + 2
            await near.aclose()
    assert all(isinstance(reason, MuxadoError) and reason.safe_to_retry for reason in reasons)
    assert bool(reasons) is not bool(retries)


# ---- a client outlives a session


async def test_a_client_of_a_pool_uses_the_session_that_lives() -> None:
    pool = Changing()
    async with httpx.AsyncClient(transport=MuxadoTransport(pool), timeout=None) as http:
        for number in range(3):
            async with session_pair(V1, heartbeat=None) as (near, far), served(echo_app, far):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(http.get, f"http://peer/{number}")
                    await wait_all_tasks_blocked()  # they wait for a session
                    pool.use(near)
                assert (await http.get(f"http://peer/{number}")).text == f"/{number}"
                pool.use(None)
                await near.aclose()


async def test_a_request_is_repeated_on_the_next_session() -> None:
    """Refused by the session that ends, and answered on the next."""
    pool = Changing()
    answers: list[str] = []
    async with httpx.AsyncClient(transport=MuxadoTransport(pool, retries=1), timeout=None) as http:
        async with session_pair(V1, heartbeat=None) as (old, old_server):
            async with session_pair(V1, heartbeat=None) as (new, new_server):
                async with served(echo_app, new_server), trio.open_nursery() as nursery:
                    pool.use(old)

                    async def post() -> None:
                        response = await http.post("http://peer/", content=b"an order")
                        answers.append(response.text)

                    nursery.start_soon(post)
                    await wait_all_tasks_blocked()
                    pool.use(new)
                    await old_server.aclose()  # nobody has accepted the stream
                    nursery.start_soon(new_server.wait_closed)
                    while not answers:
                        await trio.lowlevel.checkpoint()
                    await new.aclose()
    assert answers == ["an order"]
