"""Connections to the agents' port whose peer has not shown a token yet."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import Any

import trio

from .. import MuxadoSession
from ._counts import RelayCounts
from ._seldom import Seldom
from ._tls import TlsListener, tcp_below

logger = logging.getLogger("trio_muxado.tunnel")

MOST_NEWCOMERS = 200
"""Connections without a token, at once.  A peer that has one shows it with its first bytes."""


class Newcomers:
    """The last of them: one more ends the oldest, so nobody without a token can fill the relay.

    Also those are among them that are gone, until they are the oldest.
    """

    def __init__(self, counts: RelayCounts) -> None:
        self._counts = counts
        self._connections: dict[trio.SocketStream, None] = {}  # the oldest first
        self._log = Seldom()

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, tcp: trio.SocketStream) -> None:
        """A connection that was accepted."""
        self._connections[tcp] = None
        if len(self._connections) > MOST_NEWCOMERS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            self._end(oldest)

    def discard(self, session: MuxadoSession) -> None:
        """The peer of that session has shown a token, or has gone."""
        self._connections.pop(tcp_below(session.transport_stream), None)

    def _end(self, tcp: trio.SocketStream) -> None:
        if tcp.socket.fileno() < 0:
            return
        # Whoever uses it, for a handshake or a session, sees its end, and closes it.
        with suppress(OSError):
            tcp.socket.shutdown(socket.SHUT_RDWR)
        self._counts.refused["no-token"] += 1
        if self._log.is_due():
            logger.warning("too many connections without a token: the oldest are ended")


class NewcomerListener(trio.abc.Listener[Any]):
    """Accepts them."""

    def __init__(self, listener: trio.SocketListener | TlsListener, newcomers: Newcomers) -> None:
        self._listener = listener
        self._newcomers = newcomers

    @property
    def transport_listener(self) -> trio.SocketListener:
        """Whose backlog a stop looks at."""
        below = self._listener
        return below.transport_listener if isinstance(below, TlsListener) else below

    async def accept(self) -> trio.abc.Stream:
        """The next connection."""
        stream = await self._listener.accept()
        self._newcomers.add(tcp_below(stream))
        return stream

    async def aclose(self) -> None:
        """Stop listening."""
        await self._listener.aclose()
