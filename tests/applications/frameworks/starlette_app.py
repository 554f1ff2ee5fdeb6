"""Starlette."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .control import Control


def make(control: Control) -> Any:
    async def answer_json(request: Request) -> Response:
        return JSONResponse({"seen": request.query_params["q"], "scheme": request.url.scheme})

    async def upload(request: Request) -> Response:
        digest, size = hashlib.sha256(), 0
        async for piece in request.stream():
            digest.update(piece)
            size += len(piece)
        return JSONResponse({"size": size, "digest": digest.hexdigest()})

    async def numbers() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield b"%d\n" % number

    async def stream(request: Request) -> Response:
        return StreamingResponse(numbers())

    async def ticks() -> AsyncIterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            await anyio.sleep(0.01)
            control.may_fail("events")

    async def events(request: Request) -> Response:
        return StreamingResponse(ticks(), media_type="text/event-stream")

    async def unread(request: Request) -> Response:
        await control.at("unread")
        return Response("unreachable")

    async def reading(request: Request) -> Response:
        async for _ in request.stream():
            await control.at("reading")
        return Response("unreachable")

    async def receiving(request: Request) -> Response:
        async for _ in request.stream():
            control.may_fail("receiving")
        control.notes.append("all received")
        return Response("unreachable")

    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        await control.at("streaming")

    async def streaming(request: Request) -> Response:
        return StreamingResponse(half())

    async def handshake(websocket: WebSocket) -> None:
        await control.at("handshake")

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

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        control.notes.append("startup")
        yield
        control.notes.append("shutdown")

    app = Starlette(
        routes=[
            Route("/json", answer_json),
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
            Route("/events", events),
            Route("/unread", unread, methods=["POST"]),
            Route("/reading", reading, methods=["POST"]),
            Route("/receiving", receiving, methods=["POST"]),
            Route("/streaming", streaming, methods=["POST"]),
            WebSocketRoute("/handshake", handshake),
            WebSocketRoute("/echo", echo),
        ],
        lifespan=lifespan,
    )
    return control.watching(app)
