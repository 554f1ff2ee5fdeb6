"""The counting server with HTTP: ``python counting_http_server.py PORT FILE``.

A request names itself by its path or in its body.  SIGTERM stops it gently.
"""

import os
import random
import signal
import sys
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config

from trio_muxado import MuxadoSession, serve_muxado
from trio_muxado.http import asgi_handler


async def main(port: int, path: str) -> None:
    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # an order that did not arrive whole is none
            body += message["body"]
            more = message["more_body"]
        request = body.strip() or scope["path"].removeprefix("/").encode()
        os.write(notes, request + b"\n")
        await trio.sleep(0.02 * random.random())  # requests overlap with the stop
        answer = b"done: " + request
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    stop = trio.Event()
    # How long requests take on a busy machine must not matter.
    config = Config.from_mapping({"errorlog": None, "graceful_timeout": 60})
    async with asgi_handler(app, config=config, stop=stop) as handle_stream:

        async def handle_session(session: MuxadoSession) -> None:
            await session.serve_streams(handle_stream)

        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                serve = partial(serve_muxado, handle_session, port, host="127.0.0.1", stop=stop)
                await nursery.start(serve)
                print("listening", flush=True)  # noqa: T201
                await anext(signals)
            stop.set()


trio.run(main, int(sys.argv[1]), sys.argv[2])
