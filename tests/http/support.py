"""An application and a client at the two ends of a session, for the tests of HTTP."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import trio
from hypercorn.config import Config

from trio_muxado import MuxadoSession, MuxadoStream
from trio_muxado.http import MuxadoTransport, serve_asgi

from ..helpers import V1, Kind, session_pair

ABANDONED = r"ignore:Async generator '(httpcore|httpx)\.:ResourceWarning"
"""httpx and httpcore loop over async generators without ``aclosing``, so where a body is sent or
read only in part, theirs are left to the garbage collector, of which trio warns.  It is the same
over TCP, and nobody outside can close what only their frames hold.  One of ours, or of the test,
is still an error."""


App = Callable[[Any, Any, Any], Awaitable[None]]


def quiet(**choices: Any) -> Config:
    """A configuration that keeps its log to itself, and idle streams on a slow machine, too."""
    return Config.from_mapping({"errorlog": None, "keep_alive_timeout": 1000, **choices})


async def respond(send: Any, body: bytes = b"", status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def echo_app(scope: Any, receive: Any, send: Any) -> None:
    """Sends the body back, or the path where there is none."""
    assert scope["type"] == "http"
    await respond(send, await body_of(receive) or scope["path"].encode())


async def deaf_app(scope: Any, receive: Any, send: Any) -> None:
    """Never answers, and does not want to know that nobody waits any more."""
    assert scope["type"] == "http"
    await trio.sleep_forever()


@asynccontextmanager
async def served(
    app: App, session: MuxadoSession, **choices: Any
) -> AsyncGenerator[trio.CancelScope, None]:
    """Serve to a session while the block runs, and until the session has ended."""
    choices.setdefault("config", quiet())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_asgi, app, session, **choices))
        yield nursery.cancel_scope


@asynccontextmanager
async def http_pair(
    app: App, kind: Kind = V1, *, client: dict[str, Any] | None = None, **choices: Any
) -> AsyncGenerator[tuple[httpx.AsyncClient, MuxadoSession, MuxadoSession], None]:
    """A client whose requests an application at the session's other end answers."""
    async with session_pair(kind, heartbeat=None, client=client) as (near, far):
        async with served(app, far, **choices):
            async with client_of(near) as http:
                yield http, near, far
            await near.aclose()


def client_of(session: MuxadoSession, **choices: Any) -> httpx.AsyncClient:
    transport = MuxadoTransport(session, **choices)
    return httpx.AsyncClient(transport=transport, base_url="http://peer", timeout=None)


def opened(session: MuxadoSession) -> int:
    return session.statistics().opened


class Lively:
    """An application with a lifespan, which notes what happens to it."""

    def __init__(self, *, fails: str = "") -> None:
        self.fails = fails
        self.notes: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.notes.append("request")
            await respond(send, scope["state"]["word"].encode())
            return
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            self.notes.append(step)
            scope["state"]["word"] = "shared"
            outcome = "failed" if self.fails == step else "complete"
            await send({"type": f"lifespan.{step}.{outcome}"})


async def answer_once(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


class Changing:
    """What a pool of sessions is to a client: streams of whatever session there is."""

    def __init__(self) -> None:
        self.session: MuxadoSession | None = None
        self._changed = trio.Event()

    def use(self, session: MuxadoSession | None) -> None:
        self.session = session
        self._changed.set()
        self._changed = trio.Event()

    async def open_stream(self) -> MuxadoStream:
        while self.session is None:
            await self._changed.wait()
        return await self.session.open_stream()


def transport_of(http: httpx.AsyncClient) -> str:
    """What a client's transport says of its streams."""
    return repr(http._transport)
