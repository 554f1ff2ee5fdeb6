"""Looking at every frame of a session.

The tracer decodes the bytes of the transport a second time, in both directions, so that the
protocol pays nothing for it when it is off, and what it shows is what was really on the wire.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias

import trio

from ._errors import printable
from ._protocol import frames
from ._protocol.checks import shown
from ._protocol.wire import Decoder

if TYPE_CHECKING:
    from ._protocol.connection import Connection
    from ._protocol.wire import Wire


@dataclass(frozen=True, slots=True)
class TracedFrame:
    """One frame on the wire of one session.

    Attributes:
      time: when it was read or written, on trio's clock, in seconds.
      session: the session's number in this process, as in its ``repr``.
      direction: ``"in"`` for a frame that was received, ``"out"`` for one that was sent.
      frame: SYN, DATA, RST, WNDINC or GOAWAY; or another word, for bytes that are no such frame.
      stream_id: the stream's id; 0 for the session.
      length: bytes of the frame's body.
      detail: flags, codes and numbers, for people to read: one line, with a GOAWAY's text escaped.
    """

    time: float
    session: int
    direction: Literal["in", "out"]
    frame: str
    stream_id: int
    length: int
    detail: str


Tracer: TypeAlias = Callable[[TracedFrame], Any]
"""What ``MuxadoConfig.tracer`` takes: it is called for every frame and must not wait.

What it raises ends the session, and leaves its ``async with``."""


class TransportTrace:
    """Tells a tracer what the bytes of one session's transport mean."""

    def __init__(self, tracer: Tracer, connection: Connection, session: int) -> None:
        self._tracer = tracer
        self._connection = connection
        self._session = session
        self._frames: dict[str, FrameTrace] = {}
        self._undetected = b""

    def saw(self, direction: Literal["in", "out"], data: bytes | memoryview) -> None:
        """Bytes went over the transport."""
        wire = self._connection.wire
        if wire is None:
            self._undetected += data
            return
        if self._undetected:
            data, self._undetected = self._undetected + data, b""
        trace = self._frames.get(direction)
        if trace is None:
            knows_stream = self._connection.streams.could_come_next
            trace = FrameTrace(self._tracer, self._session, direction, wire, knows_stream)
            self._frames[direction] = trace
        trace.saw(data)


class FrameTrace:
    """Tells a tracer what the bytes of one direction mean, of a protocol version that is known.

    ``knows_stream`` is that of the :class:`Decoder`, and ``now`` the clock.
    """

    def __init__(
        self,
        tracer: Tracer,
        session: int,
        direction: Literal["in", "out"],
        wire: Wire,
        knows_stream: Callable[[int, bool], bool],
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self._tracer = tracer
        self._session = session
        self._direction: Literal["in", "out"] = direction
        self._wire = wire
        self._decoder = Decoder(wire, knows_stream)
        self._now = now

    def saw(self, data: bytes | memoryview) -> None:
        """These bytes came next."""
        for frame in self._decoder.feed(data):
            if not isinstance(frame, frames.DataRest):
                self._tracer(self._describe(frame))

    def _describe(self, frame: frames.Frame) -> TracedFrame:
        name, stream_id, length, detail = type(frame).__name__.upper(), 0, 0, ""
        match frame:
            case frames.Syn(stream_id, priority, stream_type, fin):
                length = 4 * bool(priority) + 4 * bool(stream_type)
                detail = f"type={stream_type:#x} priority={priority}" + " FIN" * fin
            case frames.Data(stream_id, length, _, syn, fin):
                detail = " ".join(["SYN"] * syn + ["FIN"] * fin)
            case frames.Rst(stream_id, number):
                length, detail = 4, _code(self._wire, number)
            case frames.WndInc(stream_id, increment):
                length, detail = 4, f"+{increment}"
            case frames.GoAway(last_stream_id, number):
                length, detail = 8, f"last={last_stream_id} {_code(self._wire, number)}"
            case frames.GoAwayDebug(debug):
                name, length, detail = "GOAWAY debug", len(debug), printable(debug)
            case frames.Unknown(kind, flags, stream_id, length):
                detail = f"type={kind} flags={flags:#x}"
            case frames.Malformed(code, message):
                detail = f"{code.name}: {message}"
            case frames.DataRest() | frames.DataRun():
                raise AssertionError("reported with the DATA before it, or never asked for")
        return TracedFrame(
            self._now(), self._session, self._direction, name, stream_id, length, detail
        )


def _code(wire: Wire, number: int) -> str:
    code = wire.known_codes.get(number)
    return f"error {number}" if code is None else code.name


class TableTracer:
    """Writes a line of a table for every frame.  Many sessions may share one.

    Args:
      file: a text file to write to; standard error when it is None.

    A deep copy is the same tracer, with the same file.

    Raises:
      TypeError: ``file`` is not a text file that can be written to.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        if file is not None:
            _check_file(file)
        self._file = (
            file  # standard error is looked up as lines are written, so this can be pickled
        )
        self._start: float | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> TableTracer:
        return self

    def __call__(self, frame: TracedFrame) -> None:
        file = sys.stderr if self._file is None else self._file
        if self._start is None:
            self._start = frame.time
            file.write(
                f"{'time':>10} {'session':>8}      {'frame':12} "
                f"{'stream':>10} {'bytes':>8}  detail\n"
            )
        arrow = "<--" if frame.direction == "in" else "-->"
        file.write(
            f"{frame.time - self._start:10.6f} {frame.session:8}  {arrow} {frame.frame:12} "
            f"{frame.stream_id:10} {frame.length:8}  {frame.detail}\n"
        )


class JsonLinesTracer:
    """Writes a line of JSON for every frame: the fields of :class:`TracedFrame`.

    Args:
      file: a text file to write to.

    A deep copy is the same tracer, with the same file.

    Raises:
      TypeError: ``file`` is not a text file that can be written to.
    """

    def __init__(self, file: TextIO) -> None:
        _check_file(file)
        self._file = file

    def __deepcopy__(self, memo: dict[int, Any]) -> JsonLinesTracer:
        return self

    def __call__(self, frame: TracedFrame) -> None:
        self._file.write(json.dumps(asdict(frame)) + "\n")


def _check_file(file: object) -> None:
    takes_bytes = isinstance(file, io.RawIOBase | io.BufferedIOBase)
    if takes_bytes or not callable(getattr(file, "write", None)):
        raise TypeError(f"file must be a text file, not {shown(file)}")
