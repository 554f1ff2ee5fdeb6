"""HTTP/2 with a visitor: requests side by side, each on a stream of its own to its service."""

from __future__ import annotations

import math
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import trio
from hyperframe.frame import GoAwayFrame

from .. import break_stream
from ._headers import passed_on, trailers
from ._http import HttpFront
from ._http2_request import Http2Request
from ._nursery import open_nursery
from ._opening import NoAgentError
from ._pages import Page, page
from ._routes import Route
from ._upstream import Upstream, UpstreamError, open_upstream
from ._visitors import GRACE, Visitor

IDLE_TIMEOUT = 300.0
"""Seconds that a connection without requests may stay."""

MOST_STREAMS = 100
"""Requests at once on a connection."""

WINDOW = 1024 * 1024
"""Bytes of a request's body that wait for its service."""

MOST_RESETS = 1000
"""Requests that a visitor may reset on a connection, before it is ended (CVE-2023-44487)."""

MOST_UNSENT = 10_000
"""Events of a visitor who reads nothing of what answers them."""

Codes = h2.errors.ErrorCodes


class Http2Connection:
    """A visitor's connection over TLS."""

    def __init__(
        self,
        front: HttpFront,
        stream: trio.abc.Stream,
        visitor: Visitor,
        server_name: str | None,
    ) -> None:
        self._front = front
        self._stream = stream
        self._visitor = visitor
        self._server_name = server_name
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._connection = h2.connection.H2Connection(config)
        self._requests: dict[int, Http2Request] = {}
        self._to_send = trio.Event()
        self._sent = trio.Event()
        self._unsent_events = 0
        self._idle = trio.CancelScope()
        self._last_id = 0
        self._resets = 0

    def stop(self) -> None:
        """Refuse further requests, and end with the last that runs."""
        if not self._requests:
            self._idle.deadline = min(self._idle.deadline, trio.current_time() + GRACE)

    async def run(self) -> None:
        """Serve it to its end, and close or break it."""
        settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65536,
            },
        )
        self._connection.local_settings = settings
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(4 * WINDOW)
        try:
            with self._idle:
                self._wait_for_requests()
                async with open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read(nursery)
            await self._say_goodbye()
        except (trio.BrokenResourceError, OSError):
            pass
        finally:
            await break_stream(self._stream)

    def _wait_for_requests(self) -> None:
        seconds = GRACE if self._front.stopping else IDLE_TIMEOUT
        self._idle.deadline = trio.current_time() + seconds

    # ---- receiving

    async def _read(self, nursery: trio.Nursery) -> None:
        """Until the visitor ends, or breaks the protocol.  It waits for nothing else.

        A reader that waited for the writer would stand still with a visitor whose own does.
        """
        self._to_send.set()
        while data := await self._stream.receive_some(65536):
            try:
                events = self._connection.receive_data(bytes(data))
            except h2.exceptions.ProtocolError:
                break  # what is to be sent says why
            for event in events:
                self._on_event(event, nursery)
            self._unsent_events += len(events)
            self._to_send.set()
            if self._resets > MOST_RESETS or self._unsent_events > MOST_UNSENT:
                self._connection.close_connection(Codes.ENHANCE_YOUR_CALM)
                break
        nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        """Send what there is to send, in the order in which it was made."""
        while True:
            await self._to_send.wait()
            self._to_send = trio.Event()
            if data := self._connection.data_to_send():
                await self._stream.send_all(data)
            self._unsent_events = 0  # whoever sends much and is owed nothing does no harm
            self._sent.set()
            self._sent = trio.Event()

    def _on_event(self, event: Any, nursery: trio.Nursery) -> None:
        match event:
            case h2.events.RequestReceived():
                self._on_request(event, nursery)
            case h2.events.DataReceived():
                request = self._requests.get(event.stream_id)
                size = event.flow_controlled_length
                if request is None:
                    self._acknowledge(event.stream_id, size)
                else:
                    self._acknowledge(event.stream_id, size - len(event.data))
                    request.body.put(event.data)
            case h2.events.StreamEnded():
                request = self._requests.get(event.stream_id)
                if request is not None:
                    request.body.end()
            case h2.events.StreamReset():
                self._resets += 1
                request = self._requests.get(event.stream_id)
                if request is not None:
                    request.scope.cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for request in self._requests.values():
                    request.window_changed.set()
            case _:
                pass

    def _on_request(self, event: h2.events.RequestReceived, nursery: trio.Nursery) -> None:
        stream_id: Any = event.stream_id
        if self._front.stopping:
            self._reset(stream_id, Codes.REFUSED_STREAM)
            return
        headers: Any = event.headers
        request = Http2Request(list(headers))
        if event.stream_ended is not None:
            request.body.end()
        self._last_id = max(self._last_id, stream_id)
        self._requests[stream_id] = request
        self._idle.deadline = math.inf
        nursery.start_soon(self._serve, stream_id, request)

    def _acknowledge(self, stream_id: int, size: int) -> None:
        if size:
            with suppress(h2.exceptions.ProtocolError):  # the stream has gone meanwhile
                self._connection.acknowledge_received_data(size, stream_id)

    # ---- a request

    async def _serve(self, stream_id: int, request: Http2Request) -> None:
        try:
            with request.scope:
                await self._answer(stream_id, request)
        except UpstreamError:
            self._reset(stream_id, Codes.INTERNAL_ERROR)
        except h11.LocalProtocolError:  # less of a body than the request's head has said
            self._reset(stream_id, Codes.PROTOCOL_ERROR)
        except h2.exceptions.ProtocolError:
            pass  # the visitor has reset it meanwhile
        finally:
            del self._requests[stream_id]
            self._discard(stream_id, request)
            if not self._requests:
                self._wait_for_requests()
        await self._flush()

    def _discard(self, stream_id: int, request: Http2Request) -> None:
        """Give back the window of a body that nobody reads."""
        self._acknowledge(stream_id, len(request.body.take()))

    async def _answer(self, stream_id: int, request: Http2Request) -> None:
        authority = request.pseudo.get(b":authority", b"")
        if not authority:
            authority = next((v for name, v in request.headers if name == b"host"), b"")
            request.pseudo[b":authority"] = authority
        method, path = request.pseudo.get(b":method", b""), request.pseudo.get(b":path", b"")
        if method == b"CONNECT" or not path.startswith((b"/", b"*")):
            why = "The request must name a path."
            await self._send_page(stream_id, request, page(HTTPStatus.BAD_REQUEST, why))
            return
        route, host = await self._front.find(authority)
        if self._server_name is not None and host != self._server_name:
            # A browser takes any connection whose certificate fits, and comes anew for this one.
            why = f"This connection is for {self._server_name}, not for {host}."
            await self._send_page(stream_id, request, page(HTTPStatus.MISDIRECTED_REQUEST, why))
            return
        if route is None:
            await self._send_page(stream_id, request, self._front.no_tunnel(host))
            return
        with self._front.counts.visit(route.name):
            await self._exchange(stream_id, request, route)

    async def _exchange(self, stream_id: int, request: Http2Request, route: Route) -> None:
        front, visitor = self._front, self._visitor
        try:
            onward = request.onward(visitor)
        except h11.LocalProtocolError:  # HTTP/2 allows what HTTP/1.1 can't say
            why = "The request has what HTTP/1.1 does not allow."
            await self._send_page(stream_id, request, page(HTTPStatus.BAD_REQUEST, why))
            return
        with trio.CancelScope() as idle:
            try:
                patience = front.config.agent_patience
                async with open_upstream(route, visitor, onward, patience) as upstream:
                    self._moved(idle)
                    async with open_nursery() as nursery:
                        nursery.start_soon(self._pass_body, stream_id, request, upstream, idle)
                        await self._pass_answer(stream_id, request, route, upstream, idle)
                        nursery.cancel_scope.cancel()
                return
            except NoAgentError as error:
                await self._send_page(stream_id, request, front.no_agent(route, visitor, error))
                return
            except UpstreamError as error:
                if request.answered:
                    front.note_failure(route, visitor, str(error))
                    raise
                await self._send_page(
                    stream_id, request, front.no_answer(route, visitor, str(error))
                )
                return
        if request.answered:
            front.note_failure(route, visitor, "nothing moved for too long")
            raise UpstreamError("idle")
        await self._send_page(stream_id, request, front.too_slow(route, visitor))

    def _moved(self, idle: trio.CancelScope) -> None:
        idle.deadline = trio.current_time() + self._front.config.idle_timeout

    async def _pass_body(
        self, stream_id: int, request: Http2Request, upstream: Upstream, idle: trio.CancelScope
    ) -> None:
        while chunk := await request.body.receive():
            try:
                await upstream.send(h11.Data(data=chunk))
            finally:  # also where the visitor has reset it meanwhile: the others need the window
                self._acknowledge(stream_id, len(chunk))
            self._moved(idle)
            await self._flush()
        await upstream.send(h11.EndOfMessage())

    async def _pass_answer(
        self,
        stream_id: int,
        request: Http2Request,
        route: Route,
        upstream: Upstream,
        idle: trio.CancelScope,
    ) -> None:
        status = 0
        while True:
            event = await upstream.next_event()
            self._moved(idle)
            match event:
                case h11.InformationalResponse() | h11.Response():
                    if isinstance(event, h11.Response):
                        status = event.status_code
                        request.answered = True
                    self._send_head(stream_id, event)
                    await self._flush()
                case h11.Data():
                    await self._send_data(stream_id, request, bytes(event.data))
                case _:  # the end; nobody has asked for another protocol
                    if fields := trailers(event.headers):
                        self._connection.send_headers(stream_id, fields, end_stream=True)
                    else:
                        self._connection.end_stream(stream_id)
                    if not request.body.ended:
                        # Answered before the body was complete: the rest need not come.
                        self._reset(stream_id, Codes.NO_ERROR)
                    await self._flush()
                    self._front.note_answer(route, self._visitor, status, upstream.agent)
                    return
            self._moved(idle)

    # ---- sending

    def _send_head(self, stream_id: int, event: Any) -> None:
        headers = [
            (name, value)
            for name, value in passed_on(event.headers)
            if name != b"transfer-encoding"
        ]
        status = b"%d" % event.status_code
        self._connection.send_headers(stream_id, [(b":status", status), *headers])

    async def _send_page(self, stream_id: int, request: Http2Request, answer: Page) -> None:
        headers = [(b":status", b"%d" % answer.status), *answer.headers]
        has_body = request.pseudo[b":method"] != b"HEAD"
        self._connection.send_headers(stream_id, headers, end_stream=not has_body)
        if has_body:
            self._connection.send_data(stream_id, answer.body, end_stream=True)
        await self._flush()

    async def _send_data(self, stream_id: int, request: Http2Request, data: bytes) -> None:
        start = 0
        while start < len(data):
            room = min(
                self._connection.local_flow_control_window(stream_id),
                self._connection.max_outbound_frame_size,
            )
            if room <= 0:
                request.window_changed = trio.Event()
                await request.window_changed.wait()
                continue
            self._connection.send_data(stream_id, data[start : start + room])
            start += room
            await self._flush()

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):  # the visitor was faster
            self._connection.reset_stream(stream_id, code)

    async def _flush(self) -> None:
        """Have everything sent that there is, and wait until it is."""
        self._to_send.set()
        await self._sent.wait()

    async def _say_goodbye(self) -> None:
        """The last words; no earlier, as clients that use h2 can't receive anything behind them."""
        with trio.move_on_after(GRACE):
            goodbye = GoAwayFrame(0, last_stream_id=self._last_id).serialize()
            await self._stream.send_all(self._connection.data_to_send() + goodbye)
            await self._stream.aclose()
