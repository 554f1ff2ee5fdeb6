"""The smallest TCP proxy in plain trio: what a tunnel of two processes in Python costs at least.

    python -m benchmarks.tunnel_service.proxy PORT:TARGET_PORT ...

It accepts, connects and copies.  There are no tokens, no limits and no timeouts; a break of either
side closes both.
"""

import sys
from functools import partial

import trio

HOST = "127.0.0.1"


async def connect(port: int) -> trio.SocketStream:
    """Straight to the address: ``trio.open_tcp_stream`` has a nursery for several, and timers."""
    sock = trio.socket.socket()
    await sock.connect((HOST, port))
    return trio.SocketStream(sock)


async def copy(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some():
            await sink.send_all(data)
        await sink.send_eof()
    except trio.BrokenResourceError:
        both.cancel()


async def handle(target: int, visitor: trio.SocketStream) -> None:
    async with await connect(target) as service, trio.open_nursery() as nursery:
        both = nursery.cancel_scope
        nursery.start_soon(copy, service, visitor, both)
        await copy(visitor, service, both)


async def main(*pairs: str) -> None:
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            port, _, target = pair.partition(":")
            serve = partial(trio.serve_tcp, partial(handle, int(target)), int(port), host=HOST)
            nursery.start_soon(serve)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
