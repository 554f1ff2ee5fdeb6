"""FastAPI."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from .control import Control


def make(control: Control) -> Any:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        control.notes.append("startup")
        yield
        control.notes.append("shutdown")

    app = FastAPI(lifespan=lifespan)

    @app.get("/json")
    async def answer_json(q: str, request: Request) -> dict[str, str]:
        return {"seen": q, "scheme": request.url.scheme}

    @app.post("/upload")
    async def upload(request: Request) -> dict[str, Any]:
        digest, size = hashlib.sha256(), 0
        async for piece in request.stream():
            digest.update(piece)
            size += len(piece)
        return {"size": size, "digest": digest.hexdigest()}

    async def numbers() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield b"%d\n" % number

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(numbers())

    async def ticks() -> AsyncIterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            await anyio.sleep(0.01)
            control.may_fail("events")

    @app.get("/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(ticks(), media_type="text/event-stream")

    @app.post("/unread")
    async def unread() -> None:
        await control.at("unread")

    @app.post("/reading")
    async def reading(request: Request) -> None:
        async for _ in request.stream():
            await control.at("reading")

    @app.post("/receiving")
    async def receiving(request: Request) -> None:
        async for _ in request.stream():
            control.may_fail("receiving")
        control.notes.append("all received")

    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        await control.at("streaming")

    @app.post("/streaming")
    async def streaming() -> StreamingResponse:
        return StreamingResponse(half())

    @app.websocket("/handshake")
    async def handshake(websocket: WebSocket) -> None:
        await control.at("handshake")

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                text = await websocket.receive_text()
                if text == "stay":
                    await control.at("websocket")
                await websocket.send_text(text.upper())
        except WebSocketDisconnect as error:
            control.notes.append(error.code)

    return control.watching(app)
