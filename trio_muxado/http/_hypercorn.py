"""Corrections to hypercorn 0.18.0's protocols, all in one place.

hypercorn's protocols (HTTP/1.1, HTTP/2, WebSocket) are used as they are: they call us for each
request (``Connection.spawn_app``), for each write, and to report that they are idle.
``_connection.py`` and ``_exchange.py`` replace its ``TCPServer`` and its task group, because there

* an application that receives nothing blocks the reader forever, so that the end of the client's
  stream is never seen;
* ``is_disconnected()``, which asks in a cancelled scope, never gets an answer;
* no deadline applies when a client has gone or the server stops;
* Ctrl+C and ``sys.exit`` are raised in nested exception groups;
* a partial response ends like a complete one, and an HTTP/1.0 client can't see the difference;
* writes are shielded, so that a client that does not read blocks every task that waits for one.

The protocols' own faults that are corrected here, each with a test in ``tests/http``:

* WebSocket: the code of the client's close frame is lost; a message that breaks the protocol is
  not answered; nothing closes one when the server stops.
* HTTP/2: data on a stream that has been answered ends the connection with a KeyError; a write to a
  connection that has ended waits forever; a response that ends too early never ends for the
  client; a body that its application does not read blocks all other streams; a stop refuses
  streams with NO_ERROR; the thousandth request cuts off those that are running.

None of this is hypercorn's documented interface: hence the bound on its version in pyproject.toml.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, Data, EndBody, StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from hyperframe.frame import GoAwayFrame
from priority.priority import MissingStreamError
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from ._inbox import Inbox

REFUSED = h2.errors.ErrorCodes.REFUSED_STREAM


def stream_of(app_send: Any) -> HTTPStream | WSStream:
    """hypercorn's state of a request, from its bound method ``app_send``."""
    stream: HTTPStream | WSStream = app_send.__self__
    if isinstance(stream, WSStream):
        # hypercorn names the class where it makes one, and has done nothing with this one yet.
        stream.__class__ = WebSocket
    return stream


class Protocol(ProtocolWrapper):
    """HTTP/1.1, which may be upgraded to HTTP/2; or HTTP/2 from the start, if ALPN chose it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if isinstance(self.protocol, H2Protocol):
            self.protocol = self._http2()

    def _http2(self) -> HTTP2:
        return HTTP2(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.state,
            self.ssl,
            self.client,
            self.server,
            self.send,
        )

    @property
    def http2(self) -> HTTP2 | None:
        """The protocol if it is HTTP/2, else None."""
        return self.protocol if isinstance(self.protocol, HTTP2) else None

    async def handle(self, event: Any) -> None:
        """Handle what has come, or the end."""
        headers: list[tuple[bytes, bytes]] | None = None
        settings: bytes | None = None
        try:
            await self.protocol.handle(event)
            return
        except H2ProtocolAssumedError as error:
            data = error.data
        except H2CProtocolRequiredError as error:
            headers, settings, data = error.headers, error.settings, error.data
        self.protocol = self._http2()
        await self.protocol.initiate(headers, settings)
        if data:
            await self.protocol.handle(RawData(data))


class WebSocket(WSStream):
    """A WebSocket that reports to its application how it was closed."""

    app_put: Any
    buffer: Any
    _code: int | None = None

    async def handle(self, event: Any) -> None:
        """Handle what has come, or the end."""
        if isinstance(event, StreamClosed) and self._code is not None and not self.closed:
            self.closed = True
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": self._code})
        elif isinstance(event, (Body, Data)) and self.state is ASGIWebsocketState.HTTPCLOSED:
            pass  # the application has rejected it
        else:
            with suppress(LocalProtocolError):  # what follows the close frame
                await super().handle(event)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    await self._close(CloseReason.MESSAGE_TOO_BIG)
                    return
                if event.message_finished:
                    await self.app_put(self.buffer.to_message())
                    self.buffer.clear()
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                    self._code = int(event.code)
                elif self.connection.state is ConnectionState.CLOSED:
                    self._code = self._code or int(event.code)
                else:
                    await self._close(event.code)
                await self.send(StreamClosed(stream_id=self.stream_id))

    async def _close(self, code: int) -> None:
        """Close it for a reason that is not the application's, and report that to it at once."""
        if self.closed or self.state is not ASGIWebsocketState.CONNECTED:
            return
        self.state = ASGIWebsocketState.CLOSED
        self._code = int(code)
        await self._send_wsproto_event(CloseConnection(code=code))
        await self.app_put({"type": "websocket.disconnect", "code": self._code})

    async def probe(self) -> None:
        """Send a ping: if the client has closed the stream, it breaks."""
        await self._send_wsproto_event(Ping())

    async def go_away(self) -> None:
        """The server stops: close with 1001."""
        await self._close(CloseReason.GOING_AWAY)


class HTTP2(H2Protocol):
    """HTTP/2 whose streams don't block each other, and that shuts down as RFC 9113 says."""

    task_group: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ended: set[int] = set()  # streams whose request is complete
        self._inboxes: dict[int, Inbox] = {}
        self._unread: dict[int, int] = {}  # bytes that the application has not received yet
        self._last_stream_id = 0
        self._refuses = False  # further requests are refused
        self._is_last = False  # the connection ends with its running requests

    def inbox_of(self, stream_id: int) -> Inbox:
        """A new inbox for a stream's application.  The window bounds it, so ``put`` never waits."""
        inbox = self._inboxes[stream_id] = Inbox(on_empty=lambda: self._consumed(stream_id))
        return inbox

    # ---- receiving

    async def handle(self, event: Any) -> None:
        """Handle what has come, or the end."""
        await super().handle(event)
        if isinstance(event, Closed):
            for buffer in self.stream_buffers.values():
                await buffer.close()

    async def _handle_events(self, events: Any) -> None:
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                await self._on_request(event)
            elif isinstance(event, h2.events.DataReceived):
                await self._on_data(event)
            elif isinstance(event, h2.events.StreamEnded):
                self._ended.add(event.stream_id)
                if event.stream_id in self.streams:
                    await self.streams[event.stream_id].handle(EndBody(event.stream_id))
            else:
                await super()._handle_events([event])
                if isinstance(event, h2.events.StreamReset):
                    self._ended.discard(event.stream_id)
                    await self._drop(event.stream_id)
                    await self._check_idle()
        await self._flush()

    async def _on_request(self, event: Any) -> None:
        if self._refuses or self.context.terminated.is_set():
            self._reset(event.stream_id, REFUSED)
            return
        self._last_stream_id = event.stream_id
        await self.send(Updated(idle=False))
        await self._create_stream(event)
        if self.keep_alive_requests > self.config.keep_alive_max_requests:
            self._is_last = True

    async def _on_data(self, event: Any) -> None:
        stream_id = event.stream_id
        if stream_id not in self.streams:
            self._acknowledge(stream_id, event.flow_controlled_length)
            return
        self._acknowledge(stream_id, event.flow_controlled_length - len(event.data))
        if event.data:
            self._unread[stream_id] = self._unread.get(stream_id, 0) + len(event.data)
            await self.streams[stream_id].handle(Body(stream_id, data=event.data))
            inbox = self._inboxes.get(stream_id)
            if inbox is None or inbox.is_empty:  # only a part of a WebSocket's message
                self._acknowledge(stream_id, self._unread.pop(stream_id, 0))

    def _consumed(self, stream_id: int) -> None:
        """An application has received everything so far: the client may send more."""
        unread = self._unread.pop(stream_id, 0)
        if unread:
            self._acknowledge(stream_id, unread)
            self.task_group.spawn(self._flush)

    def _acknowledge(self, stream_id: int, size: int) -> None:
        if size:
            with suppress(h2.exceptions.ProtocolError):
                self.connection.acknowledge_received_data(size, stream_id)

    # ---- sending

    async def stream_send(self, event: Any) -> None:
        """Send an application's event."""
        if not isinstance(event, StreamClosed):
            await super().stream_send(event)
            return
        await self._close_stream(event.stream_id)
        self._inboxes.pop(event.stream_id, None)
        self._acknowledge(event.stream_id, self._unread.pop(event.stream_id, 0))
        await self._flush()
        await self._check_idle()

    async def _send_data(self, stream_id: int) -> None:
        try:
            await super()._send_data(stream_id)
        except (KeyError, MissingStreamError):
            with suppress(MissingStreamError):  # the stream was reset meanwhile
                self.priority.remove_stream(stream_id)
            return
        if stream_id in self.stream_buffers:
            return
        if stream_id in self._ended:
            self._ended.discard(stream_id)
        else:
            # Answered before its request was complete: the client need not send the rest.
            self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)
            await self._flush()
        await self._check_idle()

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self.connection.reset_stream(stream_id, code)

    # ---- ending

    async def break_off(self, stream_id: int) -> None:
        """A response ends too early: reset its stream."""
        if stream_id in self.streams:
            self._reset(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            self._ended.discard(stream_id)
            await self._drop(stream_id)
            await self._flush()
            await self.stream_send(StreamClosed(stream_id))

    async def _drop(self, stream_id: int) -> None:
        """Discard what waits to be sent on a stream."""
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is not None:
            await buffer.close()
            with suppress(MissingStreamError):
                self.priority.remove_stream(stream_id)

    async def go_away(self) -> None:
        """Accept no more requests, and finish those that are running."""
        self._refuses = self._is_last = True
        await self._check_idle()

    async def _check_idle(self) -> None:
        """A stream has ended, or its last frame has been sent: report idleness, or end."""
        idle = self.idle and not self.stream_buffers
        if not idle or not self._is_last:
            await self.send(Updated(idle=idle))
        elif not self.closed:
            # No earlier: clients that use h2 can't receive anything after it.
            frame = GoAwayFrame(0, last_stream_id=self._last_stream_id)
            await self._flush()
            await self.send(RawData(frame.serialize()))
            await self.send(Closed())
