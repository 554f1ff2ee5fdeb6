"""A rolling restart under load: no request is lost, and none is done twice."""

from collections import Counter
from typing import Any

import httpx
import pytest
import trio

from trio_muxado import MuxadoSession, SessionPool, dial_muxado, serve_muxado
from trio_muxado.http import MuxadoTransport, asgi_handler

from .support import body_of, quiet, respond

ORDERS = 400
CLIENTS = 8


class Shop:
    """Two servers of one application, either of which may be restarted."""

    def __init__(self) -> None:
        self.done: Counter[bytes] = Counter()
        self._until: dict[int, trio.Event] = {}

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        order = await body_of(receive)
        self.done[order] += 1
        for count, event in self._until.items():
            if self.done.total() >= count:
                event.set()
        await trio.lowlevel.checkpoint()
        await respond(send, order)

    async def wait(self, count: int) -> None:
        """Wait until so many orders have been done."""
        await self._until.setdefault(count, trio.Event()).wait()

    async def serve(self, stop: trio.Event, port: int, task_status: trio.TaskStatus[int]) -> None:
        async with asgi_handler(self.app, config=quiet(), stop=stop) as handle_stream:

            async def handle(session: MuxadoSession) -> None:
                await session.serve_streams(handle_stream)

            async with trio.open_nursery() as nursery:
                listeners: Any = await nursery.start(
                    lambda task_status: serve_muxado(
                        handle, port, host="127.0.0.1", stop=stop, task_status=task_status
                    )
                )
                task_status.started(listeners[0].socket.getsockname()[1])


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_two_servers_are_restarted_in_turn(http2: bool) -> None:
    # Over TCP, as nothing else has two servers and a connection refused between.
    shop, pool = Shop(), SessionPool()
    answered: list[str] = []
    orders = iter(range(ORDERS))
    transport = MuxadoTransport(pool, retries=5, http2=http2)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=None) as http,
        trio.open_nursery() as servers,
        trio.open_nursery() as agents,
    ):
        stops = [trio.Event(), trio.Event()]
        ports = [await servers.start(shop.serve, stop, 0) for stop in stops]
        for port in ports:
            agents.start_soon(dial_muxado, pool.hold, "127.0.0.1", port)

        async def order() -> None:
            for number in orders:
                response = await http.post("/", content=b"%d" % number)
                answered.append(response.text)

        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(order)
            for count, which in ((100, 0), (200, 1), (300, 0)):
                await shop.wait(count)
                stops[which].set()
                stops[which] = trio.Event()
                # The port is free at once, and the agent dials it again.
                await servers.start(shop.serve, stops[which], ports[which])
        agents.cancel_scope.cancel()
        for stop in stops:
            stop.set()
    assert sorted(map(int, answered)) == list(range(ORDERS))
    assert set(shop.done.values()) == {1}
