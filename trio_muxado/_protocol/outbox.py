"""What waits to be sent, and how it becomes bytes.

Control frames go first and in order, then window credit (one increment per stream, however
often it was granted), then the streams' data by turns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

from .byte_queue import Buffer
from .codec import HEADER_SIZE, Wire
from .counts import Counts
from .scheduler import Scheduler
from .stream import Stream
from .windows import MAX_WINDOW

QUANTUM = 128 * 1024
"""Bytes that a stream may send before the next one that waits, but half of a batch at most, which
is less on slow links: one frame on v2, eight on v1, and the last is shorter.

With less, many bulk streams cost more: each turn wakes a task on both sides and is granted by
itself (100 of them on v1: with 64 KiB a seventh fewer bytes a second).  With more, a small answer
waits longer for its equals, and nothing is gained."""

PROBES_IN_A_ROW = 50
"""Probes that go out with no other DATA between them: each is an empty frame, and of those a peer
takes too many in a row for a flood (ours 100)."""


class Outbox:
    """Frames of one connection on their way out.

    ``type_size`` is how many bytes of a stream's first data are its type (typed v2 sessions).
    """

    __slots__ = (
        "_control",
        "_counts",
        "_credit",
        "_credit_hurries",
        "_deficit",
        "_least",
        "_probes",
        "_scheduler",
        "_starved",
        "_type_size",
        "_unopened",
        "_wire",
        "answers",
    )

    def __init__(self, wire: Wire, counts: Counts, *, type_size: int = 0) -> None:
        self._wire = wire
        self._counts = counts
        self._type_size = type_size
        # Bytes of the smallest frame of data.  A stream's type is never cut: Go v2 takes what one
        # read gives it for the whole.
        self._least = HEADER_SIZE + max(type_size, 1)
        self._control: list[Buffer] = []
        self._credit: dict[int, int] = {}
        self._credit_hurries = False
        self._scheduler = Scheduler()
        # Bytes of their turns that streams could not send, as a batch was full.  They make the next
        # turn longer: by themselves they would cost both sides as much as a whole turn, and the
        # next batch would be full in the middle of a turn again.
        self._deficit: dict[Stream, int] = {}
        self.answers: int = 0
        """Control frames in the queue that the peer made us write."""
        # v2: the frame that opens them is due; their ids rise.
        self._unopened: OrderedDict[Stream, None] = OrderedDict()
        # They have data, and no window; how often that was looked at since they have none.
        self._starved: dict[Stream, int] = {}
        self._probes = 0  # since the latest data went out

    def __bool__(self) -> bool:
        if self._scheduler.priorities or self._control:
            return True
        return self._credit_hurries and bool(self._credit)

    @property
    def is_for_one(self) -> bool:
        """What waits is of one stream: its data, behind the frame that opens it."""
        return len(self._control) <= 1 and self._scheduler.has_one

    @property
    def credit_waits(self) -> bool:
        """Credit is queued, in a hurry or not."""
        return bool(self._credit)

    @property
    def is_empty(self) -> bool:
        """Nothing waits, but for data that waits for the peer's window."""
        return not (self._scheduler.priorities or self._control or self._credit)

    @property
    def holds_data(self) -> bool:
        """Something waits to be sent, if only for the peer's window."""
        return bool(self) or bool(self._starved)

    def put(self, frame: bytes, answer: bool = False) -> None:
        """Queue a control frame."""
        self._control.append(frame)
        self.answers += answer

    def queue_credit(self, stream_id: int, increment: int, *, can_wait_below: int = 0) -> None:
        """Queue window credit.

        While less than ``can_wait_below`` bytes are queued for the stream, it is in no hurry.
        """
        # A peer that sends on credit of which it has not heard yet could make it any number.
        increment = min(increment + self._credit.get(stream_id, 0), MAX_WINDOW)
        self._credit[stream_id] = increment
        self._credit_hurries |= increment >= can_wait_below

    def open(self, stream: Stream) -> None:
        """Queue the DATA frame that opens a stream, with the data that waits by then (v2)."""
        stream.open_due = True
        self._unopened[stream] = None
        self._scheduler.push(stream)

    def probe(self) -> bool:
        """Look at the streams without window, and queue an empty DATA frame for some of them.

        A stream gets one at the second look, and again each time after twice as many: a peer that
        has it now may close it later.  Returns whether a frame is queued now.
        """
        before = self._probes
        for stream, before_this in self._starved.items():
            looks = before_this + 1
            if looks > 1 and not looks & (looks - 1):
                if self._probes >= PROBES_IN_A_ROW:
                    continue  # its turn comes later
                self._probes += 1
                self.put(self._wire.data_header(stream.id, 0))
            self._starved[stream] = looks
        return self._probes > before

    def take_back(self, live: Container[int]) -> set[int]:
        """Never send the frames that open streams of this side, where there is still time.

        Returns the ids of these streams.  Those that are not ``live`` are opened all the same:
        what ended them waits behind.
        """
        if not self._wire.has_syn_frame:
            return {stream.id for stream in self._unopened}
        taken: set[int] = set()
        left: list[Buffer] = []
        for frame in self._control:
            stream_id = self._wire.opens(frame)
            if stream_id is not None and stream_id in live:
                taken.add(stream_id)
            else:
                left.append(frame)
        self._control = left
        return taken

    def forget(self, stream: Stream) -> None:
        """Drop what was due on a stream that broke."""
        if stream.open_due:
            stream.open_due = False
            del self._unopened[stream]
        self._deficit.pop(stream, None)
        self._starved.pop(stream, None)
        self._credit.pop(stream.id, None)
        self._scheduler.remove(stream)

    def schedule(self, stream: Stream) -> None:
        """What ``stream``, which waits for no turn, has to send, or may send, is more than before.

        Whoever calls looks at ``scheduled`` first, which saves a call.
        """
        # What ``can_send`` says, by a call less for each stream.
        if stream.outgoing.size:
            if not (stream.send_window > 0 or stream.open_due):
                self._starved.setdefault(stream, 0)
                return
        elif not (stream.end_due or stream.open_due):
            return
        if self._starved:
            self._starved.pop(stream, None)
        self._scheduler.push(stream)

    def reconsider(self, stream: Stream) -> None:
        """What ``stream`` has to send may be less than before."""
        if not stream.outgoing.size:
            self._starved.pop(stream, None)
        if not stream.scheduled:
            self.schedule(stream)
        elif not stream.can_send:
            self._scheduler.remove(stream)

    def prioritize(self, stream: Stream, priority: int) -> None:
        """What ``stream`` has to send goes out in this order from now on."""
        self._scheduler.move(stream, priority)

    def next_batch(self, size: int) -> tuple[list[Buffer], list[Stream]]:
        """Up to ``size`` bytes of frames with data, and the streams that they are from.

        At least one frame goes out.  Control frames are never held back, and come on top.
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
        least = self._least
        most = wire.max_payload
        if size < least:  # ``min`` and ``max`` are calls
            size = least
        longest_turn = (size + 1) // 2
        if longest_turn > QUANTUM:
            longest_turn = QUANTUM
        elif longest_turn < least:
            longest_turn = least
        while size >= least and scheduler.priorities:
            stream = scheduler.pop()
            if stream.open_due and stream is not next(iter(self._unopened)):
                streams += self._open_lower(stream, batch)
            turn = longest_turn if scheduler.priorities else size  # where nobody else waits
            if self._deficit:
                deficit = self._deficit.pop(stream, 0)
                if deficit >= longest_turn:  # so it is the first: it had its next turn already
                    turn = min(deficit, 2 * turn)
                else:
                    turn += deficit
            used, more = self._take_turn(stream, batch, turn if turn < size else size, most)
            size -= used
            streams.append(stream)
            if not more:
                if stream.outgoing.size:
                    self._starved[stream] = 0
                continue
            # What is left of the turn, as the batch is full, is its deficit.  Once that is a whole
            # turn, it is first in the next batch, or it might be cut short each time.
            deficit = turn - used
            if deficit > 0:
                self._deficit[stream] = deficit
            if deficit >= longest_turn:
                scheduler.put_back(stream)
            else:
                scheduler.push(stream)
        if streams:
            self._probes = 0
        return batch, streams

    def _open_lower(self, stream: Stream, batch: list[Buffer]) -> list[Stream]:
        """Open all streams with lower ids, which a higher priority is about to overtake.

        The known v2 peers put the id of the latest SYN into their GOAWAY.  Only where SYNs go out
        in the order of ids does that tell which streams they have not seen.
        """
        opened: list[Stream] = []
        while (lower := next(iter(self._unopened))) is not stream:
            # With its type: the known peers accept nothing else until they have that.
            self._take_turn(lower, batch, self._least, self._type_size)
            self.reconsider(lower)
            opened.append(lower)
        return opened

    def _take_turn(
        self, stream: Stream, batch: list[Buffer], turn: int, most: int
    ) -> tuple[int, bool]:
        """Collect up to ``turn`` bytes of frames, with ``most`` bytes of payload each.

        Returns the bytes that they are, and whether the stream could send more.
        """
        left = turn
        if stream.open_due:
            left -= self._take_opening(stream, batch, turn, most)
            # What ``can_send`` says of what is left, by a call less.
            more = stream.send_window > 0 if stream.outgoing.size else stream.end_due
            if not more or left < self._least:
                return turn - left, more
        wire, outgoing = self._wire, stream.outgoing
        waiting, allowed = outgoing.size, stream.send_window
        if waiting <= allowed and waiting <= most and waiting <= left - HEADER_SIZE:
            # In short what follows in full: so most turns go.
            batch.append(wire.data_header(stream.id, waiting, stream.end_due))
            if waiting:
                outgoing.take(waiting, batch)
                stream.send_window = allowed - waiting
            stream.end_due = False
            self._counts.frames_sent += 1
            return turn - left + HEADER_SIZE + waiting, False
        # Full frames first, which are all the same but for a FIN, and then what is left.
        size = most + HEADER_SIZE
        frames = min(min(waiting, allowed) // most, left // size)
        if stream.end_due and frames * most == waiting:
            frames -= 1
        if frames:
            outgoing.take_frames(wire.data_header(stream.id, most), most, frames, batch)
            left -= frames * size
            waiting -= frames * most
            allowed -= frames * most
        if waiting and allowed and left >= self._least:
            size = min(waiting, allowed, left - HEADER_SIZE)
            fin = stream.end_due and size == waiting
            batch.append(wire.data_header(stream.id, size, fin))
            outgoing.take(size, batch)
            if fin:
                stream.end_due = False
            left -= HEADER_SIZE + size
            waiting -= size
            allowed -= size
            frames += 1
        stream.send_window = allowed
        self._counts.frames_sent += frames
        return turn - left, waiting > 0 and allowed > 0

    def _take_opening(self, stream: Stream, batch: list[Buffer], turn: int, most: int) -> int:
        """Collect the frame that opens a stream (v2), with data that waits; the bytes it is.

        Its FIN never joins it: the Go acceptors take that for their own direction (and could not
        answer).
        """
        outgoing = stream.outgoing
        size, room = outgoing.size, turn - HEADER_SIZE
        if size > most or size > room or size > stream.send_window:  # seldom; ``min`` is a call
            size = min(stream.send_window, most, room)
        batch.append(self._wire.data_header(stream.id, size, False, True))
        if size:
            outgoing.take(size, batch)
            stream.send_window -= size
        stream.open_due = False
        del self._unopened[stream]
        self._counts.frames_sent += 1
        window = stream.receive_window
        if window.credit < window.size:  # it is larger than the usual one
            self._counts.frames_sent += 1
            batch.append(self._wire.wndinc(stream.id, window.take_grant()))
        return HEADER_SIZE + size
