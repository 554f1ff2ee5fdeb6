"""Quart, which needs asyncio, as Quart-Trio."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import trio
from quart import Response, request, websocket
from quart_trio import QuartTrio

from .control import Control


def make(control: Control) -> Any:
    app = QuartTrio(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    app.config["RESPONSE_TIMEOUT"] = None
    app.config["BODY_TIMEOUT"] = None

    @app.before_serving
    async def startup() -> None:
        control.notes.append("startup")

    @app.after_serving
    async def shutdown() -> None:
        control.notes.append("shutdown")

    @app.get("/json")
    async def answer_json() -> dict[str, str]:
        return {"seen": request.args["q"], "scheme": request.scheme}

    @app.post("/upload")
    async def upload() -> dict[str, Any]:
        digest, size = hashlib.sha256(), 0
        async for piece in request.body:
            digest.update(piece)
            size += len(piece)
        return {"size": size, "digest": digest.hexdigest()}

    @app.get("/stream")
    async def stream() -> AsyncIterator[bytes]:
        async def numbers() -> AsyncIterator[bytes]:
            for number in range(1000):
                yield b"%d\n" % number

        return numbers()

    @app.get("/events")
    async def events() -> Response:
        async def ticks() -> AsyncIterator[bytes]:
            while True:
                yield b"data: tick\n\n"
                await trio.sleep(0.01)
                control.may_fail("events")

        response = Response(ticks(), content_type="text/event-stream")
        response.timeout = None
        return response

    @app.post("/unread")
    async def unread() -> str:
        await control.at("unread")
        return "unreachable"

    @app.post("/reading")
    async def reading() -> str:
        async for _ in request.body:
            await control.at("reading")
        return "unreachable"

    @app.post("/receiving")
    async def receiving() -> str:
        async for _ in request.body:
            control.may_fail("receiving")
        control.notes.append("all received")
        return "unreachable"

    @app.post("/streaming")
    async def streaming() -> AsyncIterator[bytes]:
        async def half() -> AsyncIterator[bytes]:
            yield b"half"
            await control.at("streaming")

        return half()

    @app.websocket("/handshake")
    async def handshake() -> None:
        await control.at("handshake")

    @app.websocket("/echo")
    async def echo() -> None:
        await websocket.accept()
        while True:
            text = await websocket.receive()
            if text == "stay":
                await control.at("websocket")
            await websocket.send(text.upper())

    return control.watching(app)
