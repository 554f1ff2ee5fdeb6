"""HTTP over one connection, in both directions: each side is a client and a server.

    python http_both_ways.py hub [PORT]
    python http_both_ways.py worker PORT NAME

A worker connects to the hub, asks it for a task over HTTP, and serves HTTP itself: the hub asks for
its state. Nobody connects to the worker, so it can be behind NAT. It needs `trio_muxado[http]`.
"""

import json
import sys
from functools import partial
from typing import Any

import httpx
import trio

from trio_muxado import MuxadoSession, open_muxado_session, serve_muxado
from trio_muxado.http import MuxadoTransport, asgi_handler

HOST = "127.0.0.1"


async def respond(send: Any, content: object) -> None:
    """Answer with JSON."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


def http_client(session: MuxadoSession) -> httpx.AsyncClient:
    """Make a client whose requests all go to the other side of a session."""
    return httpx.AsyncClient(transport=MuxadoTransport(session), base_url="http://peer")


# ---- the hub


async def hub_app(scope: Any, receive: Any, send: Any) -> None:
    """Hand out tasks. Any ASGI framework that runs on trio or anyio could take its place."""
    if scope["type"] == "http":
        await respond(send, {"task": "count the stars"})


async def watch(session: MuxadoSession) -> None:
    """Ask a worker for its state, as soon as it has connected."""
    async with http_client(session) as client:
        try:
            response = await client.get("/state")
            print("a worker says", response.json(), flush=True)
        except httpx.TransportError as error:
            print("a worker has gone:", error, flush=True)
        except Exception as error:  # whatever it has answered
            print("a worker talks nonsense:", repr(error), flush=True)


async def hub(port: int) -> None:
    """Serve workers until interrupted."""
    async with asgi_handler(hub_app) as handle_stream, trio.open_nursery() as nursery:

        async def handle_session(session: MuxadoSession) -> None:
            async with trio.open_nursery() as both:
                both.start_soon(watch, session)
                await session.serve_streams(handle_stream)

        listeners = await nursery.start(partial(serve_muxado, handle_session, port, host=HOST))
        print("listening on port", listeners[0].socket.getsockname()[1], flush=True)


# ---- a worker


async def worker(port: int, name: str) -> None:
    """Ask for a task, and serve until the hub has asked for the state."""
    asked = trio.Event()

    async def worker_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await respond(send, {"name": name, "busy": True})
            asked.set()

    async with (
        open_muxado_session(HOST, port) as session,
        asgi_handler(worker_app) as handle_stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.serve_streams, handle_stream)
        async with http_client(session) as client:
            response = await client.get("/task")
            print("the hub says", response.json(), flush=True)
        await asked.wait()
        await session.drain()  # the answer is out when this returns
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hub", *port]:
            trio.run(hub, int(port[0]) if port else 8765)
        case ["worker", port, name]:
            trio.run(worker, int(port), name)
        case _:
            sys.exit(__doc__)
