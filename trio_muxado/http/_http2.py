"""The client's side of HTTP/2, by h2: one request after the other on a stream.

A session's streams already do what HTTP/2's own streams are for, so a connection carries one
request at a time.  This is for peers that speak only HTTP/2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import httpx
import trio

from .. import ErrorCode, StreamResetError
from ._errors import is_safe_to_retry, refused, translated

MAX_RECEIVE = 64 * 1024
"""Bytes to read at once, at most."""

WINDOW = 2**24
"""Bytes that the peer may send before they are read.  The muxado stream has a window of its
own, which holds what is not read."""

NOT_SENT = frozenset((b"host", b"connection", b"transfer-encoding", b"keep-alive", b"upgrade"))
"""Headers that HTTP/2 does not have."""


class HTTP2:
    """A connection, for one request at a time.

    Args:
      stream: a stream, or TLS on it.
      has_news: tells whether there is something to receive.
    """

    version = b"HTTP/2"
    leading = b""

    def __init__(self, stream: trio.abc.Stream, has_news: Any) -> None:
        self._stream = stream
        self._has_news = has_news
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._timeouts: dict[str, float | None] = {}
        self._events: deque[Any] = deque()
        self._stream_id = 0
        self._request_sent = self._response_ended = False
        self._goaway_received = False
        self._reused = False
        self._lost: httpx.WriteError | None = None  # nothing more can be sent

    @property
    def reusable(self) -> bool:
        """Both the request and the response are complete, and another may follow."""
        return self._request_sent and self._response_ended and not self._goaway_received

    @property
    def complete(self) -> bool:
        """The response has been received."""
        return self._response_ended

    async def request(
        self,
        request: httpx.Request,
        body: AsyncIterator[bytes],
        timeouts: dict[str, float | None],
    ) -> tuple[int, list[tuple[bytes, bytes]], dict[str, Any]]:
        """Send a request; return the response's status, headers and extensions."""
        self._timeouts = timeouts
        if self._stream_id:
            self._reused = True
        else:
            self._begin()
        self._request_sent = self._response_ended = False
        try:
            await self._send(request, body)
        except httpx.WriteError as error:
            # The peer may have answered, or said that it goes, before it stopped reading.
            self._lost = error
        try:
            status, headers = await self._response()
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            told = isinstance(error, httpx.RemoteProtocolError) and error.__cause__ is not None
            if self._lost is None or told or is_safe_to_retry(error.__cause__):
                raise
            raise self._lost from self._lost.__cause__
        return status, headers, {"http_version": b"HTTP/2", "stream_id": self._stream_id}

    def _begin(self) -> None:
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 2**16,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW)

    # ---- sending

    async def _send(self, request: httpx.Request, body: AsyncIterator[bytes]) -> None:
        stream_id = self._stream_id = self._h2.get_next_available_stream_id()
        headers = [
            (b":method", request.method.encode()),
            (b":authority", request.headers.get("host", request.url.netloc.decode()).encode()),
            (b":scheme", request.url.raw_scheme),
            (b":path", request.url.raw_path),
        ]
        headers += [
            (name.lower(), value)
            for name, value in request.headers.raw
            if name.lower() not in NOT_SENT
        ]
        bodiless = not any(
            name in request.headers for name in ("content-length", "transfer-encoding")
        )
        try:
            self._h2.send_headers(stream_id, headers, end_stream=bodiless)
            if bodiless:
                await self._flush()
                self._request_sent = True
                return
            async for chunk in body:
                if not await self._send_data(chunk):
                    return  # the peer does not want the rest
            self._h2.end_stream(stream_id)
            await self._flush()
            self._request_sent = True
        except h2.exceptions.ProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error

    async def _send_data(self, chunk: bytes) -> bool:
        while chunk:
            window = self._h2.local_flow_control_window(self._stream_id)
            if not window or self._has_news():
                await self._flush()
                await self._receive()
                if any(not isinstance(event, h2.events.DataReceived) for event in self._events):
                    return False
                continue
            size = min(window, self._h2.max_outbound_frame_size)
            self._h2.send_data(self._stream_id, chunk[:size])
            chunk = chunk[size:]
            await self._flush()
        return True

    async def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._lost is None:
            with translated(self._timeouts.get("write"), httpx.WriteTimeout, httpx.WriteError):
                await self._stream.send_all(data)

    # ---- receiving

    async def _response(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        while True:
            event = await self._next_event()
            if isinstance(event, h2.events.ResponseReceived):
                headers: list[tuple[bytes, bytes]] = list(event.headers)
                status = next(int(value) for name, value in headers if name == b":status")
                return status, [(n, v) for n, v in headers if not n.startswith(b":")]
            self._ended_early(event)

    def _ended_early(self, event: Any) -> None:
        if isinstance(event, h2.events.StreamReset):
            code = event.error_code
            error = StreamResetError(
                f"the peer reset the request: {code!r}",
                code=ErrorCode.STREAM_CANCELLED,
                initiator="remote",
                safe_to_retry=code == h2.errors.ErrorCodes.REFUSED_STREAM,
            )
            raise httpx.RemoteProtocolError(str(error)) from error
        if isinstance(event, h2.events.StreamEnded):
            raise httpx.RemoteProtocolError("the peer ended the request without a response")

    async def _next_event(self) -> Any:
        while not self._events:
            await self._receive()
        return self._events.popleft()

    async def _receive(self) -> None:
        try:
            with translated(self._timeouts.get("read"), httpx.ReadTimeout, httpx.ReadError):
                data = await self._stream.receive_some(MAX_RECEIVE)
        except httpx.ReadError as error:
            again = refused(error.__cause__) if self._reused else None
            if again is None:
                raise
            raise httpx.ReadError(str(again)) from again
        if not data:
            raise httpx.RemoteProtocolError("the peer ended the stream before its response")
        try:
            events = self._h2.receive_data(bytes(data))
        except h2.exceptions.ProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        for event in events:
            if isinstance(event, h2.events.ConnectionTerminated):
                self._on_goaway(event)
            elif getattr(event, "stream_id", None) == self._stream_id and isinstance(
                event,
                (
                    h2.events.ResponseReceived,
                    h2.events.DataReceived,
                    h2.events.StreamEnded,
                    h2.events.StreamReset,
                ),
            ):
                self._events.append(event)
        await self._flush()

    def _on_goaway(self, event: h2.events.ConnectionTerminated) -> None:
        self._goaway_received = True
        last = event.last_stream_id
        if event.error_code or (last is not None and last < self._stream_id):
            error = StreamResetError(
                f"the peer is going away: {event.error_code!r}",
                code=ErrorCode.REMOTE_GONE_AWAY,
                initiator="remote",
                safe_to_retry=last is not None and last < self._stream_id,
            )
            raise httpx.RemoteProtocolError(str(error)) from error

    async def next_body(self) -> bytes:
        """The next piece of the response's body; ``b""`` at the end."""
        while not self._response_ended:
            event = await self._next_event()
            if isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, self._stream_id)
                await self._flush()
                if event.data:
                    return event.data
            elif isinstance(event, h2.events.StreamEnded):
                self._response_ended = True
            elif isinstance(event, h2.events.StreamReset):
                if event.error_code:
                    self._ended_early(event)
                self._request_sent = self._response_ended  # the peer needs no more of the request
        return b""
