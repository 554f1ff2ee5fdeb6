"""Visitors' connections: accepting them, who they are, and how many there may be."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import trio

from .. import ProxyHeaderError, break_stream, receive_proxy_header
from ._config import RelayConfig
from ._counts import RelayCounts
from ._listeners import close_listeners
from ._registry import shown_peer
from ._seldom import Seldom

logger = logging.getLogger("trio_muxado.tunnel")

GRACE = 1.0
"""Seconds that a relay that stops gives to what is on its way: a request, or a last answer."""

HEADER_TIMEOUT = 10.0
"""Seconds for what a visitor's connection begins with: a PROXY header, a TLS handshake.  Once the
relay stops, it is :data:`GRACE`."""

OVERLOADED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Nothing can be accepted before something has been closed."""

OVERLOAD_PAUSE = 0.1
"""Seconds until the next try."""

LAST = 4096
"""Connections that are accepted in the step that closes a port, at most: as many as Linux lets
wait in it by default."""


@dataclass(frozen=True)
class Visitor:
    """Who has connected, and to which address."""

    source: Any
    """Host and port, as a socket or a PROXY header says them; None where nobody knows."""
    destination: Any

    def __str__(self) -> str:
        return shown_peer(self.source)


class Arrivals:
    """Waits for what visitors' connections begin with, which a stop of the relay shortens."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._stopping = False

    @contextmanager
    def limit(self) -> Generator[None, None, None]:
        """Give the block so long.

        Raises:
          trio.TooSlowError: it took longer.
        """
        seconds = min(HEADER_TIMEOUT, GRACE) if self._stopping else HEADER_TIMEOUT
        with trio.fail_after(seconds) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def stop(self) -> None:
        """The relay stops: a silent visitor does not delay it."""
        self._stopping = True
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, trio.current_time() + GRACE)


async def visitor_of(tcp: trio.SocketStream, arrivals: Arrivals, *, has_header: bool) -> Visitor:
    """Who is at the other side of ``tcp``, or at that of the balancer whose header begins it.

    Raises:
      ProxyHeaderError: there should be a header, and there is none.
      trio.TooSlowError: it takes too long.
      trio.BrokenResourceError, OSError: the visitor has gone.
    """
    if has_header:
        with arrivals.limit():
            addresses = await receive_proxy_header(tcp)
        if addresses is not None:
            return Visitor(*addresses)
    return Visitor(tcp.socket.getpeername(), tcp.socket.getsockname())


class Slots:
    """How many visitors there may be at once, together and of each address."""

    def __init__(self, config: RelayConfig, counts: RelayCounts) -> None:
        self._most = config.max_visitors
        self._most_each = config.max_visitors_per_address
        self._counts = counts
        self._taken: Counter[str] = Counter()
        self._total = 0
        self._log = Seldom()

    @contextmanager
    def slot(self, visitor: Visitor) -> Generator[bool, None, None]:
        """Take a slot for the block; gives False, and takes none, where there is none left."""
        key = slot_key(visitor.source)
        if self._total >= self._most or self._taken[key] >= self._most_each:
            self._counts.refused["visitor"] += 1
            if self._log.is_due():
                logger.warning(
                    "too many visitors: %s is turned away", visitor, extra={"visitor": str(visitor)}
                )
            yield False
            return
        self._total += 1
        self._taken[key] += 1
        try:
            yield True
        finally:
            self._total -= 1
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


def slot_key(source: Any) -> str:
    """Whose slots a visitor takes: its address's, or its network's where it has many of them."""
    try:
        return _slot_key(str(source[0]))
    except (TypeError, IndexError, ValueError):
        return "unknown"


@lru_cache(maxsize=1024)
def _slot_key(host: str) -> str:
    ip = ip_address(host.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ip_network((ip, 64), strict=False))
    return str(ip)


class Porter:
    """Accepts visitors on any number of listeners until it is stopped, and waits for the last.

    A visitor's handler never ends the relay: what it raises, a bug, is logged.
    """

    def __init__(self) -> None:
        self.stop = trio.Event()
        """No more visitors, but for those that wait to be accepted."""
        self._running = 0
        self._listening = 0
        self._changed = trio.Event()
        self._log = Seldom()

    async def serve(
        self,
        listeners: list[trio.SocketListener],
        handler: Callable[[trio.SocketStream], Awaitable[Any]],
        nursery: trio.Nursery,
        until: trio.CancelScope | None = None,
    ) -> None:
        """Accept from all of ``listeners``, and run ``handler(tcp)`` in ``nursery``."""
        self._listening += 1
        try:
            with trio.CancelScope() if until is None else until:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, handler, nursery)
        finally:
            self._listening -= 1
            self._change()
            close_listeners(listeners)

    async def wait_until_empty(self) -> None:
        """Wait until nothing listens any more and no visitor is left."""
        while self._running or self._listening:
            await self._changed.wait()

    def _change(self) -> None:
        if self.stop.is_set():  # before, nobody waits
            self._changed.set()
            self._changed = trio.Event()

    async def _accept(
        self,
        listener: trio.SocketListener,
        handler: Callable[[trio.SocketStream], Awaitable[Any]],
        nursery: trio.Nursery,
    ) -> None:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(self._accept_all, listener, handler, nursery)
            await self.stop.wait()
            accepting.cancel_scope.cancel()
        # A port that is closed resets what waits in it, with the request that came along.
        for tcp in _accept_and_close(listener):
            nursery.start_soon(self._handle, handler, tcp)

    async def _accept_all(
        self,
        listener: trio.SocketListener,
        handler: Callable[[trio.SocketStream], Awaitable[Any]],
        nursery: trio.Nursery,
    ) -> None:
        """What ``trio.serve_listeners`` does, but for its close of each connection by way of a
        cancelled scope.  Here the handler has closed it, or it is broken."""
        while True:
            try:
                tcp = await listener.accept()
            except OSError as error:
                if error.errno not in OVERLOADED:
                    raise
                if self._log.is_due():
                    name, why = errno.errorcode[error.errno], os.strerror(error.errno)
                    logger.error("accept returned %s (%s): visitors wait", name, why)
                await trio.sleep(OVERLOAD_PAUSE)
            else:
                nursery.start_soon(self._handle, handler, tcp)

    async def _handle(
        self, handler: Callable[[trio.SocketStream], Awaitable[Any]], tcp: trio.SocketStream
    ) -> None:
        self._running += 1
        try:
            await handler(tcp)
        except Exception:
            logger.exception("a visitor's handler failed")
        finally:
            self._running -= 1
            self._change()
            if tcp.socket.fileno() >= 0:  # a close would look like the end of an answer
                await break_stream(tcp)


GONE = (ProxyHeaderError, trio.BrokenResourceError, trio.TooSlowError, OSError)
"""What :func:`visitor_of` raises of visitors that say nothing, or nonsense."""


def _accept_and_close(listener: trio.SocketListener) -> Iterator[trio.SocketStream]:
    """What waits in a port; then the port is closed, before anything more can come to wait.

    It needs no further descriptor: there may be none.
    """
    port = listener.socket
    with socket.socket(port.family, port.type, port.proto, port.detach()) as listening:
        listening.setblocking(False)
        for _ in range(LAST):
            try:
                sock, _ = listening.accept()
            except OSError:  # mostly BlockingIOError: nothing waits
                return
            yield trio.SocketStream(trio.socket.from_stdlib_socket(sock))
