"""A request on its way to an agent's service, and the answer on its way back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import h11

from .. import MuxadoError, MuxadoStream
from ._routes import Holder, Route
from ._visitors import Visitor

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods whose request may reach two services, where the first one's agent breaks."""


class UpstreamError(Exception):
    """The service, or the way to it, broke before the answer was complete."""


class Upstream:
    """HTTP/1.1 with a service, one request on a stream of its own."""

    def __init__(self, connection: h11.Connection, stream: MuxadoStream, agent: Holder) -> None:
        self._connection = connection
        self.stream = stream
        self.agent = agent

    async def send(self, event: h11.Event) -> None:
        """Send a part of the request's body, or its end.

        Raises:
          UpstreamError: the service has gone.
        """
        await self.write(self._connection.send(event) or b"")

    async def write(self, data: bytes) -> None:
        """Send bytes of another protocol, which the service has switched to.

        Raises:
          UpstreamError: the service has gone.
        """
        try:
            await self.stream.send_all(data)
        except MuxadoError as error:
            raise UpstreamError(str(error)) from None

    async def send_eof(self) -> None:
        """Say that the visitor has ended its direction."""
        try:
            await self.stream.send_eof()
        except MuxadoError as error:
            raise UpstreamError(str(error)) from None

    async def next_event(self) -> Any:
        """The next part of the answer.

        Raises:
          UpstreamError: there is none, or nonsense.
        """
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                self._connection.receive_data(await self.stream.receive_some(65536))
        except MuxadoError as error:
            raise UpstreamError(str(error)) from None
        except h11.RemoteProtocolError as error:
            raise UpstreamError(f"the service broke the protocol: {error}") from None
        if isinstance(event, h11.ConnectionClosed):
            raise UpstreamError("the service closed the connection without an answer")
        return event

    @property
    def trailing_data(self) -> bytes:
        """What has arrived after the answer that switched to another protocol."""
        return bytes(self._connection.trailing_data[0])


@asynccontextmanager
async def open_upstream(
    route: Route, visitor: Visitor, request: h11.Request, patience: float
) -> AsyncGenerator[Upstream, None]:
    """Send a request's head to one of the tunnel's agents.

    Leaving the block resets the stream, unless the answer was whole.  One that switched to another
    protocol has an owner by then.

    Raises:
      NoAgentError: no agent's service takes it.
    """
    connection = h11.Connection(h11.CLIENT)
    head = connection.send(request) or b""
    first = head if request.method in SAFE else b""
    stream, agent = await route.open(visitor, patience, first)
    upstream = Upstream(connection, stream, agent)
    try:
        if not first:
            await upstream.write(head)
        yield upstream
    except BaseException:
        await stream.reset()
        raise
    if connection.their_state in (h11.DONE, h11.CLOSED, h11.MUST_CLOSE):
        await stream.aclose()
    elif connection.their_state is not h11.SWITCHED_PROTOCOL:
        await stream.reset()
