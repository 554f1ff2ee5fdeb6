"""An application's lifespan, and what is no application."""

from typing import Any

import pytest
import trio
from hypercorn.utils import LifespanFailureError

from trio_muxado import (
    SessionEndedError,
)
from trio_muxado.http import asgi_handler, serve_asgi
from trio_muxado.testing import Link

from ..helpers import V1, session_pair
from .support import Lively, client_of, echo_app, http_pair, quiet, respond


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
