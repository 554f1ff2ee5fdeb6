"""The keepalive: the task that minds the time of a session.

Heartbeats, the peer's silence, a transport that takes nothing, streams that stay half-open and
closing each are a :class:`Timer`.  One task sleeps until the first of them is due.

This process may stand still: a call that blocks, a debugger, a laptop that sleeps.  Then nothing
was read and nothing sent, which is not the peer's fault.  A task that wakes late shows it: the
timers start once more, and the reader and the writer do what they can first.  They do so once, and
again when the peer has shown a sign of life: else a process that stands still now and then would
never notice that its peer is gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled

if TYPE_CHECKING:
    from ._errors import CloseReason

MOMENT = 0.1
"""Seconds.  Who wakes later than that was not delayed by other tasks: the process stood still."""

READING_TURNS = 16
"""Passes of trio's loop in which the reader gets what has come.  Over a socket or TLS it needs one,
over a transport that passes it from task to task one or two for each of those."""


class Timer(Protocol):
    """Something that is due at a time, on trio's clock."""

    @property
    def due(self) -> float:
        """When; it may move later by itself, and earlier only with :meth:`Keepalive.add`."""
        ...

    @property
    def gives_up(self) -> bool:
        """It ends something; so what has come is read before."""
        ...

    def stood_still(self, now: float, late: float) -> None:
        """The process stood still for at least ``late`` seconds until ``now``."""

    def ring(self, now: float) -> None:
        """It is due."""


class Keepalive:
    """Runs the timers of a session.

    Its other parts call ``on_blocked``, ``on_starving`` and ``on_wait`` when something begins that
    a timer minds, and timers call ``abort``.  They go through here, because the keepalive lets go
    of what is called when it ends.  Else the parts and their engine would refer to each other, and
    a session that is over would wait for the garbage collector.
    """

    __slots__ = (
        "_sleep",
        "_stopped",
        "_task",
        "_timers",
        "abort",
        "on_blocked",
        "on_starving",
        "on_wait",
    )

    def __init__(
        self,
        *,
        on_blocked: Callable[[], None],
        on_starving: Callable[[], None],
        on_wait: Callable[[], None],
        abort: Callable[[CloseReason], None],
    ) -> None:
        self.on_blocked: Callable[[], None] = on_blocked
        """The transport does not take all of a batch at once."""
        self.on_starving: Callable[[], None] = on_starving
        """A stream begins to wait for the peer's window."""
        self.on_wait: Callable[[], None] = on_wait
        """A task begins to wait for a slot, and none did."""
        self.abort: Callable[[CloseReason], None] = abort
        self._timers: list[Timer] = []
        self._sleep: trio.CancelScope | None = None  # while something will be due
        self._task: Task | None = None  # while it sleeps
        self._stopped = False

    def add(self, timer: Timer) -> None:
        """Run a timer from now on; of one that runs, say that it is due earlier than it was."""
        if timer not in self._timers:
            self._timers.append(timer)
        if self._sleep is None:
            self._wake()
        elif (due := timer.due) < self._sleep.deadline:
            self._sleep.deadline = due

    def remove(self, timer: Timer) -> None:
        """Run a timer no more."""
        if timer in self._timers:
            self._timers.remove(timer)

    def stop(self) -> None:
        """The session is over."""
        self._stopped = True
        self._wake()

    async def run(self, catch: Callable[[BaseException], None]) -> None:
        """Run until ``stop``, or until a timer raises something, which ``catch`` is called with."""
        try:
            while not self._stopped:
                due = min((timer.due for timer in self._timers), default=math.inf)
                if due == math.inf:
                    self._task = current_task()
                    await wait_task_rescheduled(keep_waiting)
                    continue
                # A new scope for each sleep, because a scope that has expired stays so.  The shield
                # is the session's: its tasks go on for the clean-up of a user who is cancelled.
                with trio.CancelScope(deadline=due, shield=True) as self._sleep:
                    self._task = current_task()
                    await wait_task_rescheduled(self._stop_sleeping)
                due, self._sleep = self._sleep.deadline, None
                if not self._stopped:
                    await self._ring(due)
        except BaseException as error:
            catch(error)
        self._timers.clear()
        self.on_blocked = self.on_starving = self.on_wait = _nothing
        self.abort = _nothing

    async def _ring(self, due: float) -> None:
        """Let all timers ring that are due by now, as the first of them was at ``due``."""
        now = trio.current_time()
        late = now - due
        if late > MOMENT:
            for timer in self._timers:
                timer.stood_still(now, late)
        if late > MOMENT or any(t.gives_up and t.due <= now for t in self._timers):
            await _let_others_read()
        for timer in self._timers[:]:
            if timer.due <= now and not self._stopped:
                timer.ring(now)

    def _wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def _stop_sleeping(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


def keep_waiting(_: RaiseCancelT) -> Abort:
    """Of a task of the session that only waits to be woken: it is the user who is cancelled."""
    return Abort.FAILED


def _nothing(*_: object) -> None:
    """Of a session that is over, nothing needs a timer."""


async def _let_others_read() -> None:
    for _ in range(READING_TURNS):
        await trio.lowlevel.cancel_shielded_checkpoint()
