"""Tasks side by side, cancelled at any checkpoint, and counted."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio


async def together(*calls: Callable[[], Awaitable[Any]]) -> None:
    """Run all of them at once, and wait for all."""
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


async def outcome_of(call: Callable[[], Awaitable[Any]]) -> Any:
    """What it returned, or the exception that it raised."""
    try:
        return await call()
    except Exception as error:
        return error


async def cancel_at_checkpoint(number: int, call: Callable[[], Awaitable[Any]]) -> bool:
    """Run ``call``, and cancel it when it reaches its checkpoint with this number (from 0).

    True when it was cancelled there, False when it was done before.
    """
    with trio.CancelScope() as scope:
        clock = _CheckpointClock(number, scope)
        trio.lowlevel.add_instrument(clock)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(clock)
    return scope.cancelled_caught


class Turns(trio.abc.Instrument):
    """Counts the turns that tasks get: all of them, or those whose name ends so."""

    def __init__(self, name: str = "") -> None:
        self.count = 0
        self._name = name

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name.endswith(self._name)


class CancelAtTurn(trio.abc.Instrument):
    """Cancels ``scope`` before the turn with this number (from 1), whichever task gets it."""

    def __init__(self, number: int, scope: trio.CancelScope) -> None:
        self._left = number
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if not self._left:
            self._scope.cancel()


class _CheckpointClock(trio.abc.Instrument):
    """Counts how often the task that made it is put aside, and cancels it at the given count."""

    def __init__(self, number: int, scope: trio.CancelScope) -> None:
        self._left = number
        self._scope = scope
        self._task = trio.lowlevel.current_task()
        if not number:
            scope.cancel()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._left:
            self._left -= 1
            if not self._left:
                self._scope.cancel()
