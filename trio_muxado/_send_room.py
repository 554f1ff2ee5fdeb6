"""Tasks that wait for room in the send buffers of their streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._keepalive import Keepalive
    from ._protocol.stream import Stream


SMALL_MESSAGE = 8 * 1024
"""Bytes of a message that is queued last in ``send_all``, and not first.  In bulk, where a stream
that was woken should have its next chunk in the batch that follows, that would cost a sixth of what
100 streams of v1 carry (measured)."""

COPY_SIZE = 256 * 1024
"""Bytes of a mutable buffer that ``send_all`` copies at a time."""


class SendRoom:
    """Who waits for the writer to take bytes of a stream, and how long the peer's window was shut.

    ``size`` is how many bytes of a stream may wait to be sent before its sender has to.
    """

    __slots__ = (
        "_keepalive",
        "_senders",
        "_waited_for_window",
        "size",
    )

    def __init__(self, size: int, keepalive: Keepalive) -> None:
        self.size: int = size
        self._keepalive = keepalive
        self._senders: dict[Stream, _Sender] = {}  # one for each stream: its user guards that
        self._waited_for_window = 0.0

    async def wait(self, stream: Stream) -> None:
        """Wait until ``stream`` has room, or is woken for another reason; a checkpoint.

        When it is cancelled, nobody is left waiting.
        """
        sender = self._senders[stream] = _Sender(current_task())
        if not stream.send_window:
            self._begin_starving(sender)

        def give_up(_: RaiseCancelT) -> Abort:
            del self._senders[stream]
            return Abort.SUCCEEDED

        try:
            await wait_task_rescheduled(give_up)
        finally:
            self._end_starving(sender)

    async def wait_until(self, stream: Stream, most: int, check: Callable[[], None]) -> None:
        """Wait until at most ``most`` bytes of ``stream`` wait; ``check`` after each wait."""
        while stream.outgoing.size > most:
            await self.wait(stream)
            check()

    def collected(self, streams: Iterable[Stream]) -> None:
        """The writer has taken bytes of these streams."""
        if not self._senders:
            return
        for stream in streams:
            sender = self._senders.get(stream)
            if sender is None:
                continue
            if stream.outgoing.size <= self.size:
                self.wake(stream)
            elif stream.send_window:
                self._end_starving(sender)
            elif sender.starving_since is None:
                self._begin_starving(sender)

    def wake(self, stream: Stream) -> None:
        """Let the task that waits on ``stream`` go on; where none does, nothing is remembered."""
        sender = self._senders.pop(stream, None)
        if sender is not None:
            trio.lowlevel.reschedule(sender.task)

    @property
    def waited_for_window(self) -> float:
        """Seconds that senders waited for the peer's window, so far, added up."""
        starving = (sender.starving for sender in self._senders.values())
        return self._waited_for_window + sum(starving)

    def _begin_starving(self, sender: _Sender) -> None:
        sender.starving_since = trio.current_time()
        self._keepalive.on_starving()

    def _end_starving(self, sender: _Sender) -> None:
        self._waited_for_window += sender.starving
        sender.starving_since = None


class _Sender:
    __slots__ = ("starving_since", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.starving_since: float | None = None  # the window is used up since then

    @property
    def starving(self) -> float:
        """Seconds that the window has been used up by now."""
        return 0.0 if self.starving_since is None else trio.current_time() - self.starving_since
