"""A nursery whose errors come out as they are, not in an exception group.

trio wraps whatever leaves a nursery in an ExceptionGroup, also when there is just one error.
That is right for nurseries that a user opens, and a surprise from those that a library opens
out of sight.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from sys import intern
from typing import Any, NoReturn, cast

import trio
from trio.lowlevel import enable_ki_protection

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

logger = logging.getLogger("trio_muxado")


class BareNursery:
    """Like :class:`trio.Nursery`, but one error is raised as itself.

    What the body raised comes out as the same object, with its cause and context; the tasks are
    cancelled then.  Where several tasks failed at once, and only there, it is a group.
    """

    # No generator with a decorator: trio keeps a list of those, and each session has three.
    __slots__ = ("_failures", "_manager", "inner")

    inner: trio.Nursery

    # An interrupt between these and trio's nursery would leave that open: they are protected as
    # trio's own are, and it comes when the task waits.
    @enable_ki_protection
    async def __aenter__(self) -> BareNursery:
        self._failures: tuple[BaseException, ...] = ()
        self._manager = trio.open_nursery()
        self.inner = await self._manager.__aenter__()
        return self

    @enable_ki_protection
    async def __aexit__(
        self, kind: object, raised: BaseException | None, traceback: object
    ) -> None:
        if raised is not None:
            self.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            # The body and the guarded tasks let nothing out.  It is a KeyboardInterrupt, which came
            # while the nursery waited for them; or trio has started a task here, as
            # ``serve_listeners`` does, and that was cancelled.  Then it comes again below, unless a
            # task has failed, whose error it would put into a group.
            rest = without_cancelled(group)
            if rest is not None:
                self._failures += cast("BaseExceptionGroup[BaseException]", rest).exceptions
        failures = self._failures
        rest = None if raised is None else without_cancelled(raised)
        if raised is not None and (rest is not None or not failures):
            for failure in failures:  # which would be lost otherwise
                logger.error("a task failed while another error was raised", exc_info=failure)
            if rest is not None and rest is not raised and not _is_cancelled():
                # The cancellation in the user's group was this nursery's: nobody else catches it.
                raise_unchanged(rest)
            return  # what the body raised goes on
        if len(failures) == 1:
            raise_unchanged(failures[0])
        if failures:
            raise_unchanged(BaseExceptionGroup("several tasks failed at once", failures))
        # The tasks may have been cancelled from outside while the body waited for them here.
        await trio.lowlevel.checkpoint_if_cancelled()

    def start_soon(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run ``task(*args)`` in the nursery."""
        self.inner.start_soon(self.guard, task, *args)

    async def guard(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run ``task(*args)`` here; an error cancels the nursery, and is raised there as it is."""
        try:
            await task(*args)
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """A task ends with ``error``, and lets nothing out."""
        failure = without_cancelled(error)
        if failure is not None:
            self._failures += (failure,)
            self.cancel()

    def cancel(self) -> None:
        """Cancel the body and all tasks."""
        self.inner.cancel_scope.cancel()


def raise_unchanged(error: BaseException) -> NoReturn:
    """Raise what was raised elsewhere; its context stays, whatever is handled here."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context  # or the traceback would be part of a cycle


def _is_cancelled() -> bool:
    """The task is cancelled, by a scope outside."""
    return trio.current_effective_deadline() == -math.inf


def open_bare_nursery() -> BareNursery:
    """A :class:`BareNursery`, to be used by ``async with``."""
    return BareNursery()


def task_name(function: Callable[..., Any]) -> str:
    """What trio calls a task of ``function``, once for many tasks."""
    if isinstance(function, partial):
        function = function.func
    try:
        return intern(f"{function.__module__}.{function.__qualname__}")  # one for all sessions
    except AttributeError:
        return repr(function)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """``error`` itself, or where it is a group all that is in it, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for inner in group.exceptions:
            yield from leaves(inner)
    else:
        yield error


def failure_of(error: BaseException) -> Exception:
    """What a transport has raised, which may be anything; a cancellation is raised here.

    One that has a nursery may fail while it is cancelled, and raises both in a group.  Nobody waits
    for it any more then, so the failure is for the log alone.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        cancelled, rest = group.split(trio.Cancelled)
        failure = cast("BaseException | None", rest)
        if cancelled is not None and isinstance(failure, Exception):
            logger.debug("a transport failed while it was cancelled: %r", failure)
            raise cancelled
    raise error


def without_cancelled(error: BaseException) -> BaseException | None:
    """``error`` without the ``Cancelled`` in it; None when nothing else is left."""
    if isinstance(error, trio.Cancelled):
        return None
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        cancelled, rest = group.split(trio.Cancelled)
        return group if cancelled is None else rest
    return error
