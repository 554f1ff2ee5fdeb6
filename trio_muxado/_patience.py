"""Timeouts for which only the time counts in which this process ran."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio

from ._keepalive import MOMENT
from ._nursery import open_bare_nursery
from ._transport.closing import close_at_once

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)


async def sleep_while_running(seconds: float) -> None:
    """Sleep; once more, if this process stood still meanwhile."""
    due = trio.current_time() + seconds
    await trio.sleep_until(due)
    if trio.current_time() - due > MOMENT:
        await trio.sleep(seconds)


async def run_while_running(seconds: float, work: Callable[[], Awaitable[Any]]) -> bool:
    """Run ``work()`` until it is done, or ``seconds`` in which this process ran are over.

    Returns whether the work was done.  What it raises is not put in an exception group.
    """
    return await run_until_any(work, partial(sleep_while_running, seconds))


async def connect_while_running(
    seconds: float,
    connect: Callable[[], Awaitable[StreamT]],
    drop: Callable[[StreamT], Awaitable[None]] = close_at_once,
) -> StreamT:
    """Return what ``connect()`` returns, within ``seconds`` in which this process ran.

    When it is cancelled, nothing is left open: what there is by then, ``drop(stream)`` closes.

    Raises:
      trio.TooSlowError: it took longer.
    """
    stream: StreamT | None = None

    async def work() -> None:
        nonlocal stream
        stream = await connect()

    try:
        await run_while_running(seconds, work)
    except BaseException:
        if stream is not None:
            await drop(stream)
        raise
    if stream is None:
        raise trio.TooSlowError("no connection in time")
    return stream


async def run_until_any(
    work: Callable[[], Awaitable[Any]], *limits: Callable[[], Awaitable[Any]]
) -> bool:
    """Run ``work()`` until it is done, or one of ``limits`` is, which cancels it.

    Returns whether the work was done.  What it raises is not put in an exception group.
    """
    done = False
    async with open_bare_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def watch(limit: Callable[[], Awaitable[Any]]) -> None:
                await limit()
                scope.cancel()

            for limit in limits:
                nursery.start_soon(watch, limit)
            await work()
            done = True
        nursery.cancel()
    return done
