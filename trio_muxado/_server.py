"""A server of sessions: it accepts connections, runs a handler for each, and stops gently."""

from __future__ import annotations

import errno
import logging
import math
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

import trio

from ._blame import is_end_of_session
from ._checks import check_awaitable
from ._config import MuxadoConfig
from ._connect import SessionManager
from ._errors import CloseReason, MuxadoError, StreamResetError
from ._nursery import BareNursery, leaves, open_bare_nursery, without_cancelled
from ._patience import run_until_any, run_while_running, sleep_while_running
from ._protocol.budget import ServerBudget
from ._protocol.checks import check_int, check_number
from ._session import MuxadoSession, engine_of
from ._transport.closing import close_at_once
from ._transport.peer import describe, peer_address

logger = logging.getLogger("trio_muxado")

GRACE = 1.0
"""Seconds that a client which has said nothing yet, or is in its TLS handshake, gets when the
server is asked to stop: a request that is on its way needs half a round trip, or a little more if
it was lost.  No longer does it accept what waits in its listeners."""

ACCEPTING_TURNS = 5
"""Passes of trio's loop without a new connection, after which none waits to be accepted: a listener
needs one to wake, one for each connection, and the task that handles it one to begin."""

ASSUMED_WAITING = 128
"""Connections that may wait in a listener that can't be asked how many do."""

LOG_INTERVAL = 1.0
"""Seconds between two lines that say the same: that no more clients are taken."""

OVERLOADED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
"""Errors of a listener by which the system says that it lacks something."""

OVERLOAD_PAUSE = 0.1
"""Seconds after which it is tried again."""

_TCP_INFO_UNACKED = struct.Struct("24xI")
"""In Linux' ``tcp_info``.  Of a socket that listens it is how many connections wait in it."""

SessionHook: TypeAlias = Callable[[MuxadoSession, "CloseReason | None"], object]

ListenerT = TypeVar("ListenerT", bound="trio.abc.Listener[Any]")


def check_limits(
    stop_timeout: object,
    max_sessions: object,
    first_stream_timeout: object,
    receive_budget: object,
) -> None:
    """Raise TypeError or ValueError for a limit that is none."""
    for name, seconds in (
        ("stop_timeout", stop_timeout),
        ("first_stream_timeout", first_stream_timeout),
    ):
        if seconds is not None:
            check_number(name, seconds)
    if max_sessions is not None:
        check_int("max_sessions", max_sessions, 1)
    if receive_budget is not None:
        check_int("receive_budget", receive_budget, 1)


class Server:
    """What one call of :func:`serve_muxado` does; there is what the arguments are."""

    def __init__(
        self,
        handle_session: Callable[[MuxadoSession], Awaitable[Any]],
        *,
        config: MuxadoConfig,
        stop: trio.Event | None,
        stop_timeout: float | None,
        on_session: SessionHook | None,
        max_sessions: int | None,
        first_stream_timeout: float | None,
        receive_budget: int | None,
    ) -> None:
        self._handle_session = handle_session
        self._config = config
        self._stop = stop
        self._stop_timeout = stop_timeout
        self._on_session = on_session
        self._max_sessions = math.inf if max_sessions is None else max_sessions
        self._first_stream_timeout = first_stream_timeout
        self._budget = None if receive_budget is None else ServerBudget(receive_budget)
        self._accepted = 0  # connections so far
        self._live = 0  # clients that are connected
        self._logged_at: dict[str, float] = {}  # by the message

    async def run(
        self, listeners: list[ListenerT], task_status: trio.TaskStatus[list[ListenerT]]
    ) -> None:
        """Serve until cancelled or stopped."""
        async with open_bare_nursery() as watchers:
            async with open_bare_nursery() as handlers:
                with trio.CancelScope() as listening:
                    if self._stop is not None:
                        watchers.start_soon(self._stop_listening, self._stop, listeners, listening)
                        watchers.start_soon(self._give_up, self._stop, handlers)
                    await self._listen(listeners, handlers, task_status)
            watchers.cancel()

    async def _listen(
        self,
        listeners: list[ListenerT],
        handlers: BareNursery,
        task_status: trio.TaskStatus[list[ListenerT]],
    ) -> None:
        # Not ``trio.serve_listeners``: it closes what each handler has closed once more, with two
        # cancel scopes and a pass of the loop, which is a twentieth of a short session.
        async with open_bare_nursery() as accepting:
            for listener in listeners:
                accepting.start_soon(self._accept_on, listener, handlers)
            task_status.started(listeners)

    async def _accept_on(
        self, listener: trio.abc.Listener[trio.abc.Stream], handlers: BareNursery
    ) -> None:
        start_soon = handlers.inner.start_soon
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in OVERLOADED:
                        raise
                    self._log(logging.ERROR, "no client can be accepted: %s", error)
                    await trio.sleep(OVERLOAD_PAUSE)
                else:
                    start_soon(self._handle_connection, handlers, stream)

    async def _stop_listening(
        self, stop: trio.Event, listeners: list[ListenerT], listening: trio.CancelScope
    ) -> None:
        await stop.wait()
        # A listener that closes resets what waits in it, with the request that came along.  What
        # comes from now on is not waited for: others could keep the server going.
        last = self._accepted + sum(map(_waiting_in, listeners))
        await run_while_running(GRACE, partial(self._accept_what_waits, last))
        listening.cancel()

    async def _accept_what_waits(self, last: int) -> None:
        before = -1
        while before < self._accepted < last:
            before = self._accepted
            for _ in range(ACCEPTING_TURNS):
                await trio.lowlevel.checkpoint()

    async def _give_up(self, stop: trio.Event, handlers: BareNursery) -> None:
        await stop.wait()
        if self._stop_timeout is not None:
            await sleep_while_running(self._stop_timeout)
            handlers.cancel()

    # ---- a connection

    async def _handle_connection(self, handlers: BareNursery, stream: trio.abc.Stream) -> None:
        self._accepted += 1
        if self._live >= self._max_sessions:
            message = "more than %d clients: the next are disconnected"
            self._log(logging.INFO, message, self._max_sessions)
            await close_at_once(stream)
            return
        self._live += 1
        # As ``handlers`` guards its tasks, but for a coroutine less in each.
        try:
            if await self._shake_hands(stream):
                await self._run_session(stream)
        except BaseException as error:
            handlers.fail(error)
        finally:
            self._live -= 1
            await close_at_once(stream)

    def _log(self, level: int, message: str, what: object) -> None:
        """Log what may happen with each client, but not each time."""
        now = trio.current_time()
        if now - self._logged_at.get(message, -math.inf) >= LOG_INTERVAL:
            self._logged_at[message] = now
            logger.log(level, message, what)

    async def _run_session(self, stream: trio.abc.Stream) -> None:
        session: MuxadoSession | None = None
        try:
            async with SessionManager(
                stream,
                client=False,
                config=self._config,
                first_stream_timeout=self._first_stream_timeout,
                server_budget=self._budget,
            ) as session:
                if self._on_session is not None:
                    self._on_session(session, None)
                if self._stop is None:
                    await self._handle(session)
                else:
                    async with open_bare_nursery() as nursery:
                        draining = trio.CancelScope()
                        nursery.start_soon(_drain_when, self._stop, session, draining)
                        await self._handle(session)
                        draining.cancel()
        except BaseException as error:
            rest = without_cancelled(error)  # the server may be stopped in the same moment
            if rest is None or session is None:
                raise
            if not is_end_of_session(rest, engine_of(session).ending):
                raise
            # The session's end is logged where it is found out.
            if any(isinstance(leaf, StreamResetError) for leaf in leaves(rest)):
                logger.debug("the handler of %r ended with a stream: %r", session, error)
        finally:
            if session is not None:
                if self._budget is not None:
                    self._budget.leave(engine_of(session).connection.streams.budget)
                if self._on_session is not None:
                    self._on_session(session, session.close_reason)

    def _handle(self, session: MuxadoSession) -> Awaitable[Any]:
        handler = self._handle_session
        return check_awaitable("handle_session", handler, handler(session))

    async def _shake_hands(self, stream: trio.abc.Stream) -> bool:
        """TLS only: a client that never finishes its handshake must not keep a task forever."""
        do_handshake = getattr(stream, "do_handshake", None)
        if do_handshake is None:
            return True
        limits = [partial(sleep_while_running, self._config.handshake_timeout)]
        if self._stop is not None:
            limits.append(partial(_sleep_after, self._stop, GRACE))
        why: BaseException = trio.TooSlowError("it took too long")
        try:
            if await run_until_any(do_handshake, *limits):
                return True
        except Exception as error:  # a listener's streams can be of any kind, and raise anything
            why = error.__cause__ or error
        logger.info(
            "the TLS handshake with %s failed: %r", describe(stream, peer_address(stream)), why
        )
        await close_at_once(stream)
        return False


async def _sleep_after(event: trio.Event, seconds: float) -> None:
    await event.wait()
    await sleep_while_running(seconds)


async def _drain_when(stop: trio.Event, session: MuxadoSession, draining: trio.CancelScope) -> None:
    # Nothing public waits for that: users wait in the call that needs it.
    wire_known = engine_of(session).wire_known
    with draining:
        await stop.wait()
        # Before a client's first bytes nothing can be said to it, and they may be here already.
        if await run_while_running(GRACE, wire_known.wait):
            with suppress(MuxadoError):  # when it breaks, the handler learns that by itself
                await session.drain()
        else:
            await trio.aclose_forcefully(session)
    # Outside: a handler that is done must not cut short the last words of its session.
    await session.aclose()


def _waiting_in(listener: trio.abc.Listener[Any]) -> int:
    """Connections that wait to be accepted, as far as the system says; else as many as may."""
    lowest: Any = getattr(listener, "transport_listener", listener)
    if sys.platform != "linux" or not isinstance(lowest, trio.SocketListener):
        return ASSUMED_WAITING
    try:
        info = lowest.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_UNACKED.size)
    except OSError:  # of another family than TCP's
        return ASSUMED_WAITING
    return int(_TCP_INFO_UNACKED.unpack(info)[0])
