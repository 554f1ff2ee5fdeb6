"""Flask, in threads, by hypercorn's middleware."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import trio
from flask import Flask, Response, request
from hypercorn.middleware import TrioWSGIMiddleware

from .control import Control


def make(control: Control, *, max_body_size: int = 100_000_000) -> Any:
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
                control.may_fail("events")

        return Response(ticks(), content_type="text/event-stream")

    @app.post("/unread")
    def unread() -> str:
        trio.from_thread.run(control.at, "unread")
        return "unreachable"

    @app.post("/reading")
    def reading() -> str:
        request.stream.read(1000)
        trio.from_thread.run(control.at, "reading")
        return "unreachable"

    @app.post("/receiving")
    def receiving() -> str:
        control.notes.append("called")
        request.get_data()
        control.notes.append("all received")
        return "unreachable"

    @app.post("/streaming")
    def streaming() -> Iterator[bytes]:
        yield b"half"
        trio.from_thread.run(control.at, "streaming")

    return control.watching(TrioWSGIMiddleware(app, max_body_size=max_body_size))
