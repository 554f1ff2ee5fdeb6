"""Send lines, each over a stream of its own: ``python echo_client.py [PORT] [LINE ...]``."""

import sys

import trio

from trio_muxado import MuxadoSession, open_muxado_session


async def ask(session: MuxadoSession, line: str) -> None:
    """Send a line, end this direction, and read the answer to its end."""
    async with await session.open_stream() as stream:
        await stream.send_all(line.encode())
        await stream.send_eof()
        answer = b"".join([chunk async for chunk in stream])
    print(answer.decode())


async def main(port: int, lines: list[str]) -> None:
    """Open one session, and send all lines at once."""
    with trio.fail_after(10):
        async with (
            open_muxado_session("127.0.0.1", port) as session,
            trio.open_nursery() as nursery,
        ):
            for line in lines:
                nursery.start_soon(ask, session, line)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    trio.run(main, port, sys.argv[2:] or ["hello", "muxado"])
