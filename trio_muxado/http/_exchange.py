"""One call of the application: a request and its response, or a WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio
from hypercorn.config import Config
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream

from ._bare import fatal_in, is_cancellation
from ._inbox import LAST, Inbox

ASYNCIO = ("no running event loop", "no current event loop")
"""asyncio's messages when its event loop does not run."""

PROBE = 1.0
"""Seconds that a message of a WebSocket waits for its application until the client is pinged, to
find out whether it is still there."""


class Carrier(Protocol):
    """What an exchange needs of its connection."""

    app: Callable[..., Awaitable[Any]]
    config: Config
    graceful_timeout: float
    exchanges: set[Exchange]
    announced_end: bool
    """A response has said that it is the connection's last."""

    @property
    def stopping(self) -> bool:
        """The server accepts no further requests."""
        ...

    @property
    def stops_at(self) -> float:
        """When the server cancels what still runs, on trio's clock."""
        ...

    @property
    def is_gone(self) -> bool:
        """The stream has broken."""
        ...

    @property
    def discards_output(self) -> bool:
        """Nothing more can be sent: what an application sends is dropped."""
        ...

    def spawn(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a task until the connection ends."""
        ...

    def released(self) -> None:
        """An exchange has sent its response, or has ended."""
        ...

    def fail(self, error: BaseException, *, alone: bool) -> None:
        """End the program; ``alone`` says that the connection need not end first."""
        ...

    async def break_off(self, stream_id: int, asgi_scope: dict[str, Any]) -> None:
        """A response ends too early: its client must not take it for a complete one."""
        ...

    def tear(self, stream_id: int) -> None:
        """A response was cut short, and the rest of it can't be sent."""
        ...

    def cork(self) -> None:
        """Hold back what is sent until ``uncork``."""
        ...

    async def uncork(self) -> None:
        """Send what was held back."""
        ...


class Exchange:
    """A call of the application for one request, until it returns.

    The connection waits for it, and reports it when the client has gone.  The call is cancelled
    ``graceful_timeout`` seconds later.  The connection does not wait for what an application does
    after its complete response, such as Starlette's background tasks: that runs in the service's
    nursery.

    Args:
      connection: its connection.
      asgi_scope: the scope that the application is called with.
      stream: hypercorn's state of the request.
      inbox: the events that the application receives.
    """

    def __init__(
        self,
        connection: Carrier,
        asgi_scope: dict[str, Any],
        stream: HTTPStream | WSStream,
        inbox: Inbox,
    ) -> None:
        self._connection = connection
        self._asgi_scope = asgi_scope
        self._stream = stream
        self._inbox = inbox
        self._app_send: Any = stream.app_send
        self._cancel_scope = trio.CancelScope()
        self._corks = asgi_scope["type"] == "http" and asgi_scope["http_version"] in ("1.0", "1.1")
        self._disconnected = False  # the application has been given its last event
        self._farewell: dict[str, Any] | None = None  # the last event, until the response is sent
        self.released = trio.Event()
        """Set when the connection need no longer wait for it."""

    @property
    def is_websocket(self) -> bool:
        """It is a WebSocket, or a request to open one."""
        return isinstance(self._stream, WSStream)

    @property
    def answered(self) -> bool:
        """The response to a request is complete."""
        return isinstance(self._stream, HTTPStream) and self._stream.state is ASGIHTTPState.CLOSED

    @property
    def incomplete(self) -> bool:
        """Only a part of the response has been sent."""
        return self._stream.state in (
            ASGIHTTPState.RESPONSE,
            ASGIHTTPState.TRAILERS,
            ASGIWebsocketState.RESPONSE,
        )

    # ---- what hypercorn and the connection call

    async def put(self, event: dict[str, Any]) -> None:
        """Give the application an event."""
        if event["type"] in LAST:
            self.end(event)
        elif not self.is_websocket:
            await self._inbox.put(event)
        else:
            while True:
                with trio.move_on_after(PROBE) as waiting:
                    await self._inbox.put(event)
                if not waiting.cancelled_caught:
                    return
                # Meanwhile nothing is read, not even the end of the client's stream.
                await self._call("probe")

    def gone(self) -> None:
        """The client has gone; the application may not have received everything yet."""
        if self.is_websocket:
            self.end({"type": "websocket.disconnect", "code": 1006})
        else:
            self.end({"type": "http.disconnect"})

    def end(self, event: dict[str, Any]) -> None:
        """Give the application its last event, and a deadline."""
        if self.answered and not self.released.is_set():
            # An application that receives it may cancel its task that still sends.
            self._farewell = event
            return
        self._inbox.end(event)
        if not self.answered:
            self._disconnected = True
            self._leave(self._connection.graceful_timeout)

    def _leave(self, seconds: float) -> None:
        scope = self._cancel_scope
        scope.deadline = min(scope.deadline, trio.current_time() + seconds)

    def stop(self, deadline: float) -> None:
        """The server stops: cancel the call at ``deadline``, on trio's clock."""
        self._cancel_scope.deadline = min(self._cancel_scope.deadline, deadline)

    async def go_away(self) -> None:
        """The server stops: close a WebSocket."""
        await self._call("go_away")

    async def _call(self, name: str) -> None:
        method = getattr(self._stream, name, None)
        if method is not None:
            await method()

    def cancel(self) -> None:
        """End the call at once."""
        self._cancel_scope.cancel()

    # ---- the call

    async def run(self) -> None:
        """Call the application.  Its errors are logged or passed on, never raised."""
        connection, concluded = self._connection, False
        try:
            with self._cancel_scope:
                try:
                    await connection.app(self._asgi_scope, self._inbox.receive, self._send)
                except BaseException as error:
                    if is_cancellation(error):
                        raise
                    fatal = fatal_in(error)
                    if fatal is not None:
                        connection.fail(fatal, alone=self.released.is_set())
                        return
                    await self._log(error)
                await self._conclude()
                concluded = True
        finally:
            connection.exchanges.discard(self)
            if not concluded and not self.released.is_set():
                connection.tear(self._stream.stream_id)
            self._release()

    async def _log(self, error: BaseException) -> None:
        hint = ""
        if isinstance(error, RuntimeError) and any(text in str(error) for text in ASYNCIO):
            hint = ": it needs asyncio, and is run by trio"
        await self._connection.config.log.exception(f"Error in the application{hint}")

    async def _conclude(self) -> None:
        if self._disconnected and self._connection.is_gone:
            return
        if self.incomplete:
            await self._connection.break_off(self._stream.stream_id, self._asgi_scope)
        await self._app_send(None)

    def _release(self) -> None:
        self.released.set()
        if self._farewell is not None:
            self._inbox.end(self._farewell)
        self._connection.released()

    async def _send(self, message: dict[str, Any]) -> None:
        connection = self._connection
        if self._disconnected or connection.discards_output:
            # What is sent may be dropped, and the application may not know yet: let others run.
            await trio.lowlevel.checkpoint()
            if self.is_websocket:
                return
        if not self._corks:
            await self._app_send(message)
            if connection.stopping and message["type"] == "websocket.accept":
                connection.spawn(self.go_away)
        else:
            if connection.stopping and message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
                connection.announced_end = True
            # A piece of the body, its end and all that follows from them go out in one call.
            connection.cork()
            try:
                await self._app_send(message)
            finally:
                await connection.uncork()
        if self.answered:
            self._release()
        elif self._disconnected and not connection.is_gone:
            # The client may only have closed its direction, and still read the response.
            scope = self._cancel_scope
            scope.deadline = min(
                connection.stops_at, trio.current_time() + connection.graceful_timeout
            )
