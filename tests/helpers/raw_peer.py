"""A peer that is played by the test."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, wait_all_tasks_blocked

from trio_muxado import MuxadoSession, client_session, server_session
from trio_muxado._protocol.frames import Frame
from trio_muxado._protocol.wire import WIRES, Decoder

from ..frames import PeerFrames
from .kinds import Kind


class RawPeer(PeerFrames):
    """The other end of a transport: the test says what it sends, and sees what comes.

    Nothing moves by itself, so the test decides what arrives together with what.
    """

    def __init__(self, kind: Kind) -> None:
        self._outlet = MemorySendStream()
        self._inlet = MemoryReceiveStream()
        self.transport = trio.StapledStream(self._outlet, self._inlet)
        """What the session under test gets."""
        self.wire = WIRES[kind.wire]
        self._decoder = Decoder(self.wire, lambda stream_id, opening: True)
        self.raw = bytearray()
        """All that the session has sent so far."""

    def send(self, *frames: bytes) -> None:
        """Let bytes arrive at the session, all at once."""
        self._inlet.put_data(b"".join(frames))

    def end(self) -> None:
        """Let the transport end."""
        self._inlet.put_eof()

    @property
    def has_ended(self) -> bool:
        """The session has ended its direction (and what it sent before was looked at)."""
        try:
            return self._outlet.get_data_nowait() == b""
        except trio.WouldBlock:
            return False

    async def frames(self) -> list[Frame]:
        """All frames that came since the last call, once nothing moves any more."""
        await wait_all_tasks_blocked()
        try:
            data = self._outlet.get_data_nowait()
        except trio.WouldBlock:
            return []
        self.raw += data
        return self._decoder.feed(bytes(data))

    def forget(self) -> None:
        """Throw away what the session has sent."""
        with suppress(trio.WouldBlock):
            self._outlet.get_data_nowait()


@asynccontextmanager
async def raw_session(
    kind: Kind, *, client: bool = False, **choices: Any
) -> AsyncGenerator[tuple[MuxadoSession, RawPeer], None]:
    """A session whose peer is played by the test, which lets it end when the block is left."""
    peer = RawPeer(kind)
    make = client_session if client else server_session
    choices.setdefault("heartbeat", None)
    async with make(peer.transport, config=kind.config(**choices)) as session:
        yield session, peer
        peer.end()
