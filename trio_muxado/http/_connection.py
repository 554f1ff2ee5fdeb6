"""One stream as an HTTP connection: what hypercorn's ``TCPServer`` is for a socket."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated

from .. import ErrorCode, MuxadoError, MuxadoStream, ProxyHeaderError, receive_proxy_header
from ._bare import errors_bare, raise_unchanged
from ._exchange import Exchange
from ._hypercorn import HTTP2, Protocol, stream_of
from ._inbox import Inbox
from ._scope import Origin, tls_extension
from ._service import Service

MAX_RECEIVE = 64 * 1024
"""Bytes to read at once, at most."""

JOIN = 64 * 1024
"""Bytes up to which pieces are joined, to be sent in one call."""


class Connection:
    """HTTP/1.1 with keep-alive, WebSocket or HTTP/2, on one stream.

    The task that runs it reads.  Each exchange has a task of its own, in the service's nursery.
    Another task waits for the stream to break, because the reader may be waiting for an
    application that receives nothing.
    """

    def __init__(self, service: Service, stream: MuxadoStream, origin: Origin) -> None:
        self._service = service
        self._protocol: Protocol | None = None
        self._stream = stream
        self._transport: trio.abc.Stream = stream
        self._origin = origin
        self.app = service.app
        self.config = service.config
        self.graceful_timeout = service.config.graceful_timeout
        self.exchanges: set[Exchange] = set()
        """Those that the connection waits for, and those that go on after their response."""
        self.is_gone = False
        """The stream has broken: nothing can be sent any more."""
        self._torn = False  # a message was cut short: the stream must not end cleanly
        self._refuses = False  # a request that arrives after the end was not processed
        self._is_ending = False  # the protocol has nothing more to send
        self.announced_end = False
        """A response has said that it is the connection's last."""
        self._failure: BaseException | None = None
        self._idle_since: float | None = trio.current_time()
        self._requests = 0
        self._reading = trio.CancelScope()
        self._receives = False  # the reader waits for the client only
        self._released = trio.Event()
        self._send_lock = trio.Lock()
        self._corked: list[bytes] | None = None

    @property
    def stopping(self) -> bool:
        """The server accepts no further requests."""
        return self._service.stopping

    @property
    def discards_output(self) -> bool:
        """Nothing more can be sent: what an application sends is dropped."""
        return self.is_gone or self._torn

    @property
    def http2(self) -> HTTP2 | None:
        """The protocol if it is HTTP/2, else None."""
        return None if self._protocol is None else self._protocol.http2

    @property
    def stops_at(self) -> float:
        """When the server cancels what still runs, on trio's clock."""
        return self._service.stops_at

    # ---- from its beginning to its end

    async def run(self) -> None:
        """Serve until the client or the server ends it, and then close the stream."""
        code = ErrorCode.STREAM_CANCELLED
        with errors_bare():
            async with trio.open_nursery() as self._nursery:
                self._nursery.cancel_scope.deadline = self.stops_at
                self._nursery.start_soon(self._watch)
                try:
                    protocol = await self._prepare()
                    if protocol is not None:
                        await self._converse(protocol)
                        await self._wait_released()
                    whole = not self._torn
                except Exception:
                    whole, code = False, ErrorCode.INTERNAL_ERROR
                    await self.config.log.exception(f"Error in the HTTP on {self._stream!r}")
                except BaseException:
                    await self._cut(code)
                    raise
                if not whole:
                    await self._cut(code)
                self._nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise_unchanged(self._failure)
        await self._end()

    async def _prepare(self) -> Protocol | None:
        """What comes before HTTP: the client's address, and TLS."""
        service = self._service
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                if service.proxy_protocol:
                    addresses = await receive_proxy_header(self._stream)
                    if addresses is not None:
                        self._origin.client, self._origin.server = addresses
                if service.ssl_context is not None:
                    tls = self._transport = trio.SSLStream(
                        self._stream, service.ssl_context, server_side=True, https_compatible=True
                    )
                    await tls.do_handshake()
                    self._origin.secure = True
                    self._origin.extensions = {"tls": tls_extension(tls)}
        except (ProxyHeaderError, trio.BrokenResourceError, trio.TooSlowError) as error:
            reason = error.__cause__ or error
            await self.config.log.info(f"No HTTP on {self._stream!r}: {reason!r}")
            self._torn = True
            return None
        secure = self._origin.secure if service.scheme is None else service.scheme == "https"
        alpn = getattr(self._transport, "selected_alpn_protocol", lambda: None)()
        self._protocol = Protocol(
            self.app,
            self.config,
            service.context,
            self,
            service.state.copy(),
            secure,
            self._origin.client,
            self._origin.server,
            self._send,
            alpn or "http/1.1",
        )
        return self._protocol

    async def _watch(self) -> None:
        try:
            await self._stream.wait_broken()
        except trio.ClosedResourceError:
            return
        self._gone()

    def _gone(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            for exchange in self.exchanges:
                exchange.gone()
            scope = self._nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + self.graceful_timeout)

    async def _wait_released(self) -> None:
        while any(not exchange.released.is_set() for exchange in self.exchanges):
            self._released = trio.Event()
            await self._released.wait()

    async def _cut(self, code: ErrorCode) -> None:
        """Reset the stream, so that no partial response looks complete; cancel the exchanges."""
        with trio.CancelScope(shield=True):
            await self._stream.reset(code)
            self.is_gone = True
            for exchange in self.exchanges:
                if not exchange.released.is_set():
                    exchange.cancel()
            await self._wait_released()

    async def _end(self) -> None:
        """Close the stream after what was sent."""
        if self._refuses and not self.is_gone and not self._stream.unsent:
            # A client that sends a request at this moment learns that it is safe to retry.
            await self._stream.reset(ErrorCode.STREAM_REFUSED)
        else:
            await self._transport.aclose()

    # ---- receiving

    async def _converse(self, protocol: Protocol) -> None:
        with self._reading:
            await protocol.initiate()
            await self._read(protocol)
        await protocol.handle(Closed())

    async def _read(self, protocol: Protocol) -> None:
        reading = self._reading
        while True:
            self._await_client()
            try:
                data = await self._receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            self._receives = False
            if data is None or reading.cancel_called:
                return  # what was received just now is not handled: it is refused as a whole
            reading.deadline = math.inf  # what was received is handled without a deadline
            self._refuses = False
            await protocol.handle(RawData(bytes(data)))
            if not data or self._is_ending:
                return

    async def _receive(self) -> bytes | bytearray | None:
        """What comes next; None if nothing does in time."""
        timeout = self.config.read_timeout
        if timeout is None:  # as by default; a scope would cost each request
            return await self._transport.receive_some(MAX_RECEIVE)
        with trio.move_on_after(timeout):
            return await self._transport.receive_some(MAX_RECEIVE)
        return None

    def _await_client(self) -> None:
        self._receives = True
        if self._idle_since is not None and not self._is_ending:
            self._refuses = True
            self._reading.deadline = self._idle_since + self.config.keep_alive_timeout
            if self.stopping and (self._requests or self.http2 is not None):
                self._reading.cancel()

    def _set_idle(self, idle: bool) -> None:
        if idle:
            if self._idle_since is None:
                self._idle_since = trio.current_time()
            if self._receives:
                self._await_client()
        else:
            self._requests += 1
            self._idle_since = None
            self._refuses = False
            self._reading.deadline = math.inf

    # ---- what the exchanges and the protocol call

    async def spawn_app(
        self, app: Any, config: Config, asgi_scope: dict[str, Any], app_send: Any
    ) -> Callable[[Any], Awaitable[None]]:
        """Call the application, and return the function that gives it its events.

        This and ``spawn`` are what hypercorn's protocols need of a task group.
        """
        stream = stream_of(app_send)
        extensions = {**asgi_scope["extensions"], **self._origin.extensions}
        extensions["muxado"] = {"session": self._stream.session, "stream": self._stream}
        asgi_scope["extensions"] = extensions
        if self.http2 is None:
            inbox = Inbox(config.max_app_queue_size)
        else:
            inbox = self.http2.inbox_of(stream.stream_id)
        exchange = Exchange(self, asgi_scope, stream, inbox)
        self.exchanges.add(exchange)
        self._service.start(exchange)
        return exchange.put

    def spawn(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a task until the connection ends."""
        self._nursery.start_soon(task, *args)

    def released(self) -> None:
        """An exchange has sent its response, or has ended."""
        self._released.set()

    def fail(self, error: BaseException, *, alone: bool) -> None:
        """An application raised an error that ends the program.

        ``alone`` says that its connection need not end first.
        """
        if alone:
            self._service.fail(error)
        else:
            self._failure = error
            self._nursery.cancel_scope.cancel()

    async def break_off(self, stream_id: int, asgi_scope: dict[str, Any]) -> None:
        """A response ends too early: its client must not take it for a complete one."""
        if asgi_scope["http_version"] == "1.0":
            # There the end of the stream may be the end of the response.
            self.tear(stream_id)
        elif self.http2 is not None:
            await self.http2.break_off(stream_id)

    def tear(self, stream_id: int) -> None:
        """A response was cut short, and the rest of it can't be sent."""
        if self.http2 is not None and not self.is_gone:
            self.spawn(self.http2.break_off, stream_id)
        else:
            self._torn = True
            self._reading.cancel()

    # ---- the server stops

    def stop(self) -> None:
        """Accept no further requests, and end within ``graceful_timeout``."""
        scope = self._nursery.cancel_scope
        scope.deadline = min(scope.deadline, self.stops_at)
        for exchange in self.exchanges:
            if exchange.is_websocket:
                self.spawn(exchange.go_away)
        if self._receives:
            self._await_client()
        if self.http2 is not None:
            self.spawn(self.http2.go_away)

    # ---- sending

    def cork(self) -> None:
        """Hold back what is sent until ``uncork``."""
        if self._corked is None:
            self._corked = []

    async def uncork(self) -> None:
        """Send what was held back, in one call if it is small."""
        pieces, self._corked = self._corked, None
        if pieces:
            if sum(map(len, pieces)) <= JOIN:
                pieces = [b"".join(pieces)]
            for piece in pieces:
                await self._write(piece)

    async def _send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if self._corked is not None:
                self._corked.append(event.data)
            elif self.http2 is not None:
                # A frame cut short would break all the other streams.
                with trio.CancelScope(shield=True):
                    await self._write(event.data)
            else:
                await self._write(event.data)
        elif isinstance(event, Updated):
            self._set_idle(event.idle)
        elif isinstance(event, Closed):
            self._is_ending = True
            # A response that began before the stop has not said that it is the last.
            self._refuses = self.stopping and self.http2 is None and not self.announced_end
            if self._receives:
                self._reading.cancel()
            else:  # it may still be sending
                self._reading.deadline = trio.current_time() + self.graceful_timeout

    async def _write(self, data: bytes) -> None:
        if self.discards_output:
            return
        try:
            self._send_lock.acquire_nowait()  # `acquire` has a checkpoint, and `send_all` has one
        except trio.WouldBlock:
            await self._send_lock.acquire()
        try:
            await self._transport.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, MuxadoError):
            self._gone()
        except trio.Cancelled:
            self._torn = True
            self._reading.cancel()
            raise
        finally:
            self._send_lock.release()
