"""HTTP/2 on a stream, at either end."""

import httpcore
import trio

from trio_muxado.http import MuxadoBackend

from ..helpers import V2, session_pair
from .support import echo_app, opened, served


async def test_http2_carries_many_requests_on_one_stream() -> None:
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(echo_app, far):
            backend = MuxadoBackend(near)
            async with httpcore.AsyncConnectionPool(
                http1=False, http2=True, network_backend=backend
            ) as pool:

                async def post(number: int) -> None:
                    body = bytes([number]) * 50_000
                    response = await pool.request("POST", "http://peer/", content=body)
                    assert response.extensions["http_version"] == b"HTTP/2"
                    assert response.content == body

                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        nursery.start_soon(post, number)
                assert opened(near) == 1
            await near.aclose()
