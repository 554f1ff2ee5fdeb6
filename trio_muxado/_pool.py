"""A pool of sessions: opens streams on any that is alive, while sessions come and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio

from ._backoff import Backoff
from ._blame import code_for, is_safe_to_retry
from ._checks import check_awaitable, check_function, check_instance
from ._errors import CloseReason, MuxadoError
from ._nursery import leaves, open_bare_nursery
from ._protocol.checks import check_int, check_opening
from ._protocol.errors import ErrorCode
from ._session import MuxadoSession
from ._stream import MuxadoStream

T = TypeVar("T")

ATTEMPTS = 5
"""How often work is tried, the first time included, unless it is said."""

_PAUSES = Backoff(first=0.05, factor=2, longest=1)
"""Between attempts from the second to the third on: a peer that refuses for want of slots needs a
moment."""

CLOSED = "the pool has been closed, and no session lives"

_PATIENCE = 1.0
"""Seconds in which a stream says whether it broke, which it does at once."""


class SessionPool:
    """Opens streams on any of its sessions that is alive, and waits while there is none.

    It neither makes sessions nor ends them.  They come from

    * ``dial_muxado(pool.hold, host, port)``: one session, for as long as it is dialled, and
    * ``serve_muxado(handle_session, port, on_session=pool.on_session)``: each that a client makes.

    Streams go to the sessions in turn.  A session that can't open streams any more is skipped.
    """

    def __init__(self) -> None:
        self._sessions: dict[MuxadoSession, None] = {}  # the one that is due next comes first
        self._changed = trio.Event()
        self._closed = False

    @property
    def sessions(self) -> tuple[MuxadoSession, ...]:
        """The pool's sessions that can open streams now."""
        return tuple(session for session in self._sessions if session.can_open)

    # ---- sessions come and go

    def add(self, session: MuxadoSession) -> None:
        """Open streams on ``session`` as well, until it is discarded or can't open any more.

        Raises:
          TypeError: it is not a :class:`MuxadoSession`.
        """
        check_instance("session", session, MuxadoSession, "a MuxadoSession")
        self._sessions[session] = None
        self._wake()

    def discard(self, session: MuxadoSession) -> None:
        """Open no further streams on ``session``; running ones go on.

        Raises:
          TypeError: it is not a :class:`MuxadoSession`.
        """
        check_instance("session", session, MuxadoSession, "a MuxadoSession")
        self._sessions.pop(session, None)
        self._wake()

    async def hold(self, session: MuxadoSession) -> None:
        """Keep ``session`` in the pool until it has ended: a handler for :func:`dial_muxado`."""
        self.add(session)
        try:
            await session.wait_closed()
        finally:
            self.discard(session)

    def on_session(self, session: MuxadoSession, reason: CloseReason | None) -> None:
        """Add ``session``, or discard it if ``reason`` says that it is over.

        A hook for :func:`serve_muxado`.
        """
        if reason is not None:
            check_instance("reason", reason, CloseReason, "a CloseReason or None")
        if reason is None:
            self.add(session)
        else:
            self.discard(session)

    def close(self) -> None:
        """Wait for no session any more: such calls raise :exc:`trio.ClosedResourceError`.

        Sessions that are alive go on, and can open streams.
        """
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ---- streams

    async def open_stream(self, *, type: int = 0, priority: int = 0) -> MuxadoStream:
        """Open a stream on a session that is alive, as :meth:`MuxadoSession.open_stream` does.

        Waits while there is no session, and while all have as many streams as they may.  When it
        is cancelled, no stream has been opened.

        Raises:
          trio.ClosedResourceError: the pool has been closed, and no session lives.
          TypeError, ValueError: as of :meth:`MuxadoSession.open_stream`.
        """
        check_opening(type, priority)
        await trio.lowlevel.checkpoint()
        while (stream := self._open_now(type, priority)) is None:
            if self._closed and not self.sessions:
                raise trio.ClosedResourceError(CLOSED)
            stream = await self._wait_for_a_slot(type, priority)
            if stream is not None:
                return stream
        return stream

    def open_stream_nowait(self, *, type: int = 0, priority: int = 0) -> MuxadoStream:
        """Like :meth:`open_stream`, but raises :exc:`trio.WouldBlock` instead of waiting."""
        stream = self._open_now(type, priority)  # which checks them, where there is a session
        if stream is not None:
            return stream
        check_opening(type, priority)
        if self._closed and not self.sessions:
            raise trio.ClosedResourceError(CLOSED)
        raise trio.WouldBlock

    def _open_now(self, type: int, priority: int) -> MuxadoStream | None:
        for session in self.sessions:
            with suppress(trio.WouldBlock):
                stream = session.open_stream_nowait(type=type, priority=priority)
                # It comes last from now on.
                self._sessions[session] = self._sessions.pop(session)
                return stream
        return None

    async def _wait_for_a_slot(self, type: int, priority: int) -> MuxadoStream | None:
        """Wait for a slot on any session, and open a stream there; None if sessions changed."""
        opened: list[MuxadoStream] = []
        changed = self._changed

        async def open_on(session: MuxadoSession) -> None:
            with suppress(MuxadoError):  # another may still open one, also one to come
                opened.append(await session.open_stream(type=type, priority=priority))
            nursery.cancel()

        async def watch() -> None:
            await changed.wait()
            nursery.cancel()

        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(watch)
                for session in self.sessions:
                    nursery.start_soon(open_on, session)
        except BaseException:
            await _reset(opened)
            raise
        # Two sessions may have had a slot at the same moment.
        await _reset(opened[1:])
        return opened[0] if opened else None

    async def request(
        self,
        work: Callable[[MuxadoStream], Awaitable[T]],
        *,
        type: int = 0,
        priority: int = 0,
        attempts: int = ATTEMPTS,
    ) -> T:
        """Open a stream, and return what ``work(stream)`` returns; the stream is closed then.

        If ``work`` fails because its stream ended, and that is ``safe_to_retry``, it runs again on
        another stream, perhaps of another session: the peer has certainly not processed it.  So
        ``work`` must be able to start again.  Any other error is raised unchanged, and so is that
        of the last attempt.

        When ``work`` raises, its stream is reset: with STREAM_CANCELLED if it was cancelled, else
        with INTERNAL_ERROR.

        Args:
          work: an async function of a stream.
          type, priority: of the stream, as in :meth:`MuxadoSession.open_stream`.
          attempts: how often to try, the first time included.

        Raises:
          trio.ClosedResourceError: the pool has been closed, and no session lives.
          TypeError, ValueError: a wrong argument, or ``work`` is not an async function, which
            shows when it is called.
        """
        check_function("work", work)
        check_opening(type, priority)
        check_int("attempts", attempts, 1)
        for attempt in range(1, attempts + 1):
            stream = await self.open_stream(type=type, priority=priority)
            try:
                result: T = await check_awaitable("work", work, work(stream))
            except BaseException as error:
                again = attempt < attempts and await _is_safe_to_retry(stream, error)
                await _reset([stream], code_for(error))
                if not again:
                    raise
            else:
                await stream.aclose()
                return result
            if attempt > 1:
                await trio.sleep(_PAUSES.pause(attempt - 1))
        raise AssertionError("unreachable")


async def _reset(streams: list[MuxadoStream], code: ErrorCode = ErrorCode.STREAM_CANCELLED) -> None:
    with trio.CancelScope(shield=True):
        for stream in streams:
            await stream.reset(code)


async def _is_safe_to_retry(stream: MuxadoStream, error: BaseException) -> bool:
    """Whether ``work`` failed for nothing but an end of its stream that is safe to retry.

    What it raised may be of another stream, which its own peer knows nothing of: so the stream is
    asked as well.
    """
    if not all(is_safe_to_retry(leaf) for leaf in leaves(error)):
        return False
    with trio.move_on_after(_PATIENCE, shield=True):
        try:
            await stream.wait_send_all_might_not_block()
        except MuxadoError as own:
            return is_safe_to_retry(own)
    return False
