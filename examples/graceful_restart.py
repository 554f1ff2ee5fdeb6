"""Restart a server without losing a request, or doing one twice.

    python graceful_restart.py server PORT NAME
    python graceful_restart.py client PORT

Start a server and a client, which asks until Ctrl+C. Then start a second server by another name and
stop the first one with SIGTERM or Ctrl+C. It stops listening at once, and answers what it has
accepted. The client sends again what is certainly not done (`safe_to_retry`), and nothing else.

Both servers may listen at once where the system has SO_REUSEPORT (Linux, macOS).
"""

import signal
import socket
import sys
from collections import Counter
from functools import partial

import trio

from trio_muxado import (
    Backoff,
    MuxadoSession,
    MuxadoStream,
    SessionPool,
    dial_muxado,
    serve_muxado_listeners,
)

HOST = "127.0.0.1"
AT_ONCE = 20  # requests of the client that run at the same time


# ---- the server


async def serve(port: int, name: str) -> None:
    """Serve until a signal arrives, and finish what has begun."""

    async def answer(stream: MuxadoStream) -> None:
        question = b"".join([chunk async for chunk in stream])
        await trio.sleep(0.02)  # some work, which a restart must not cut off
        await stream.send_all(name.encode() + b" " + question)

    async def handle_session(session: MuxadoSession) -> None:
        await session.serve_streams(answer)

    sock = trio.socket.socket()
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    await sock.bind((HOST, port))
    sock.listen(128)
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            listeners = [trio.SocketListener(sock)]
            nursery.start_soon(
                partial(
                    serve_muxado_listeners, handle_session, listeners, stop=stop, stop_timeout=30
                )
            )
            print(f"{name} listens on port {sock.getsockname()[1]}", flush=True)
            await anext(signals)
            print(f"{name} stops", flush=True)
            stop.set()
    print(f"{name} has answered everything", flush=True)


# ---- the client


async def ask(port: int) -> None:
    """Send numbered requests until a signal arrives, and count who answered them."""
    pool = SessionPool()
    answered: Counter[str] = Counter()
    sent = 0
    stopping = False

    async def work(number: int, stream: MuxadoStream) -> str:
        await stream.send_all(b"%d" % number)
        await stream.send_eof()
        name, said = b"".join([chunk async for chunk in stream]).decode().split()
        assert int(said) == number
        return name

    async def asker() -> None:
        nonlocal sent
        while not stopping:
            sent += 1
            name = await pool.request(partial(work, sent), attempts=20)
            if not answered[name]:
                print("the first answer of", name, flush=True)
            answered[name] += 1

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            backoff = Backoff(first=0.05, longest=1)
            dial = partial(dial_muxado, pool.hold, HOST, port, backoff=backoff)
            for _ in range(2):  # two sessions: while one goes away, the other is there
                nursery.start_soon(dial)
            async with trio.open_nursery() as askers:
                for _ in range(AT_ONCE):
                    askers.start_soon(asker)
                await anext(signals)
                stopping = True
            nursery.cancel_scope.cancel()
    print(f"{answered.total()} of {sent} answered:", dict(answered), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", port, name]:
            trio.run(serve, int(port), name)
        case ["client", port]:
            trio.run(ask, int(port))
        case _:
            sys.exit(__doc__)
