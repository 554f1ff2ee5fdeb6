"""What an agent serves: a service at an address, or an application in this process."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import trio

from .. import (
    ErrorCode,
    MuxadoStream,
    break_stream,
    connect_tcp,
    forward,
    proxy_header,
    receive_proxy_header,
)
from ._control import HELLO_TIMEOUT, READY
from ._names import check_address, check_port, shown

logger = logging.getLogger("trio_muxado.tunnel")

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection to the service."""

Handle = Callable[[MuxadoStream], Awaitable[None]]


class Service(ABC):
    """Something that visitors' connections end at."""

    @abstractmethod
    def handler(
        self, idle_timeout: float, stop: trio.Event | None
    ) -> Any:  # an async context manager of a Handle
        """``async with`` it for what handles each stream, for as long as the block."""


@dataclass(frozen=True)
class AddressService(Service):
    """A service that listens.  The agent makes a connection to it for each visitor.

    Attributes:
      host: a name or an address; if ``port`` is None, the path of a Unix socket.
      port: the TCP port, or None.
      proxy_protocol: begin each connection with a header of the PROXY protocol that has the
        visitor's address, of version ``"v1"`` or ``"v2"``.

    Raises:
      TypeError, ValueError: a field is not what it should be; the message begins with its name.
    """

    host: str
    port: int | None = None
    proxy_protocol: Literal["v1", "v2"] | None = None

    def __post_init__(self) -> None:
        if self.port is not None:
            check_address("host", self.host)
            check_port("port", self.port)
        elif not isinstance(self.host, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"host must be a str, not {shown(self.host)}")
        elif not self.host:
            raise ValueError("host must not be empty")
        if self.proxy_protocol not in (None, "v1", "v2"):
            wrong = shown(self.proxy_protocol)
            raise ValueError(f"proxy_protocol must be 'v1', 'v2' or None, not {wrong}")

    def __str__(self) -> str:
        return f"unix:{self.host}" if self.port is None else f"{self.host}:{self.port}"

    @asynccontextmanager
    async def handler(
        self, idle_timeout: float, stop: trio.Event | None
    ) -> AsyncGenerator[Handle, None]:
        """What connects each stream to the service."""
        yield partial(self._handle, idle_timeout)

    async def _handle(self, idle_timeout: float, stream: MuxadoStream) -> None:
        addresses = None
        with trio.move_on_after(HELLO_TIMEOUT) as waiting:
            addresses = await receive_proxy_header(stream)
        if waiting.cancelled_caught:
            raise trio.TooSlowError(f"no PROXY header within {HELLO_TIMEOUT:g} s")
        connection: trio.SocketStream | None = None
        failure: Exception = trio.TooSlowError(f"no answer within {CONNECT_TIMEOUT:g} s")
        with trio.move_on_after(CONNECT_TIMEOUT):
            try:
                connection = await self._connect()
            except OSError as error:
                failure = error
        if connection is None:
            logger.warning("no connection to %s: %s", self, failure)
            await stream.reset(ErrorCode.STREAM_REFUSED)
            return
        try:
            if self.proxy_protocol is not None:
                source, destination = addresses or (None, None)
                header = proxy_header(self.proxy_protocol, source, destination)
                await connection.send_all(header)
            await stream.send_all(READY)
        except BaseException as error:
            await break_stream(connection)
            if isinstance(error, (trio.BrokenResourceError, OSError)):
                await stream.reset(ErrorCode.STREAM_REFUSED)
                return
            raise
        done = await forward(connection, stream, idle_timeout=idle_timeout)
        if logger.isEnabledFor(logging.DEBUG):
            visitor = "unknown" if addresses is None else str(addresses[0][0])
            logger.debug("a visitor %s of %s: %s", visitor, self, done)

    async def _connect(self) -> trio.SocketStream:
        if self.port is None:
            return await trio.open_unix_socket(self.host)
        return await connect_tcp(self.host, self.port)


@dataclass(frozen=True)
class AsgiService(Service):
    """An ASGI application in this process, which needs no port at all.

    Needs the extra: ``pip install 'trio_muxado[http]'``.

    Attributes:
      app: an ASGI 3 application that runs on trio.
      config: hypercorn's configuration; requests have its ``graceful_timeout`` seconds to finish
        when the agent stops.

    Raises:
      TypeError: ``app`` is not an ASGI application.
    """

    app: Any
    config: Any = None

    def __post_init__(self) -> None:
        if not callable(self.app):
            raise TypeError(f"app must be an ASGI application, not {shown(self.app)}")
        if hasattr(self.app, "wsgi_app") and not inspect.iscoroutinefunction(
            type(self.app).__call__
        ):
            raise TypeError(
                f"app is a WSGI application, {shown(self.app)}: wrap it in "
                "hypercorn.middleware.TrioWSGIMiddleware(app), which runs it in threads"
            )
        try:
            inspect.signature(self.app).bind("scope", "receive", "send")
        except ValueError:  # of some that are written in C nobody knows
            pass
        except TypeError:
            raise TypeError(
                "app must be an ASGI application, which is called with three arguments, "
                f"not {shown(self.app)}"
            ) from None

    def __str__(self) -> str:
        return getattr(self.app, "__name__", None) or type(self.app).__name__

    @asynccontextmanager
    async def handler(
        self, idle_timeout: float, stop: trio.Event | None
    ) -> AsyncGenerator[Handle, None]:
        """What serves the application on each stream; its lifespan is the block."""
        from ..http import asgi_handler

        app = partial(_with_the_visitors_scheme, self.app)
        async with asgi_handler(
            app, config=self.config, proxy_protocol=True, stop=stop
        ) as handle_stream:

            async def handle(stream: MuxadoStream) -> None:
                await stream.send_all(READY)
                await handle_stream(stream)

            yield handle


SECURE = {"http": "https", "ws": "wss"}


async def _with_the_visitors_scheme(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Call an application that hears whether its visitor uses TLS, which ends at the relay."""
    said = [value for name, value in scope.get("headers", ()) if name == b"x-forwarded-proto"]
    if said and said[-1] == b"https":
        scope["scheme"] = SECURE.get(scope["scheme"], scope["scheme"])
    await app(scope, receive, send)
