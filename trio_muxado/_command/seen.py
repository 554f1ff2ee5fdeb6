"""What two peers say to each other, for one who only sees their bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from trio_muxado import TracedFrame
from trio_muxado._protocol.errors import ProtocolViolation
from trio_muxado._protocol.wire import DETECTION_SIZE, WIRES, Wire, detect, looks_like
from trio_muxado._trace import FrameTrace

Direction = Literal["in", "out"]
"""``out`` is from the client to the server."""

WHO: dict[Direction, str] = {"out": "client", "in": "server"}


class SeenSession:
    """The frames of one connection, from its bytes in both directions.

    What is no frame is told as well, under a name in lower case: ``connected``, ``version``,
    ``garbage``, ``eof``, ``ended``.
    """

    def __init__(
        self, number: int, tell: Callable[[TracedFrame], object], wire: Literal["auto", "v1", "v2"]
    ) -> None:
        self._number = number
        self._tell = tell
        self._fixed = WIRES.get(wire)
        self._opened = _Opened()
        self._wires: dict[Direction, Wire] = {}
        self._traces: dict[Direction, FrameTrace] = {}
        self._garbage: set[Direction] = set()
        self._begun: dict[Direction, bytes] = {"out": b"", "in": b""}
        self._bytes: dict[Direction, int] = {"out": 0, "in": 0}

    def note(self, name: str, detail: str, direction: Direction = "out", length: int = 0) -> None:
        """Tell something that is no frame."""
        self._tell(TracedFrame(time.time(), self._number, direction, name, 0, length, detail))

    def saw(self, direction: Direction, data: bytes | bytearray) -> None:
        """These bytes came next; none are the end of the direction."""
        self._bytes[direction] += len(data)
        if not data:
            self._ended(direction)
        elif direction not in self._garbage:
            self._decode(direction, data)

    def _ended(self, direction: Direction) -> None:
        if rest := self._begun[direction]:
            self._is_garbage(direction, rest)
        self.note("eof", f"of the {WHO[direction]}", direction, self._bytes[direction])

    def _decode(self, direction: Direction, data: bytes | bytearray) -> None:
        trace = self._traces.get(direction)
        if trace is None:
            # A header's first four bytes say what this direction speaks.  Fewer have to wait.
            data = self._begun[direction] + data
            self._begun[direction] = b""
            if len(data) < DETECTION_SIZE:
                self._begun[direction] = bytes(data)
                return
            wire = self._fixed or _spoken(direction, bytes(data[:DETECTION_SIZE]))
            if wire is None:
                self._is_garbage(direction, data)
                return
            trace = self._begin(direction, wire)
        trace.saw(bytes(data))

    def _begin(self, direction: Direction, wire: Wire) -> FrameTrace:
        self._wires[direction] = wire
        if len(set(self._wires.values())) == len(self._wires):  # the first, or another one
            self.note("version", f"the {WHO[direction]} speaks muxado {wire.name}", direction)
        trace = FrameTrace(
            self._opened.watch(self._tell),
            self._number,
            direction,
            wire,
            self._opened.could_come_next,
            time.time,
        )
        self._traces[direction] = trace
        return trace

    def _is_garbage(self, direction: Direction, data: bytes | bytearray) -> None:
        """Nothing more of this direction is looked at."""
        self._garbage.add(direction)
        self._begun[direction] = b""
        begins = bytes(data[:8]).hex(" ")
        detail = f"not muxado: what the {WHO[direction]} sends begins with {begins}"
        self.note("garbage", detail, direction, len(data))


def _spoken(direction: Direction, first_bytes: bytes) -> Wire | None:
    if direction == "in":  # a server may begin with any frame
        return looks_like(first_bytes)
    try:
        return detect(first_bytes)
    except ProtocolViolation:
        return None


class _Opened:
    """Which streams have been opened: it tells debug text of a GOAWAY from a frame."""

    def __init__(self) -> None:
        self._latest = {0: 0, 1: 1}  # of even ids and of odd ones

    def watch(self, tell: Callable[[TracedFrame], object]) -> Callable[[TracedFrame], None]:
        """Tell, and note the streams that open."""

        def seen(frame: TracedFrame) -> None:
            if frame.frame == "SYN" or (frame.frame == "DATA" and "SYN" in frame.detail.split()):
                parity = frame.stream_id % 2
                self._latest[parity] = max(self._latest[parity], frame.stream_id)
            tell(frame)

        return seen

    def could_come_next(self, stream_id: int, opening: bool) -> bool:
        """Whether a frame of that stream could come now."""
        latest = self._latest[stream_id % 2]
        return stream_id == latest + 2 if opening else 1 < stream_id <= latest
