"""A trio loop that a synchronous program drives, an action at a time."""

from __future__ import annotations

import math
import queue
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio
from trio.testing import MockClock

TOO_LONG = 120.0
"""Seconds of the real clock after which an action hangs; none takes more than a few."""

Action = Callable[[], Awaitable[Any]]


class Loop:
    """A trio loop with a mocked clock: it and its time stand still between two actions.

    That is trio's guest mode, with this program's thread as the host.
    """

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended: outcome.Outcome[None] | None = None
        self._result: outcome.Outcome[Any] | None = None
        self._clock = MockClock()
        self.nursery: trio.Nursery
        """For tasks that go on from one action to the next; ``close`` cancels them."""
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._due.put,
            done_callback=self._done,
            clock=self._clock,
        )
        self._wait_for(lambda: hasattr(self, "nursery"))

    def run(self, action: Action) -> Any:
        """Do something in the loop, and return or raise what comes of it.

        Only while it runs time leaps from deadline to deadline.
        """
        self._result = None
        self._token.run_sync_soon(self._actions.send_nowait, action)
        self._wait_for(lambda: self._result is not None)
        result, self._result = self._result, None
        assert result is not None
        return result.unwrap()

    def close(self) -> None:
        """End the loop; raises what its tasks have raised."""
        if self._ended is None:
            self._token.run_sync_soon(self.nursery.cancel_scope.cancel)
            self._wait_for(lambda: self._ended is not None)
            self._raise_error()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._ended is not None:
                self._raise_error()
                raise AssertionError("the loop has ended")
            self._due.get(timeout=TOO_LONG)()

    def _raise_error(self) -> None:
        if isinstance(self._ended, outcome.Error):
            raise self._ended.error

    def _done(self, ended: outcome.Outcome[None]) -> None:
        self._ended = ended

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._actions, actions = trio.open_memory_channel[Action](1)
        async with trio.open_nursery() as self.nursery:
            async for action in actions:
                self._clock.autojump_threshold = 0
                try:
                    self._result = outcome.Value(await action())
                except Exception as error:  # a cancellation ends the loop
                    self._result = outcome.Error(error)
                self._clock.autojump_threshold = math.inf
