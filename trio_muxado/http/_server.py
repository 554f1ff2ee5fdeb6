"""The server: an ASGI application for the streams of sessions."""

from __future__ import annotations

import ssl
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, Literal

import trio
from hypercorn.config import Config
from hypercorn.utils import is_asgi

from .. import MuxadoSession, MuxadoStream
from ._bare import errors_bare, raise_unchanged
from ._checks import check_asgi, check_bool, check_instance, check_ssl_context, shown
from ._connection import Connection
from ._scope import Origin, origin_of
from ._service import App, Service


async def serve_asgi(
    app: App,
    session: MuxadoSession,
    *,
    config: Config | None = None,
    ssl_context: ssl.SSLContext | None = None,
    scheme: Literal["http", "https"] | None = None,
    proxy_protocol: bool = False,
    stop: trio.Event | None = None,
) -> None:
    """Serve an ASGI application to every stream that the session's peer opens.

    Returns when either side has closed the session cleanly.  The application's lifespan is that of
    the call; for many sessions that share an application use :func:`asgi_handler`, which also
    explains the arguments.

    Raises:
      SessionEndedError: the session broke; running requests were cancelled.
      TypeError, ValueError: a wrong argument; nothing has been started.
    """
    check_instance("session", session, MuxadoSession, "a MuxadoSession")
    async with asgi_handler(
        app,
        config=config,
        ssl_context=ssl_context,
        scheme=scheme,
        proxy_protocol=proxy_protocol,
        stop=stop,
    ) as handle_stream:
        await session.serve_streams(handle_stream)


@asynccontextmanager
async def asgi_handler(
    app: App,
    *,
    config: Config | None = None,
    ssl_context: ssl.SSLContext | None = None,
    scheme: Literal["http", "https"] | None = None,
    proxy_protocol: bool = False,
    stop: trio.Event | None = None,
) -> AsyncGenerator[Callable[[MuxadoStream], Awaitable[None]], None]:
    """Start an ASGI application, and yield a handler that serves it on a stream.

    ``async with asgi_handler(app) as handle_stream``, and then
    ``session.serve_streams(handle_stream)`` for any number of sessions.  The application's
    lifespan is the block: it is shut down however the block ends.  If the block was cancelled or
    has raised, the shutdown takes ``config.graceful_timeout`` seconds at most.

    Each stream is a connection of its own: HTTP/1.1 with keep-alive, WebSocket, or HTTP/2 if the
    client begins with it.  A failure on one ends that stream and nothing else.  Only what ends the
    program, such as Ctrl+C and ``sys.exit``, is raised, and not in a group.

    When a client has gone, its application receives ``http.disconnect`` or
    ``websocket.disconnect``, and is cancelled if it still runs ``config.graceful_timeout`` seconds
    later.  A client that has only closed its direction can still be answered: each piece of the
    response restarts the timeout.  What an application does after its complete response is not
    cancelled before the block ends.

    Args:
      app: an ASGI 3 application that runs on trio.
      config: hypercorn's configuration; its settings of where to listen have no effect here.
      ssl_context: put TLS on each stream, for clients whose TLS the peer passes on.
      scheme: the scheme in the application's scope, for TLS that ends at a proxy.  None means
        ``"https"`` with TLS on the stream or under the session, and ``"http"`` without.
      proxy_protocol: each stream begins with a header of the PROXY protocol, version 1 or 2,
        which gives the client's address.  A stream without one is reset.
      stop: once it is set, no further requests are accepted.  A connection ends with its running
        response, or at once when it is idle between two; a WebSocket is closed with 1001; what
        still runs ``config.graceful_timeout`` seconds later is cancelled.  A request that is on its
        way at that moment is refused, and is safe to retry.  Give the event to
        :func:`~trio_muxado.serve_muxado` as well, to drain the sessions.

    Raises:
      hypercorn.utils.LifespanFailureError: the application reports that its startup or shutdown
        has failed.
      hypercorn.utils.LifespanTimeoutError: its startup or shutdown took longer than the
        configuration allows.
      TypeError, ValueError: an argument is not what it should be; nothing has been started.
    """
    _check(app, config, ssl_context, scheme)
    check_bool("proxy_protocol", proxy_protocol)
    if stop is not None:
        check_instance("stop", stop, trio.Event, "a trio.Event")
    service = Service(
        app,
        Config() if config is None else config,
        ssl_context=ssl_context,
        scheme=scheme,
        proxy_protocol=proxy_protocol,
    )
    server = Server(service)
    failure: BaseException | None = None
    with errors_bare():
        async with trio.open_nursery() as service.nursery:
            service.nursery.start_soon(service.run_lifespan)
            try:
                await service.lifespan.start_up()
                if stop is not None:
                    service.nursery.start_soon(server.stop_when, stop)
                yield server.handle_stream
            except BaseException as error:
                failure = error  # the nursery would wrap it in a group
            try:
                await service.end(gracefully=failure is None)
            except BaseException as error:
                if failure is None:
                    failure = error
                else:
                    await service.config.log.exception("Error in the application's shutdown")
            service.nursery.cancel_scope.cancel()
    if service.fatal is not None:
        failure = service.fatal
    if failure is not None:
        raise_unchanged(failure)


def _check(app: Any, config: Any, ssl_context: Any, scheme: Any) -> None:
    """Reject wrong arguments, with advice where the right one is known."""
    bases = {base.__name__ for base in app.__class__.__mro__}
    if hasattr(app, "wsgi_app") and not is_asgi(app):
        raise TypeError(
            f"app is a WSGI application, {app!r}: wrap it in "
            "hypercorn.middleware.TrioWSGIMiddleware(app), which runs it in threads"
        )
    if "AsyncioWSGIMiddleware" in bases:
        raise TypeError("app needs asyncio: hypercorn.middleware.TrioWSGIMiddleware is for trio")
    if "Quart" in bases and "QuartTrio" not in bases:
        raise TypeError("app needs asyncio: quart_trio.QuartTrio is Quart for trio")
    check_asgi(app)
    if config is not None and not isinstance(config, Config):
        kind = f"{type(config).__module__}.{type(config).__qualname__}"
        raise TypeError(f"config must be a hypercorn.config.Config, not a {kind}")
    check_ssl_context(ssl_context, server=True)
    if scheme not in (None, "http", "https"):
        raise ValueError(f"scheme must be 'http' or 'https', not {shown(scheme)}")
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "trio_muxado runs on trio: under asyncio, run the session and its application in a "
            "thread, with trio.run"
        ) from None


class Server:
    """Makes a connection of each stream, and stops them all together."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connections: set[Connection] = set()
        self._origins: weakref.WeakKeyDictionary[MuxadoSession, Origin] = (
            weakref.WeakKeyDictionary()
        )

    async def handle_stream(self, stream: MuxadoStream) -> None:
        """Serve a stream."""
        origin = self._origins.get(stream.session)
        if origin is None:
            origin = self._origins[stream.session] = origin_of(stream.session)
        connection = Connection(self._service, stream, copy(origin))
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def stop_when(self, stop: trio.Event) -> None:
        """Stop once the event is set."""
        await stop.wait()
        await self._service.stop()
        for connection in self._connections:
            connection.stop()
