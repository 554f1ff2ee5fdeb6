"""Whether what an endpoint has sent is one of the right answers.

Nothing here does I/O: steps and received frames in, what is missing or too much out.  The rules of
the comparison are those of ``vectors/README.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .frames import FIRST_ID, FrameReader
from .vectors import Frame, Step, Vector, bytes_of, error_names


@dataclass
class Sent:
    """What an endpoint sends, in a form that can be compared: order and cuts are left out."""

    control: Counter[tuple[str, ...]] = field(default_factory=Counter[tuple[str, ...]])
    """All frames but DATA and WNDINC, and the openings of streams."""
    data: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """All payload of each stream."""
    ended: set[int] = field(default_factory=set[int])
    """The streams with FIN."""
    credit: Counter[int] = field(default_factory=Counter[int])
    """The increments of each stream, summed."""

    def copy(self) -> Sent:
        """An independent copy."""
        return Sent(Counter(self.control), dict(self.data), set(self.ended), Counter(self.credit))

    def add(self, frame: Frame, first_id: int) -> None:
        """Note a frame; its payload is bytes.  ``first_id`` is that of its receiver."""
        kind = frame["frame"]
        fields = {key: value for key, value in frame.items() if key not in ("frame", "debug")}
        well_formed = "length" not in fields
        if kind == "DATA":
            stream_id = fields["stream_id"]
            self.data[stream_id] = self.data.get(stream_id, b"") + fields["payload"]
            if fields["fin"]:
                self.ended.add(stream_id)
            if fields.get("syn"):
                self.control[("SYN", f"stream_id={stream_id}")] += 1
            return
        if kind == "WNDINC" and well_formed:
            self.credit[fields["stream_id"]] += fields["increment"]
            return
        if kind == "GOAWAY" and fields["last_stream_id"] < first_id:
            fields["last_stream_id"] = 0  # no stream, whatever the number
        key = (kind, *(f"{name}={value}" for name, value in sorted(fields.items())))
        self.control[key] += 1


@dataclass(frozen=True)
class _Outcome:
    """One way in which the steps so far may have been answered."""

    due: Sent
    reset: frozenset[int] = frozenset()
    """Streams that the endpoint has reset: nothing more is due on them."""
    over: bool = False


class Judge:
    """Follows one vector, and compares.

    With ``from_outside`` nobody knows when the application acts.  So what it echoes on the streams
    that it is shown is left to the end (:meth:`echo_differences`).  Where the application acts by
    itself credit counts whenever it has come; else it has to come in the step that asks for it.
    """

    def __init__(self, vector: Vector, *, from_outside: bool) -> None:
        self._vector = vector
        self._acts_by_itself = from_outside or vector.shown is None
        shown = vector.shown or ()
        self._echoed = {told.stream_id for told in shown} if from_outside else set[int]()
        self._first_id = FIRST_ID["client" if vector.role == "server" else "server"]
        self._outcomes = [_Outcome(Sent())]
        self._received = Sent()
        self._credit_before = Counter[int]()
        self._echoes = Sent()
        self._ours = FrameReader(vector.version, trusts_goaway=True)
        self._reset: set[int] = set()  # by either side: what is echoed there may be cut

    # ---- what happens

    def step(self, step: Step) -> None:
        """A step begins: its answers are due from now on."""
        if not self._acts_by_itself:
            self._credit_before = Counter(self._received.credit)
        sent = self._ours.feed(step.sent)
        self._reset |= {frame["stream_id"] for frame in sent if frame["frame"] == "RST"}
        following: list[_Outcome] = []
        for outcome in self._outcomes:
            if outcome.over:
                following.append(outcome)
            else:
                following += [self._after(outcome, step, answer) for answer in step.answers]
        self._outcomes = following

    def _after(self, outcome: _Outcome, step: Step, answer: Iterable[Frame]) -> _Outcome:
        due, reset = outcome.due.copy(), set(outcome.reset)
        if not self._acts_by_itself:
            due.credit = Counter()
        for frame in answer:
            kind, stream_id = frame["frame"], frame.get("stream_id", 0)
            if stream_id in reset or (kind == "DATA" and stream_id in self._echoed):
                continue
            if kind == "RST":
                reset.add(stream_id)
            if kind == "DATA":
                frame = {**frame, "payload": bytes_of(frame, "payload")}
            due.add(frame, self._first_id)
        goaway = step.do is None and any(frame["frame"] == "GOAWAY" for frame in answer)
        return _Outcome(due, frozenset(reset), over=step.over or goaway)

    def receive(self, frame: Frame) -> None:
        """The endpoint has sent a frame."""
        echo = frame["frame"] == "DATA" and frame["stream_id"] in self._echoed
        (self._echoes if echo else self._received).add(frame, self._first_id)
        if frame["frame"] == "RST":
            self._reset.add(frame["stream_id"])

    # ---- what to make of it

    @property
    def fits(self) -> bool:
        """All that is due has come, and nothing else."""
        return any(self._fits(outcome) for outcome in self._outcomes)

    @property
    def over(self) -> bool:
        """The session is over, by an answer that has come and is right."""
        return any(outcome.over and self._fits(outcome) for outcome in self._outcomes)

    @property
    def possible(self) -> bool:
        """What is missing may still come: nothing that has come is too much."""
        return any(not list(self._surplus(outcome.due)) for outcome in self._outcomes)

    def _fits(self, outcome: _Outcome) -> bool:
        return not (list(self._missing(outcome.due)) or list(self._surplus(outcome.due)))

    def difference(self) -> str:
        """What is missing or too much, against the right answer that is nearest."""
        texts: list[tuple[int, str]] = []
        for outcome in self._outcomes:
            missing, surplus = list(self._missing(outcome.due)), list(self._surplus(outcome.due))
            parts = [f"missing: {', '.join(missing)}"] if missing else []
            parts += [f"not expected: {', '.join(surplus)}"] if surplus else []
            texts.append((len(missing) + len(surplus), "; ".join(parts)))
        return min(texts)[1]

    def _missing(self, due: Sent) -> Iterator[str]:
        received = self._received
        yield from _names(due.control - received.control, self._vector)
        for stream_id, payload in due.data.items():
            came = received.data.get(stream_id, b"")
            if len(came) < len(payload):
                yield f"{len(payload) - len(came)} bytes of DATA on stream {stream_id}"
        for stream_id in due.ended - received.ended:
            yield f"FIN on stream {stream_id}"
        for stream_id, increment in due.credit.items():
            came_since = received.credit[stream_id] - self._credit_before[stream_id]
            if came_since < increment:
                yield f"{increment - came_since} bytes of credit on stream {stream_id}"

    def _surplus(self, due: Sent) -> Iterator[str]:
        received = self._received
        yield from _names(received.control - due.control, self._vector)
        for stream_id, payload in received.data.items():
            right = due.data.get(stream_id, b"")
            if len(payload) > len(right):
                yield f"{len(payload) - len(right)} bytes of DATA on stream {stream_id}"
            elif not right.startswith(payload):
                yield f"other bytes on stream {stream_id}"
        for stream_id in received.ended - due.ended:
            yield f"FIN on stream {stream_id}"

    # ---- what an application that echoes shows of what it was told

    def echoes_fit(self) -> bool:
        """All echoes that are due on the streams of the application have come."""
        return not list(self.echo_differences(session_over=False))

    def echo_differences(self, *, session_over: bool) -> Iterator[str]:
        """Where the echoes are not what the application has to have read.

        A stream that was reset, by either side, and any in a session that is over, need not have
        been echoed to the end.
        """
        ends: dict[int, tuple[bytes, bool, bool, bool]] = {}
        for told in self._vector.shown or ():
            before, _, _, looked_at = ends.get(told.stream_id, (b"", False, False, True))
            ends[told.stream_id] = (
                before + (told.received or b""),
                told.end == "fin",
                session_over or told.end == "error" or told.stream_id in self._reset,
                looked_at and told.received is not None,
            )
        for stream_id, (right, fin, cut, looked_at) in ends.items():
            came = self._echoes.data.get(stream_id, b"")
            if looked_at and not (right.startswith(came) if cut else right == came):
                yield f"stream {stream_id} echoes {_shown(came)}, and {_shown(right)} was sent"
            if stream_id in self._echoes.ended and not fin:
                yield f"stream {stream_id} is ended, as if all of it had come"
            elif fin and not cut and stream_id not in self._echoes.ended:
                yield f"stream {stream_id} is not ended, although its opener has"


def _names(frames: Counter[tuple[str, ...]], vector: Vector) -> Iterator[str]:
    for (kind, *fields), count in sorted(frames.items()):
        yield from [f"{kind} ({', '.join(_named(field, vector) for field in fields)})"] * count


def _named(field_text: str, vector: Vector) -> str:
    """A field for a reader: error codes get their names."""
    key, _, value = field_text.partition("=")
    if key == "error_code":
        return error_names(vector.version).get(int(value), f"error {value}")
    return f"{key.replace('_', ' ')} {value}"


def _shown(data: bytes) -> str:
    return f"{len(data)} bytes" if len(data) > 16 else (data.hex() or "nothing")
