"""The client's side of HTTP/1.1, by h11: one request after the other on a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import h11
import httpx
import trio

from ._errors import refused, translated

MAX_RECEIVE = 64 * 1024
"""Bytes to read at once, at most."""

MAX_HEADERS = 100 * 1024
"""Bytes of a response's headers, at most."""

PIECE = 64 * 1024
"""Bytes of a body to send before checking whether the peer has already answered."""


class HTTP1:
    """A connection, for one request at a time.

    Args:
      stream: a stream, or TLS on it.
      has_news: tells whether there is something to receive.
    """

    version = b"HTTP/1.1"

    def __init__(self, stream: trio.abc.Stream, has_news: Any) -> None:
        self._stream = stream
        self._has_news = has_news
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS)
        self._timeouts: dict[str, float | None] = {}
        self._reused = False

    @property
    def reusable(self) -> bool:
        """Both the request and the response are complete, and another may follow."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    @property
    def complete(self) -> bool:
        """The response has been received, so the stream can be closed instead of reset."""
        return self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    @property
    def leading(self) -> bytes:
        """Bytes that followed the response that switched protocols."""
        return bytes(self._h11.trailing_data[0])

    async def request(
        self,
        request: httpx.Request,
        body: AsyncIterator[bytes],
        timeouts: dict[str, float | None],
    ) -> tuple[int, list[tuple[bytes, bytes]], dict[str, Any]]:
        """Send a request; return the response's status, headers and extensions."""
        if self.reusable:
            self._h11.start_next_cycle()
            self._reused = True
        self._timeouts = timeouts
        lost = await self._send(request, body)
        try:
            response = await self._response()
        except httpx.RemoteProtocolError:
            if lost is None:
                raise
            raise httpx.ReadError(str(lost)) from lost
        headers: Any = response.headers
        return (
            response.status_code,
            headers.raw_items(),
            {"http_version": b"HTTP/" + response.http_version, "reason_phrase": response.reason},
        )

    async def _send(
        self, request: httpx.Request, body: AsyncIterator[bytes]
    ) -> BaseException | None:
        """Send what the peer accepts of the request; return the error that prevented the rest."""
        try:
            head = h11.Request(
                method=request.method, target=request.url.raw_path, headers=request.headers.raw
            )
            data = self._h11.send(head) or b""
            async for chunk in body:
                for start in range(0, len(chunk), PIECE):
                    piece = chunk[start : start + PIECE]
                    data += self._h11.send(h11.Data(data=piece)) or b""
                    await self._write(data)
                    data = b""
                    if self._has_news():
                        return None  # the peer does not want the rest
            data += self._h11.send(h11.EndOfMessage()) or b""
            if data:
                await self._write(data)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        except httpx.WriteError as error:
            # The peer may have answered before it stopped reading.
            return error.__cause__
        return None

    async def _write(self, data: bytes) -> None:
        with translated(self._timeouts.get("write"), httpx.WriteTimeout, httpx.WriteError):
            await self._stream.send_all(data)

    async def _response(self) -> h11.Response | h11.InformationalResponse:
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event

    async def _next_event(self) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            before_answer = self._h11.their_state is h11.SEND_RESPONSE
            try:
                with translated(self._timeouts.get("read"), httpx.ReadTimeout, httpx.ReadError):
                    data = await self._stream.receive_some(MAX_RECEIVE)
            except httpx.ReadError as error:
                again = refused(error.__cause__) if before_answer and self._reused else None
                if again is None or self._h11.trailing_data[0]:
                    raise
                raise httpx.ReadError(str(again)) from again
            if not data and before_answer:
                raise httpx.RemoteProtocolError("the peer ended the stream without a response")
            self._h11.receive_data(bytes(data))

    async def next_body(self) -> bytes:
        """The next piece of the response's body; ``b""`` at the end."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                return b""
