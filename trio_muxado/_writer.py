"""The frame writer: the only task that waits for the transport to take something.

A byte that :meth:`Connection.send` has queued goes out here: the writer wakes, lets others queue
theirs, takes a batch of frames of all streams, and sends it in one call.  Where nobody else is
about to send, the call that ends a message does that in its own step: see ``FrameWriter.send_now``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, wait_task_rescheduled

from ._keepalive import keep_waiting
from ._lazy_event import LazyEvent
from ._nursery import failure_of
from ._transport.closing import is_reset, unacknowledged
from ._transport.sending import LARGEST, LARGEST_TLS, BatchSender, BatchSize

if TYPE_CHECKING:
    from ._keepalive import Keepalive
    from ._protocol.byte_queue import Buffer
    from ._protocol.connection import Connection
    from ._send_room import SendRoom
    from ._slots import Slots
    from ._trace import TransportTrace

CREDIT_PATIENCE = 0.001
"""Seconds that window credit may wait for more while the peer has half of its window left.  A
grant costs both sides more than 64 KiB of data do, and nobody waits for this one, except a peer
that clamps its window (Rust): it may get no more than 256 MB/s with it."""


class FrameWriter:
    """Sends what a connection has to send, as long as there is a session."""

    __slots__ = (
        "_batch",
        "_batch_size",
        "_blocked_since",
        "_connection",
        "_credit_waits",
        "_ending",
        "_error",
        "_keepalive",
        "_room",
        "_sender",
        "_shield",
        "_size",
        "_slots",
        "_task",
        "_times_turns",
        "_trace",
        "_transport",
        "_turn_began",
        "_waited",
        "alone",
        "bytes_sent",
        "flushed",
        "sends_now",
        "sleeps",
        "stopped",
        "unsent_batch",
    )

    def __init__(
        self,
        transport: trio.abc.Stream,
        connection: Connection,
        room: SendRoom,
        slots: Slots,
        keepalive: Keepalive,
        *,
        trace: TransportTrace | None,
    ) -> None:
        self._transport = transport
        self._keepalive = keepalive
        self._sender = BatchSender(transport)
        self._connection = connection
        self._room = room
        self._slots = slots
        self._trace = trace
        self.bytes_sent: int = 0
        self.flushed: LazyEvent = LazyEvent()
        """Nothing more will be sent: all is on its way, or cannot be."""
        self.sleeps: bool = False
        """Whoever changes something looks here first: asking for more costs a call."""
        self.stopped: bool = False
        self._shield: trio.CancelScope | None = None  # once the transport had to be waited for
        self._task: Task | None = None  # while it sleeps
        self._credit_waits = False
        self._ending = False
        self._waited = 0.0
        self.unsent_batch: int = 0
        """Bytes of the batch that the transport is about to take."""
        self._blocked_since: float | None = None  # the transport has not taken all of a batch
        self._turn_began = 0.0  # the pass of trio's loop before a batch is made,
        self._times_turns = True  # where the batch before that had to wait
        self._batch: list[Buffer] = []
        self._batch_size = BatchSize(LARGEST if self._sender.has_socket else LARGEST_TLS)
        self._size = 0  # of the batch, as it was made
        self._error: Exception | None = None  # the transport's
        # What a tracer raises is to end the session, not to come out of a user's call.
        self.sends_now: bool = self._sender.sends_now and trace is None
        """``send_now`` can send anything."""
        self.alone: bool = self.sends_now
        """It should: what came last was for one stream, so that nobody else is about to send."""

    # ---- the task

    async def run(self) -> Exception | None:
        """Send until the end was asked for and all is sent; the transport's error if it failed.

        It cannot be cancelled from outside, so that a user who is can still send; only stopped.
        """
        connection = self._connection
        try:
            # Where a stream was opened already, what is sent on it first goes along.
            if connection.sends_for_one:
                await trio.lowlevel.cancel_shielded_checkpoint()
            while not self.stopped:
                idle = connection.has_nothing_to_send
                due = not idle and connection.wants_to_send
                if not due and not self.unsent_batch:
                    if self._ending and connection.all_sent:
                        break
                    self.sleeps = True
                    if idle:  # so a session mostly is, in few coroutines
                        self._task = current_task()
                        await wait_task_rescheduled(keep_waiting)
                        continue
                    if not await self._wait_for_more_credit():
                        continue
                if not (self._ending or self.unsent_batch):
                    if self._times_turns:
                        self._turn_began = trio.current_time()
                    # Whoever is about to send may do so first, and one write serves all.
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    # Or one of them has sent all of it.
                    due = connection.wants_to_send or (not due and connection.credit_waits)
                    if not (due or self.unsent_batch):
                        continue
                if not self.unsent_batch:
                    self._begin_batch()
                if self.unsent_batch and self._error is None:
                    if self._shield is None:
                        return await self._run_shielded()
                    await self._send_rest()
                if self._error is not None:
                    return self._error
        finally:
            self.alone = self.sends_now = False
        return None

    async def _run_shielded(self) -> Exception | None:
        """Go on, as the transport has to be waited for.  Most sockets take all at once."""
        with trio.CancelScope(shield=True) as self._shield:
            await self.run()
        return self._error

    def stop(self) -> None:
        """The session was ended at once: also what is queued is not sent."""
        self.stopped = True  # it may be about to send, where it can't be cancelled
        self.flushed.set()
        if self._shield is not None:
            self._shield.cancel()
        self.wake()

    def _begin_batch(self) -> None:
        """Take a batch, and send what a socket takes of it at once."""
        if self.stopped:
            return
        batch, streams = self._connection.data_to_send(self._batch_size.bytes)
        self._room.collected(streams)
        if self._slots.awaited:
            self._slots.pass_on()
        self._batch = batch
        self._size = self.unsent_batch = sum(map(len, batch))
        if self._trace is not None:
            self._trace.saw("out", b"".join(batch))
        try:
            taken = self._sender.send_now(batch, self._size)
        except Exception as error:  # a transport can be anything that is a stream
            self._error = error
            return
        if taken:
            self._times_turns = False
            self._taken(0.0)
        else:
            self._blocked_since = trio.current_time()
            self._keepalive.on_blocked()

    async def _send_rest(self) -> None:
        """Send what is left of the batch."""
        assert self._blocked_since is not None
        start, took = self._blocked_since, 0.0
        try:
            await self._sender.send(self._batch)
        except BaseException as error:
            self._error = failure_of(error)
            return
        finally:
            took = trio.current_time() - start
            self._waited += took
            self._blocked_since = None
        # Where nothing blocks, that took a pass of the loop, over TLS two, and the pass before
        # shows how long they are: a busy program is no slow link.
        waited = took
        if self._times_turns:
            waited -= 2 * (start - self._turn_began)
        self._times_turns = took > 0
        self._taken(waited)

    def _taken(self, waited: float) -> None:
        self._batch.clear()  # what a transport but a socket has taken is not kept
        self.unsent_batch = 0
        self.bytes_sent += self._size
        if waited or self._size >= self._batch_size.bytes:  # of others it learns nothing
            self._batch_size.taken(self._size, waited)

    async def _wait_for_more_credit(self) -> bool:
        """Sleep while credit waits for more; True when it has waited for long enough."""
        self._credit_waits = True
        enough = trio.current_time() + CREDIT_PATIENCE
        with trio.CancelScope(deadline=enough, shield=True) as patience:
            self._task = current_task()
            await wait_task_rescheduled(self._stop_sleeping)
        self._credit_waits = self.sleeps = False
        return patience.cancelled_caught

    def _stop_sleeping(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED

    # ---- calls of others; none of them waits

    @property
    def waited(self) -> float:
        """Seconds that the transport took to take the batches, so far also the one under way."""
        since = self._blocked_since
        return self._waited if since is None else self._waited + trio.current_time() - since

    def send_now(self) -> None:
        """Send what is due, in the step of the caller, who has found that it is ``alone``.

        That saves passes of trio's loop.  It is one write that does not wait, so nobody
        can cancel it.  What the socket does not take at once is the writer's.  After it others may
        be about to send as well, so it happens once until the peer is read again.
        """
        self.alone = False
        if self.unsent_batch:
            return  # the writer is sending, and goes on with what is due
        if self._connection.sends_for_one:
            self._begin_batch()
            if not self.unsent_batch:
                return
        if self.sleeps:
            self.wake()

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
        self.alone = self.sends_now = False
        self.wake()

    def end_now(self) -> None:
        """Like ``end``; what a socket takes at once of all that is to be sent goes in this step."""
        connection = self._connection
        if self.sends_now and not self.unsent_batch and connection.wants_to_send:
            self._begin_batch()
            if not self._batch and connection.all_sent:
                self.flushed.set()
        self.end()

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

    @property
    def reset(self) -> Exception | None:
        """The transport's error, if the peer has reset the connection.

        A socket says that once: whoever reads is left with an end.
        """
        error = self._error
        return error if error is not None and is_reset(error) else None

    def unacknowledged(self) -> int:
        """Bytes that the system holds and the peer's has not acknowledged; 0 if nobody says."""
        return unacknowledged(self._transport)
