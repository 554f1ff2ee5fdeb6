"""What one task at a time may do, and where it waits."""

from __future__ import annotations

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled


class Solo:
    """``held`` holds off a second task, and ``await wait()`` waits inside until ``wake()``.

    The second task raises ``busy()``; a lock would hide the bug.  Whoever holds it lets go in a
    ``finally``: a ``with``, or a method for it, would cost more, for each call on a stream.
    """

    __slots__ = ("_what", "held", "waiting")

    def __init__(self, what: str) -> None:
        self._what = what
        self.held = False
        self.waiting: Task | None = None
        """The task that is in ``wait``."""

    def busy(self) -> trio.BusyResourceError:
        """What a second task raises."""
        return trio.BusyResourceError(f"another task is {self._what}")

    async def wait(self) -> None:
        """Wait for the next ``wake``; a checkpoint."""
        self.waiting = current_task()
        await wait_task_rescheduled(self._give_up)

    def _give_up(self, _: RaiseCancelT) -> Abort:
        self.waiting = None
        return Abort.SUCCEEDED

    def wake(self) -> None:
        """Let the task that waits go on; where none does, nothing is remembered."""
        task = self.waiting
        if task is not None:
            self.waiting = None
            trio.lowlevel.reschedule(task)
