"""The server: hypercorn's protocols, on a stream for each connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from socket import AF_UNSPEC
from types import SimpleNamespace
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import LifespanFailureError

from .. import MuxadoSession, MuxadoStream


async def serve_asgi(
    app: Callable[..., Awaitable[Any]],
    session: MuxadoSession,
    *,
    config: Config | None = None,
    stop: trio.Event | None = None,
) -> None:
    """Serve an ASGI application to every stream that the session's peer opens.

    Returns when the session has been closed in good order from either end.  The application's
    lifespan is that of the call; where many sessions share one, use :func:`asgi_handler`, which
    also explains the arguments.

    Raises:
      SessionEndedError: the session broke; running requests were cancelled.
    """
    async with asgi_handler(app, config=config, stop=stop) as handle_stream:
        await session.serve_streams(handle_stream)


@asynccontextmanager
async def asgi_handler(
    app: Callable[..., Awaitable[Any]],
    *,
    config: Config | None = None,
    stop: trio.Event | None = None,
) -> AsyncGenerator[Callable[[MuxadoStream], Awaitable[None]], None]:
    """Start an ASGI application, and give what serves it to a stream.

    ``async with asgi_handler(app) as handle_stream``, and then
    ``session.serve_streams(handle_stream)`` for any number of sessions.  The application's
    lifespan is the block; where that is cancelled, so is the lifespan.

    Each stream is a connection of its own: HTTP/1.1 with keep-alive, WebSocket, or HTTP/2 where
    the client begins with it.  Whatever fails on one ends that stream and nothing else.  When the
    session is over, its running requests get ``http.disconnect``, and ``config.graceful_timeout``
    seconds later they are cancelled.

    Args:
      app: an ASGI 3 application that runs on trio.
      config: hypercorn's configuration; what says where to listen has no effect here.
      stop: once it is set, a connection ends with its next response, or at once when it is idle
        between two.  Give it to :func:`~trio_muxado.serve_muxado` as well, to drain the sessions.

    Raises:
      hypercorn.utils.LifespanFailureError: the application says that its startup or shutdown
        has failed.
      hypercorn.utils.LifespanTimeoutError: it took longer than the configuration allows.
    """
    server = _Server(app, Config() if config is None else config)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(server.lifespan.run)
            await server.lifespan.step(server.lifespan.wait_for_startup)
            if stop is not None:
                nursery.start_soon(server.stop_when, stop)
            try:
                yield server.handle_stream
            finally:
                await server.lifespan.step(server.lifespan.wait_for_shutdown)
        except BaseException as error:
            failure = error  # the nursery would put it into a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Lifespan(Lifespan):
    """hypercorn's, with failures that can be raised as they are."""

    def __init__(
        self, app: Callable[..., Awaitable[Any]], config: Config, state: dict[str, Any]
    ) -> None:
        async def call(
            scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any
        ) -> None:
            await app(scope, receive, send)

        super().__init__(call, config, state)
        self._failure: LifespanFailureError | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.handle_lifespan(task_status=task_status)
        except Exception:  # on its way through a framework it may have become a group
            if self._failure is None:
                raise

    async def asgi_send(self, message: Any) -> None:
        try:
            await super().asgi_send(message)
        except LifespanFailureError as failure:
            self._failure = failure
            raise

    async def step(self, wait: Callable[[], Awaitable[None]]) -> None:
        # An application may have no lifespan, and return at once.
        with suppress(trio.ClosedResourceError):
            await wait()
        if self._failure is not None:
            raise self._failure


class _Server:
    """An application, and the streams that it is served to."""

    def __init__(self, app: Callable[..., Awaitable[Any]], config: Config) -> None:
        self._app = app
        self._config = config
        self._state: dict[str, Any] = {}
        self._stopping = False
        self._begun: set[WorkerContext] = set()  # those that have taken a request
        self.lifespan = _Lifespan(app, config, self._state)

    async def stop_when(self, stop: trio.Event) -> None:
        await stop.wait()
        self._stopping = True
        for context in list(self._begun):
            await context.terminated.set()

    async def handle_stream(self, stream: MuxadoStream) -> None:
        # One for each stream: its `terminated` is how a connection is told that it won't go on.
        context = WorkerContext(None)
        served = False

        async def watch(scope: trio.CancelScope) -> None:
            try:
                await stream.session.wait_closed()
                await trio.sleep(self._config.graceful_timeout)
                scope.cancel()
            finally:
                if not served:
                    # Cancelled.  hypercorn sends behind a shield, and without window for ever.
                    await stream.reset()

        async with stream:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch, nursery.cancel_scope)
                    try:
                        await self._connection(stream, context).run()
                    finally:
                        served = True
                    nursery.cancel_scope.cancel()
            except Exception:
                # hypercorn has ended the stream on the way.
                await self._config.log.exception(f"Error in the HTTP connection on {stream!r}")
            finally:
                self._begun.discard(context)

    def _connection(self, stream: MuxadoStream, context: WorkerContext) -> TCPServer:
        async def call(
            scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any
        ) -> None:
            async def send_or_end(message: Any) -> None:
                if self._stopping and is_http1 and message["type"] == "http.response.start":
                    headers = [*message.get("headers", ()), (b"connection", b"close")]
                    message = {**message, "headers": headers}
                await send(message)

            is_http1 = scope["http_version"] in ("1.0", "1.1")
            if is_http1:
                self._begun.add(context)
            await self._app(scope, receive, send_or_end)

        connection: Any = _Connection(stream, context)
        state: Any = self._state.copy()
        return TCPServer(call, self._config, context, state, connection)


class _Connection:
    """A stream with what hypercorn wants of a connection, and no ``do_handshake``: that is TLS."""

    def __init__(self, stream: MuxadoStream, context: WorkerContext) -> None:
        self._stream = stream
        self._context = context
        self.send_all = stream.send_all
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        # The application is told the addresses of the session's ends, where there are any.
        transport: Any = stream.session.transport_stream
        below_tls: Any = getattr(transport, "transport_stream", transport)
        self.socket: Any = getattr(below_tls, "socket", _NO_SOCKET)

    async def receive_some(self, max_bytes: int) -> bytes:
        data = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        finally:
            if not data:
                # Otherwise what has ended lives on for all of `keep_alive_timeout`.
                await self._context.terminated.set()
        return data


_NO_SOCKET = SimpleNamespace(family=AF_UNSPEC, getpeername=lambda: None, getsockname=lambda: None)
