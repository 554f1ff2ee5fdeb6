"""A server that notes each request it executes: ``python counting_server.py PORT FILE``.

SIGTERM stops it gently.
"""

import os
import random
import signal
import sys
from functools import partial

import trio

from trio_muxado import MuxadoSession, MuxadoStream, serve_muxado


async def main(port: int, path: str) -> None:
    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def execute(stream: MuxadoStream) -> None:
        request = b"".join([chunk async for chunk in stream])
        os.write(notes, request + b"\n")
        await trio.sleep(0.02 * random.random())  # requests overlap with the stop
        await stream.send_all(b"done: " + request)

    async def handle_session(session: MuxadoSession) -> None:
        await session.serve_streams(execute)

    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            serve = partial(serve_muxado, handle_session, port, host="127.0.0.1", stop=stop)
            await nursery.start(serve)
            print("listening", flush=True)  # noqa: T201
            await anext(signals)
        stop.set()


trio.run(main, int(sys.argv[1]), sys.argv[2])
