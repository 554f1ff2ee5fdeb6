"""Echo every stream of every client: ``python echo_server.py [PORT]``.

It listens on loopback. One port serves clients of both protocol versions. Ctrl+C stops the server
gracefully: it accepts no new streams, and ends when the running ones have ended. A second Ctrl+C
ends it at once.
"""

import signal
import sys
from functools import partial

import trio

from trio_muxado import MuxadoSession, MuxadoStream, serve_muxado


async def echo(stream: MuxadoStream) -> None:
    """Send back what arrives. The stream is closed when this returns."""
    async for chunk in stream:
        await stream.send_all(chunk)


async def handle_session(session: MuxadoSession) -> None:
    """Serve one client. Its session ends when this returns."""
    await session.serve_streams(echo)


async def main(port: int) -> None:
    """Serve until a signal arrives."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            serve = partial(serve_muxado, handle_session, port, host="127.0.0.1", stop=stop)
            listeners = await nursery.start(serve)
            print("listening on port", listeners[0].socket.getsockname()[1], flush=True)
            await anext(signals)
        stop.set()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8765)
