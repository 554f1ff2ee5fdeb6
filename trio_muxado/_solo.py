"""What one task at a time may do, and where it waits."""

from __future__ import annotations

from types import TracebackType

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled


class Solo:
    """``with solo:`` holds off a second task, ``await solo.wait()`` waits inside until ``wake()``.

    The second task gets BusyResourceError; a lock would hide the bug.
    """

    __slots__ = ("_held", "_waiting", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._held = False
        self._waiting: Task | None = None

    def __enter__(self) -> None:
        if self._held:
            raise trio.BusyResourceError(f"another task is {self._what}")
        self._held = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held = False

    async def wait(self) -> None:
        """Wait for the next ``wake``; a checkpoint."""
        self._waiting = current_task()
        await wait_task_rescheduled(self._give_up)

    def _give_up(self, _: RaiseCancelT) -> Abort:
        self._waiting = None
        return Abort.SUCCEEDED

    @property
    def waits(self) -> bool:
        """A task is in ``wait``."""
        return self._waiting is not None

    def wake(self) -> None:
        """Let the task that waits go on; where none does, nothing is remembered."""
        task = self._waiting
        if task is not None:
            self._waiting = None
            trio.lowlevel.reschedule(task)
