"""asyncssh: a direct TCP/IP channel per stream. SSH is always encrypted."""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from .._common import HOST, StreamPeer, answer_and_close, listening, main


class SshStream:
    def __init__(self, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]):
        self._writer = writer
        self.receive_some = reader.read

    async def send_all(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_eof(self) -> None:
        self._writer.write_eof()

    async def aclose(self) -> None:
        self._writer.close()


async def handle_channel(reader: Any, writer: Any) -> None:
    await answer_and_close(SshStream(reader, writer))


class Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False  # nobody need log in

    def connection_requested(self, *address: object) -> Any:
        return handle_channel


async def serve(args: Namespace) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    acceptor = await asyncssh.create_server(Server, HOST, 0, server_host_keys=[key], encoding=None)
    listening(acceptor.get_port())
    await acceptor.wait_closed()


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[StreamPeer]:
    async with asyncssh.connect(
        HOST, args.port, known_hosts=None, username="bench", client_keys=None, config=None
    ) as conn:

        async def open_stream() -> SshStream:
            return SshStream(*await conn.open_connection("bench", 1, encoding=None))

        yield StreamPeer(open_stream)


if __name__ == "__main__":
    main(serve, connect, loop="asyncio")
