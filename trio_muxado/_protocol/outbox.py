"""What waits to be sent, and how it becomes bytes.

Control frames go first and in order, then window credit (one increment per stream, however
often it was granted), then the streams' data by turns.
"""

from __future__ import annotations

from .byte_queue import Buffer
from .codec import HEADER_SIZE, Wire
from .counts import Counts
from .scheduler import Scheduler
from .stream import Stream


class Outbox:
    """Frames of one connection on their way out."""

    def __init__(self, wire: Wire, counts: Counts) -> None:
        self._wire = wire
        self._counts = counts
        self._control: list[Buffer] = []
        self._credit: dict[int, int] = {}
        self._credit_hurries = False
        self._scheduler = Scheduler()
        self.answers = 0
        """Control frames in the queue that the peer made us write."""
        self.syns_rose = True
        """Every stream was opened behind all with lower ids; priorities can change that (v2)."""
        self._last_syn = 0

    def __bool__(self) -> bool:
        credit = self._credit_hurries and self._credit
        return bool(self._control or credit or self._scheduler)

    @property
    def credit_waits(self) -> bool:
        """Credit is queued, in a hurry or not."""
        return bool(self._credit)

    def put(self, frame: bytes, *, answer: bool = False) -> None:
        """Queue a control frame."""
        self._control.append(frame)
        self.answers += answer

    def grant(self, stream_id: int, increment: int, *, can_wait_below: int = 0) -> None:
        """Queue window credit.

        While less than ``can_wait_below`` bytes are queued for the stream, it is in no hurry.
        """
        increment += self._credit.get(stream_id, 0)
        self._credit[stream_id] = increment
        self._credit_hurries |= increment >= can_wait_below

    def forget(self, stream: Stream) -> None:
        """Drop what was due on a stream that broke."""
        self._credit.pop(stream.id, None)
        self._scheduler.remove(stream)

    def schedule(self, stream: Stream) -> None:
        """What ``stream`` has to send, or may send, has changed."""
        if stream.can_send:
            self._scheduler.push(stream)
        elif stream.scheduled:
            self._scheduler.remove(stream)

    def next_batch(self, size: int) -> tuple[list[Buffer], list[Stream]]:
        """About ``size`` bytes of frames, and the streams that they are from.

        At least one frame goes out, so a batch may be larger by one frame.  Control frames are
        never held back.
        """
        wire = self._wire
        batch = self._control
        self._control = []
        self.answers = 0
        if self._credit:
            batch += [wire.wndinc(*grant) for grant in self._credit.items()]
            self._credit.clear()
            self._credit_hurries = False
        self._counts.frames_sent += len(batch)
        streams: list[Stream] = []
        scheduler = self._scheduler
        while size > 0 and scheduler:
            stream = scheduler.pop()
            size -= self._next_frame(stream, batch)
            streams.append(stream)
            if stream.can_send:
                scheduler.push(stream)
        return batch, streams

    def _next_frame(self, stream: Stream, batch: list[Buffer]) -> int:
        wire = self._wire
        waiting = stream.outgoing.size
        size = min(waiting, stream.send_window.available, wire.max_payload)
        # FIN joins the last data, but never the frame that opens the stream: the Go acceptors
        # take that FIN for their own direction (and could not answer).
        syn = stream.open_due
        fin = stream.end_due and size == waiting and not syn
        self._counts.frames_sent += 1
        batch.append(wire.data_header(stream.id, size, fin=fin, syn=syn))
        if size:
            stream.send_window.spend(size)
            stream.outgoing.take(size, batch)
        if fin:
            stream.end_due = False
        if syn:
            stream.open_due = False
            self.syns_rose &= stream.id > self._last_syn
            self._last_syn = stream.id
            early = stream.receive_window.owed
            if early:
                self._counts.frames_sent += 1
                batch.append(wire.wndinc(stream.id, stream.receive_window.grant()))
        return HEADER_SIZE + size
