"""HTTP/1.1 with a visitor: for each request the tunnel of the host it names."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

import h11
import trio

from .. import break_stream, forward
from ._headers import Headers, passed_on, request_headers, trailers, upgrade_of
from ._http import HttpFront
from ._nursery import open_nursery
from ._opening import NoAgentError
from ._pages import Page, page
from ._routes import Route
from ._upstream import Upstream, UpstreamError, open_upstream
from ._visitors import GRACE, Visitor

IDLE_TIMEOUT = 75.0
"""Seconds that a kept connection waits for its next request."""

HEAD_TIMEOUT = 30.0
"""Seconds for a request's head, from its first byte."""

PIPELINED = 64 * 1024
"""Bytes behind a request that are read before its answer is out."""

LINGER = 1.0
"""Seconds in which a connection that was answered early may end, before it is cut."""


class VisitorGoneError(Exception):
    """The visitor's connection broke."""


class Http1Connection:
    """A visitor's connection, with any number of requests, one after the other."""

    def __init__(
        self, front: HttpFront, stream: trio.abc.Stream, visitor: Visitor, *, secure: bool
    ) -> None:
        self._front = front
        self._stream = stream
        self._visitor = visitor
        self._secure = secure
        self._connection = h11.Connection(h11.SERVER)
        self._waiting = trio.CancelScope()  # for a request
        self._method = b""  # of the request that is served
        self._may_switch = False  # to another protocol, as the visitor has asked
        self._handed_over = False  # to it
        self._is_last = False  # nothing after this request is believed to be one

    def stop(self) -> None:
        """Take no further requests, but for one that is on its way."""
        self._waiting.deadline = min(self._waiting.deadline, trio.current_time() + GRACE)

    async def run(self) -> None:
        """Serve it to its end, and close or break it."""
        try:
            while await self._serve_one():
                self._connection.start_next_cycle()
            if not self._handed_over:
                await self._end()
        except VisitorGoneError:
            pass
        except UpstreamError:
            await break_stream(self._stream)  # in the middle of an answer

    # ---- a request

    async def _serve_one(self) -> bool:
        """Serve a request; gives whether another may follow."""
        self._method = b""
        try:
            request = await self._next_request()
            if request is None:
                return False
            await self._serve(request)
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
            return False
        connection = self._connection
        return (connection.our_state, connection.their_state) == (h11.DONE, h11.DONE)

    async def _next_request(self) -> h11.Request | None:
        self._waiting = trio.CancelScope(deadline=trio.current_time() + IDLE_TIMEOUT)
        if self._front.stopping:
            self.stop()
        with self._waiting:
            # What was pipelined may be there already.
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                await self._receive()
                self._waiting.deadline = trio.current_time() + HEAD_TIMEOUT
                event = await self._next_event()
            return event if isinstance(event, h11.Request) else None
        return None

    async def _serve(self, request: h11.Request) -> None:
        headers = list(request.headers)
        self._method = request.method
        hosts = [value for name, value in headers if name == b"host"]
        if request.method == b"CONNECT":
            await self._answer(page(HTTPStatus.METHOD_NOT_ALLOWED, "This is no open proxy."))
            return
        if not hosts or not request.target.startswith((b"/", b"*")):
            why = "The request must name a host, and a path on it."
            await self._answer(page(HTTPStatus.BAD_REQUEST, why))
            return
        if _has_doubtful_length(request):
            # Whoever is in front of the relay may see another request in the same bytes.
            self._is_last = True
            why = "The request must not have a Transfer-Encoding here."
            await self._answer(page(HTTPStatus.BAD_REQUEST, why))
            return
        route, host = await self._front.find(hosts[0])
        if route is None:
            await self._answer(self._front.no_tunnel(host))
            return
        # In HTTP/1.0 there is none: RFC 9110, 7.8.
        upgrade = upgrade_of(headers) if request.http_version != b"1.0" else None
        self._may_switch = upgrade is not None
        passed = request_headers(headers, self._visitor, secure=self._secure)
        if upgrade is None:
            passed.append((b"connection", b"close"))
        else:
            passed += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
        onward = h11.Request(method=request.method, target=request.target, headers=passed)
        with self._front.counts.visit(route.name):
            await self._exchange(route, onward)

    async def _exchange(self, route: Route, onward: h11.Request) -> None:
        front, patience = self._front, self._front.config.agent_patience
        switched: Upstream | None = None
        with trio.CancelScope() as idle:
            try:
                async with open_upstream(route, self._visitor, onward, patience) as upstream:
                    self._moved(idle)
                    async with open_nursery() as nursery:
                        nursery.start_soon(self._pass_request, upstream, idle)
                        if await self._pass_answer(route, upstream, idle):
                            switched = upstream
                        nursery.cancel_scope.cancel()
                    if switched is not None:
                        idle.deadline = float("inf")
                        await self._join(switched)
                return
            except NoAgentError as error:
                await self._answer(front.no_agent(route, self._visitor, error))
                return
            except UpstreamError as error:
                if self._connection.our_state is not h11.SEND_RESPONSE:
                    front.note_failure(route, self._visitor, str(error))
                    raise
                await self._answer(front.no_answer(route, self._visitor, str(error)))
                return
        if self._connection.our_state is not h11.SEND_RESPONSE:
            front.note_failure(route, self._visitor, "nothing moved for too long")
            raise UpstreamError("idle")
        await self._answer(front.too_slow(route, self._visitor))

    def _moved(self, idle: trio.CancelScope) -> None:
        idle.deadline = trio.current_time() + self._front.config.idle_timeout

    # ---- the two directions of an exchange

    async def _pass_request(self, upstream: Upstream, idle: trio.CancelScope) -> None:
        """The request's body, and then whatever the visitor does while it gets its answer."""
        while isinstance(event := await self._next_event(), h11.Data | h11.EndOfMessage):
            self._moved(idle)
            if isinstance(event, h11.EndOfMessage):
                await upstream.send(h11.EndOfMessage(headers=trailers(event.headers)))
                break
            await upstream.send(event)
        buffered = 0
        while buffered < PIPELINED:
            size = await self._receive()
            if not size:
                if not isinstance(self._stream, trio.abc.HalfCloseableStream):
                    raise VisitorGoneError  # TLS has no half that could be open
                if self._may_switch:
                    return  # the end comes after what came before it
                await upstream.send_eof()
                return
            buffered += size

    async def _pass_answer(self, route: Route, upstream: Upstream, idle: trio.CancelScope) -> bool:
        """The answer; gives whether it switches to another protocol."""
        status = 0
        while True:
            event = await upstream.next_event()
            self._moved(idle)
            match event:
                case h11.InformationalResponse(status_code=101):
                    await self._send(event)
                    self._front.note_answer(route, self._visitor, 101, upstream.agent)
                    return True
                case h11.InformationalResponse():
                    if self._connection.their_http_version != b"1.0":
                        await self._send(event)
                case h11.Response():
                    status = event.status_code
                    headers = passed_on(event.headers)
                    if self._front.stopping:
                        headers.append((b"connection", b"close"))
                    await self._send(
                        h11.Response(status_code=status, headers=headers, reason=event.reason)
                    )
                case h11.EndOfMessage():
                    # HTTP/1.0 has no place for what comes after a body.
                    has_trailers = self._connection.their_http_version != b"1.0"
                    fields = trailers(event.headers) if has_trailers else []
                    await self._send(h11.EndOfMessage(headers=fields))
                    self._front.note_answer(route, self._visitor, status, upstream.agent)
                    return False
                case _:
                    await self._send(event)
            self._moved(idle)

    async def _join(self, upstream: Upstream) -> None:
        """Both sides speak another protocol from here on."""
        self._handed_over = True
        await upstream.write(bytes(self._connection.trailing_data[0]))
        await self._write(upstream.trailing_data)
        await forward(self._stream, upstream.stream, idle_timeout=self._front.config.idle_timeout)

    # ---- answers of the relay's own

    async def _answer(self, answer: Page) -> None:
        """A whole answer; the connection ends with it where a body of the request is on its way."""
        headers = answer.headers
        if self._connection.their_state is h11.SEND_BODY:
            self._connection.next_event()  # where there is no body, it is its end
        has_more = self._connection.their_state is h11.SEND_BODY
        if has_more or self._is_last or self._front.stopping:
            headers.append((b"connection", b"close"))
        await self._send_page(answer, headers)

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """The visitor does not speak HTTP, or not well."""
        if self._connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            await break_stream(self._stream)
            return
        status = HTTPStatus(error.error_status_hint)
        answer = page(status, "This is no request of HTTP/1.1.")
        await self._send_page(answer, [*answer.headers, (b"connection", b"close")])

    async def _send_page(self, answer: Page, headers: Headers) -> None:
        await self._send(h11.Response(status_code=answer.status, headers=headers))
        if self._method != b"HEAD":
            await self._send(h11.Data(data=answer.body))
        await self._send(h11.EndOfMessage())

    # ---- the visitor's connection

    async def _next_event(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            await self._receive()
        return event

    async def _receive(self) -> int:
        try:
            data = await self._stream.receive_some(65536)
        except (trio.BrokenResourceError, OSError) as error:
            raise VisitorGoneError from error
        self._connection.receive_data(bytes(data))
        return len(data)

    async def _send(self, event: Any) -> None:
        await self._write(cast("bytes | None", self._connection.send(event)) or b"")

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, OSError) as error:
            raise VisitorGoneError from error

    async def _end(self) -> None:
        """Close it, so that what was sent last is read: unread bytes would make it an RST.

        Where a request crosses with the close, it does become one: a clean end would say that it
        was answered with nothing.
        """
        answered = self._connection.our_state is not h11.IDLE
        with trio.move_on_after(LINGER):
            try:
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                    while await self._stream.receive_some(65536):
                        if not answered:
                            await break_stream(self._stream)
                            return
                await self._stream.aclose()
            except (trio.BrokenResourceError, OSError):
                pass


def _has_doubtful_length(request: h11.Request) -> bool:
    """RFC 9112, 6.1: the connection must end with it, whether or not it is served."""
    names = {name for name, _ in request.headers}
    has_another = b"content-length" in names or request.http_version == b"1.0"
    return b"transfer-encoding" in names and has_another
