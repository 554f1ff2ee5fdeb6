"""Flask, in threads, by hypercorn's middleware."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import trio
from flask import Flask, Response, request
from hypercorn.middleware import TrioWSGIMiddleware

from .control import Control


def make(control: Control) -> Any:
    app = Flask(__name__)

    @app.get("/json")
    def answer_json() -> dict[str, str]:
        return {"seen": request.args["q"], "scheme": request.scheme}

    @app.post("/upload")
    def upload() -> dict[str, Any]:
        body = request.get_data()
        return {"size": len(body), "digest": hashlib.sha256(body).hexdigest()}

    @app.get("/stream")
    def stream() -> Iterator[bytes]:
        return (b"%d\n" % number for number in range(1000))

    @app.get("/events")
    def events() -> Response:
        def ticks() -> Iterator[bytes]:
            while True:
                yield b"data: tick\n\n"
                time.sleep(0.01)

        return Response(ticks(), content_type="text/event-stream")

    @app.post("/unread")
    def unread() -> str:
        trio.from_thread.run(control.at, "unread")
        return "unreachable"

    @app.post("/streaming")
    def streaming() -> Iterator[bytes]:
        yield b"half"
        trio.from_thread.run(control.at, "streaming")

    return TrioWSGIMiddleware(app, max_body_size=100_000_000)
