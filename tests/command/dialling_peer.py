"""An echo peer that dials: ``python dialling_peer.py HOST PORT``."""

import sys

import trio

from trio_muxado import MuxadoConfig, MuxadoError, MuxadoStream, open_muxado_session


async def echo(stream: MuxadoStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def main(host: str, port: int) -> None:
    config = MuxadoConfig(wire="v1", heartbeat=None)
    try:
        async with open_muxado_session(host, port, config=config) as session:
            await session.serve_streams(echo)
    except MuxadoError:
        pass


trio.run(main, sys.argv[1], int(sys.argv[2]))
