"""The frame writer: the only task that sends on the transport.

A byte that :meth:`Connection.send` has queued goes out here: the writer wakes, lets others queue
theirs, takes a batch of frames of all streams, and sends it in one call.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from ._batches import BatchSize
from ._gather import BatchSender
from ._solo import Solo
from ._transport import unacknowledged

if TYPE_CHECKING:
    from ._protocol.connection import Connection
    from ._trace import TransportTrace

CREDIT_PATIENCE = 0.001
"""Seconds that window credit may wait for more while the peer has half of its window left.  A
grant costs both ends more than 64 KiB of data do, and nobody waits for this one, except a peer
that clamps its window (Rust): it may get no more than 256 MB/s with it."""


class FrameWriter:
    """Sends what a connection has to send, as long as there is a session.

    Args:
      send_timeout: seconds that the transport may need for one batch.
      took_batch: called after a batch has been made: streams may have ended with it.
      on_error: awaited when the transport raised; nothing is sent any more.
      on_timeout: called when the transport took longer than ``send_timeout``; the same.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        connection: Connection,
        *,
        send_timeout: float,
        trace: TransportTrace | None,
        took_batch: Callable[[], None],
        on_error: Callable[[Exception], Awaitable[None]],
        on_timeout: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._sender = BatchSender(transport)
        self._connection = connection
        self._send_timeout = send_timeout
        self._trace = trace
        self._took_batch = took_batch
        self._on_error = on_error
        self._on_timeout = on_timeout
        self.bytes_sent = 0
        self.flushed = trio.Event()
        """Nothing more will be sent: all is on its way, or cannot be."""
        self.sleeps = False
        """Whoever changes something looks here first: asking for more costs a call."""
        self._sleep = Solo("sending frames")
        self._credit_waits = False
        self._ending = False
        self._waited = 0.0
        self._blocked_since: float | None = None  # the transport has not taken all of a batch
        self._turn_began = 0.0  # the turn of trio's loop before a batch is made,
        self._times_turns = True  # where the batch before that had to wait
        self._batches = 0  # since the end was asked for

    # ---- the task

    async def run(self) -> None:
        """Send until the end was asked for and all is sent, or the transport fails."""
        connection, sender, send_timeout = self._connection, self._sender, self._send_timeout
        batch_size = BatchSize()
        # One scope for all batches: its deadline is moved, which is cheaper than a new one.
        with trio.CancelScope() as patience:
            while await self._something_to_send():
                batch, streams = connection.data_to_send(batch_size.bytes)
                for stream in streams:
                    if stream.owner is not None and stream.owner._sender.waiting is not None:
                        stream.owner._collected()
                self._took_batch()
                size = sum(map(len, batch))
                if self._trace is not None:
                    self._trace.saw("out", b"".join(batch))
                took = waited = 0.0
                try:
                    if not sender.send_now(batch, size):
                        start = self._blocked_since = trio.current_time()
                        patience.deadline = start + send_timeout
                        try:
                            await sender.send(batch)
                        finally:
                            patience.deadline = math.inf
                            took = trio.current_time() - start
                            self._waited += took
                            self._blocked_since = None
                        # Where nothing blocks, that took a turn of the loop, over TLS two, and the
                        # turn before shows how long they are: a busy program is no slow link.
                        waited = took
                        if self._times_turns:
                            waited -= 2 * (start - self._turn_began)
                except Exception as error:
                    self.flushed.set()
                    await self._on_error(error)
                    return
                self.bytes_sent += size
                self._times_turns = took > 0
                batch_size.taken(size, waited)
                if self._ending:
                    # A beat shows that the peer lives, not that closing comes to an end.
                    beats = connection.wire and connection.wire.heartbeat_type
                    self._batches += any(stream.type != beats for stream in streams)
        if patience.cancelled_caught:
            self._on_timeout()
        else:
            self.flushed.set()

    async def _something_to_send(self) -> bool:
        """Wait until there is; False when there never will be."""
        connection = self._connection
        while not connection.wants_to_send:
            if self._ending and connection.all_sent:
                return False
            self.sleeps = True
            if not connection.credit_waits:
                await self._sleep.wait()
                continue
            self._credit_waits = True
            with trio.move_on_after(CREDIT_PATIENCE) as patience:
                await self._sleep.wait()
            self._credit_waits = self.sleeps = False
            if patience.cancelled_caught:
                break
        if self._times_turns:
            self._turn_began = trio.current_time()
        # Whoever is about to send may do so first, and one write serves all.
        await trio.lowlevel.cancel_shielded_checkpoint()
        return True

    # ---- calls of others; none of them waits, but for the last

    @property
    def waited(self) -> float:
        """Seconds that the transport took to take the batches, so far also the one under way."""
        since = self._blocked_since
        return self._waited if since is None else self._waited + trio.current_time() - since

    def wake(self) -> None:
        """There may be something to send."""
        if self.sleeps:
            self.sleeps = False
            self._sleep.wake()

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

    async def flush(self, timeout: float) -> bool:
        """Wait for the end, as long as ``timeout`` seconds bring progress; whether it came.

        Progress is a batch, the part of one that a socket takes, or, while it takes none, what
        the system gets rid of.
        """
        while not self.flushed.is_set():
            before = self._batches + self._sender.parts
            held = unacknowledged(self._transport)
            with trio.move_on_after(timeout):
                await self.flushed.wait()
            blocked = self._blocked_since is not None
            gets_on = blocked and unacknowledged(self._transport) < held
            if self._batches + self._sender.parts == before and not gets_on:
                break
        return self.flushed.is_set()
