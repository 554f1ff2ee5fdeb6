"""Streams of the peer that wait to be accepted, and tasks that wait for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import trio
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    wait_task_rescheduled,
)

if TYPE_CHECKING:
    from ._protocol.stream import Stream
    from ._receive_channel import ReceiveChannel

Offered: TypeAlias = "tuple[Stream, ReceiveChannel]"
"""A stream of the peer, and where what came on it waits."""

Start: TypeAlias = "Callable[[Stream, ReceiveChannel], None]"
"""Starts the handler of a stream; does not wait."""


class Backlog:
    """First come, first served, for any number of tasks.

    The protocol counts the streams until they are accepted, and refuses those above
    ``accept_backlog``.

    What one of trio's memory channels does, and takes a tenth of the memory of an idle session for:
    mostly one task waits here, and a stream waits only where others came just before.
    """

    __slots__ = ("_ended", "_takers", "_waiting")

    def __init__(self) -> None:
        # Streams wait, or tasks do; both never.
        self._waiting: deque[Offered] | None = None  # a client's peer mostly opens none
        # And what each of those is handed, or what starts it there.
        self._takers: dict[Task, tuple[list[Offered], Start | None]] = {}
        self._ended = False

    def put(self, offered: Offered, at_once: bool) -> None:
        """The peer has opened a stream.

        With ``at_once`` whoever waits, and can start it in this step, does so; else a task that
        waits is handed it, or it waits itself.  That saves a pass of trio's loop; where others
        follow, it costs a write more, as their answers come a pass later.
        """
        if self._takers:
            task = next(iter(self._takers))
            handed, start = self._takers[task]
            if at_once and start is not None and len(self._takers) == 1:
                start(*offered)
                return
            handed.append(offered)
            del self._takers[task]
            trio.lowlevel.reschedule(task)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(offered)

    def end(self) -> None:
        """No more will come; what waits can still be taken."""
        self._ended = True
        for task in self._takers:
            trio.lowlevel.reschedule(task)
        self._takers.clear()

    def drop(self) -> list[Stream]:
        """Forget what waits, and return it: nobody can take it any more."""
        waiting, self._waiting = self._waiting or (), None
        return [core for core, _ in waiting]

    async def take(self, most: int, start: Start | None = None) -> list[Offered]:
        """Wait for the next, and take at most ``most`` that wait; none when there will be none.

        Meanwhile ``start`` may be called with one.  When it is cancelled, it takes nothing.
        """
        await checkpoint_if_cancelled()
        taken: list[Offered] = []
        if self._waiting or self._ended:
            if self._waiting:
                taken.append(self._waiting.popleft())
            await cancel_shielded_checkpoint()
        else:
            task = current_task()
            self._takers[task] = (taken, start)

            def give_up(_: RaiseCancelT) -> Abort:
                del self._takers[task]
                return Abort.SUCCEEDED

            await wait_task_rescheduled(give_up)
        while taken and self._waiting and len(taken) < most:
            taken.append(self._waiting.popleft())
        return taken
