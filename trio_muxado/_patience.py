"""Timeouts for which only the time counts in which this process ran."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ._keepalive import MOMENT
from ._nursery import open_bare_nursery


async def sleep_while_running(seconds: float) -> None:
    """Sleep; once more, if this process stood still meanwhile."""
    due = trio.current_time() + seconds
    await trio.sleep_until(due)
    if trio.current_time() - due > MOMENT:
        await trio.sleep(seconds)


async def run_until_any(
    work: Callable[[], Awaitable[Any]], *limits: Callable[[], Awaitable[Any]]
) -> bool:
    """Run ``work()`` until it is done, or one of ``limits`` is, which cancels it.

    Returns whether the work was done.  What it raises comes out bare.
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
