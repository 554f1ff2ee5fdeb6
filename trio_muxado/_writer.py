"""The frame writer: the only task that sends on the transport.

A byte that :meth:`Connection.send` has queued goes out here: the writer wakes, lets others queue
theirs, takes a batch of frames of all streams, and sends it in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled

from ._transport.closing import unacknowledged
from ._transport.sending import BatchSender, BatchSize

if TYPE_CHECKING:
    from ._protocol.connection import Connection
    from ._send_room import SendRoom
    from ._slots import Slots
    from ._trace import TransportTrace

CREDIT_PATIENCE = 0.001
"""Seconds that window credit may wait for more while the peer has half of its window left.  A
grant costs both sides more than 64 KiB of data do, and nobody waits for this one, except a peer
that clamps its window (Rust): it may get no more than 256 MB/s with it."""


class FrameWriter:
    """Sends what a connection has to send, as long as there is a session.

    ``on_blocked`` is called when the transport does not take all of a batch at once.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        connection: Connection,
        room: SendRoom,
        slots: Slots,
        *,
        on_blocked: Callable[[], None],
        trace: TransportTrace | None,
    ) -> None:
        self._transport = transport
        self._on_blocked = on_blocked
        self._sender = BatchSender(transport)
        self._connection = connection
        self._room = room
        self._slots = slots
        self._trace = trace
        self.bytes_sent: int = 0
        self.flushed: trio.Event = trio.Event()
        """Nothing more will be sent: all is on its way, or cannot be."""
        self.sleeps: bool = False
        """Whoever changes something looks here first: asking for more costs a call."""
        self.stopped = False
        """The session was ended at once: also what is queued is not sent."""
        self._task: Task | None = None  # while it sleeps
        self._credit_waits = False
        self._ending = False
        self._waited = 0.0
        self.unsent_batch: int = 0
        """Bytes of the batch that the transport is about to take."""
        self._blocked_since: float | None = None  # the transport has not taken all of a batch
        self._turn_began = 0.0  # the turn of trio's loop before a batch is made,
        self._times_turns = True  # where the batch before that had to wait

    # ---- the task

    async def run(self) -> Exception | None:
        """Send until the end was asked for and all is sent; the transport's error if it failed."""
        connection, sender = self._connection, self._sender
        batch_size = BatchSize()
        while await self._something_to_send() and not self.stopped:
            batch, streams = connection.data_to_send(batch_size.bytes)
            self._room.collected(streams)
            self._slots.pass_on()
            size = self.unsent_batch = sum(map(len, batch))
            if self._trace is not None:
                self._trace.saw("out", b"".join(batch))
            took = waited = 0.0
            try:
                if not sender.send_now(batch, size):
                    start = self._blocked_since = trio.current_time()
                    self._on_blocked()
                    try:
                        await sender.send(batch)
                    finally:
                        took = trio.current_time() - start
                        self._waited += took
                        self._blocked_since = None
                    # Where nothing blocks, that took a turn of the loop, over TLS two, and the turn
                    # before shows how long they are: a busy program is no slow link.
                    waited = took
                    if self._times_turns:
                        waited -= 2 * (start - self._turn_began)
            except Exception as error:
                return error
            self.unsent_batch = 0
            self.bytes_sent += size
            self._times_turns = took > 0
            batch_size.taken(size, waited)
        return None

    async def _something_to_send(self) -> bool:
        """Wait until there is; False when there never will be."""
        connection = self._connection
        while not connection.wants_to_send:
            if self._ending and connection.all_sent:
                return False
            self.sleeps = True
            if not connection.credit_waits:
                await self._sleep()
                continue
            self._credit_waits = True
            with trio.move_on_after(CREDIT_PATIENCE) as patience:
                await self._sleep()
            self._credit_waits = self.sleeps = False
            if patience.cancelled_caught:
                break
        if self._times_turns:
            self._turn_began = trio.current_time()
        if self._ending:
            return True
        # Whoever is about to send may do so first, and one write serves all.
        await trio.lowlevel.cancel_shielded_checkpoint()
        return True

    async def _sleep(self) -> None:
        self._task = current_task()
        await wait_task_rescheduled(self._stop_sleeping)

    def _stop_sleeping(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED

    # ---- calls of others; none of them waits

    @property
    def waited(self) -> float:
        """Seconds that the transport took to take the batches, so far also the one under way."""
        since = self._blocked_since
        return self._waited if since is None else self._waited + trio.current_time() - since

    def wake(self) -> None:
        """There may be something to send."""
        task, self._task = self._task, None
        self.sleeps = False
        if task is not None:
            trio.lowlevel.reschedule(task)

    def wake_if_due(self) -> None:
        """Anything may have changed, for a writer that sleeps."""
        if self._connection.wants_to_send or self._ending:
            self.wake()

    def wake_for_credit(self) -> None:
        """Credit may have been granted, for a writer that sleeps."""
        connection = self._connection
        if connection.wants_to_send or (connection.credit_waits and not self._credit_waits):
            self.wake()

    def end(self) -> None:
        """Nothing new will be queued: send what streams have accepted, and end."""
        self._ending = True
        self.wake()

    @property
    def blocked_since(self) -> float | None:
        """When the transport did not take all of a batch; None while it takes everything."""
        return self._blocked_since

    @property
    def unsent(self) -> int:
        """Bytes that streams have to send, or that the transport is about to take."""
        return self._connection.unsent + self.unsent_batch

    @property
    def parts(self) -> int:
        """Parts of batches that a socket has taken, before it took what was left of them."""
        return self._sender.parts

    def unacknowledged(self) -> int:
        """Bytes that the system holds and the peer's has not acknowledged; 0 if nobody says."""
        return unacknowledged(self._transport)
