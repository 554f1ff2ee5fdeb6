"""What a fuzzer throws bytes at.

Each target takes any bytes and returns nothing.  What it raises is a fault of the protocol.  The
first bytes of an input choose what is tried, so that the fuzzer finds that out as well:

| byte | what |
|---|---|
| 0 | bits: v2, client, typed, detect the version, frames (see below), small limits |
| 1 | how the rest is cut into reads |
| 2 | bytes of the script that follows it: what the application does (``application`` alone) |

The rest is what the peer sends: as it is, or with the bit for frames as records of four bytes, from
which whole frames are made.  So a few bytes can be a window full of data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trio_muxado._protocol.codec import MAX_STREAM_ID, Wire
from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.decoder import FRAMES_AT_ONCE, Decoder
from trio_muxado._protocol.frames import Data, DataRest, DataRun, Frame, Syn
from trio_muxado._protocol.limits import Limits

from .driver import V1, V2, by_stream, receive, spread
from .fuzz import Application

V2_BIT, CLIENT, TYPED, DETECT, FRAMES, SMALL = (1 << bit for bit in range(6))

USUAL = Limits()
FEW = Limits(
    max_inbound_streams=2,
    max_outbound_streams=2,
    max_extension_streams=1,
    accept_backlog=1,
    unread_resets=3,
    provoked_resets=3,
    waiting_control_frames=5,
    empty_frames=2,
    receive_window=300_000,
    receive_budget=400_000,
)

LARGE = (16_383, 65_532, 65_535, 65_536, 65_537, 262_140, 262_143, 262_144, 262_145, 300_001)
"""Bytes of payloads around windows; a v1 frame takes the first alone."""

ONE_BY_ONE = 256
"""Bytes that are fed one at a time; what follows them, in larger pieces."""


@dataclass
class Input:
    """An input of the fuzzer, taken apart."""

    choices: int
    cuts: int
    script: bytes
    rest: bytes

    @classmethod
    def of(cls, data: bytes) -> Input:
        choices, cuts, size = data[:3].ljust(3, b"\0")
        return cls(choices, cuts, data[3 : 3 + size], data[3 + size :])

    def to_bytes(self) -> bytes:
        """The input that this is."""
        return bytes((self.choices, self.cuts, len(self.script))) + self.script + self.rest

    @property
    def wire(self) -> Wire:
        return V2 if self.choices & V2_BIT else V1

    def connection(self) -> Connection:
        """The connection under test; a client has opened three streams."""
        client = bool(self.choices & CLIENT)
        core = Connection(
            client=client,
            wire=None if self.choices & DETECT and not client else self.wire,
            limits=FEW if self.choices & SMALL else USUAL,
            typed=bool(self.choices & TYPED),
        )
        for _ in range(3 * client):
            core.open_stream()
        return core

    def sent(self) -> bytes:
        """What the peer sends."""
        if not self.choices & FRAMES:
            return self.rest
        return b"".join(frames(self.wire, self.rest))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """``data``, cut as the input says."""
        most = (1, 3, 8, 9, 50, 1000, 20_000, 1 << 20)[self.cuts % 8]
        most = max(most, len(data) // 100)  # what is large takes too long otherwise
        size, start = self.cuts // 8, 0
        while start < len(data):
            size = (size * 5 + 3) % 8191  # any sequence will do
            end = start + 1 + size % most
            yield data[start:end]
            start = end


def frames(wire: Wire, records: bytes) -> Iterator[bytes]:
    """Frames from records of four bytes: what, of which stream, and a number of two bytes."""
    position, size = 0, 0
    while position + 4 <= len(records) and size < 330_000:
        what, stream_id, high, low = records[position : position + 4]
        position += 4
        number = high << 8 | low
        stream_id = MAX_STREAM_ID if stream_id == 0xFF else stream_id % 32
        match what % 8:
            case 0 | 1 | 2:
                large = min(LARGE[low % len(LARGE)], wire.length_mask)
                length = large if high == 0xFF else number % 300
                header = wire.data_header(stream_id, length, fin=what & 8 > 0, syn=what & 16 > 0)
                frame = header + bytes(length)
            case 3 if wire.has_syn_frame:
                stream_type = wire.heartbeat_type if high & 1 else low
                frame = wire.syn(stream_id, high >> 1, stream_type)
            case 3:
                payload = b"\xff\xff\xff\xff" if high & 1 else bytes((0, 0, 0, low))
                frame = wire.data_header(stream_id, 4, syn=True) + payload
            case 4:
                frame = wire.rst(stream_id, number)
            case 5:
                frame = wire.wndinc(stream_id, number if number < 0xFF00 else 0x7FFFFFFF)
            case 6:
                debug = bytes(low)
                frame = wire.goaway(stream_id, high, debug)
                if what & 8:  # what Rust sends: a length that is too small
                    frame = wire.header("GOAWAY", low % 16, 0, 0) + frame[8:]
            case _:
                frame = records[position : position + number % 32]  # as it is
                position += len(frame)
        size += len(frame)
        yield frame


def one_by_one(data: bytes) -> Iterator[bytes]:
    """A byte at a time, as long as that is quick."""
    for position in range(min(len(data), ONE_BY_ONE)):
        yield data[position : position + 1]
    for position in range(ONE_BY_ONE, len(data), 4099):
        yield data[position : position + 4099]


# ---- the targets


def decoder(data: bytes) -> None:
    """The same frames, however the bytes are cut and however many are decoded at once."""
    given = Input.of(data)
    sent = given.sent()
    whole = _decode(given, [sent], runs=True, at_once=1 + given.cuts)
    assert whole == _decode(given, one_by_one(sent))
    assert whole == _decode(given, given.pieces(sent), runs=True, at_once=FRAMES_AT_ONCE)


def _decode(given: Input, pieces: Iterable[bytes], **choices: Any) -> list[Frame]:
    newest = 0  # the latest stream that the peer has opened

    def knows(stream_id: int, opening: bool) -> bool:
        if opening:
            return stream_id == (newest + 2 if newest else 9)
        opened = 1 < stream_id <= newest and stream_id % 2 == newest % 2
        return opened or stream_id in (2, 3, 5)

    decoder = Decoder(given.wire, knows, **choices)
    decoded: list[Frame] = []
    for piece in pieces:
        buffer = bytearray(piece)
        came = decoder.feed(memoryview(buffer))
        while True:
            decoded += map(_kept, came)
            newest = next((f.stream_id for f in reversed(came) if isinstance(f, Syn)), newest)
            if not decoder.has_more:
                break
            # What is left was copied, as its buffer may be used again.
            buffer[:] = b"\xaa" * len(buffer)
            came = decoder.feed(b"")
    return _until_a_wrong_syn(spread(decoded))


def _until_a_wrong_syn(decoded: list[Frame]) -> list[Frame]:
    """What the connection handles: it ends with a SYN that the peer must not send."""
    newest = 0
    for number, frame in enumerate(decoded, 1):
        if isinstance(frame, Syn):
            other_side = newest > 0 and frame.stream_id % 2 != newest % 2
            if frame.stream_id <= max(1, newest) or other_side:
                return decoded[:number]
            newest = frame.stream_id
    return decoded


def _kept(frame: Frame) -> Frame:
    """A frame without views of what was fed."""
    match frame:
        case Data() | DataRest():
            return frame._replace(payload=bytes(frame.payload))
        case DataRun():
            return frame._replace(payloads=[memoryview(bytes(p)) for p in frame.payloads])
    return frame


def connection(data: bytes) -> None:
    """The same events and the same answers, however the bytes are cut."""
    given = Input.of(data)
    sent = given.sent()
    told, answers = [], []
    for pieces in [sent], given.pieces(sent), one_by_one(sent):
        core = given.connection()
        happened = [e for piece in pieces for e in receive(core, bytearray(piece), 0.0)]
        told.append(by_stream(happened))
        answers.append(core.wants_to_send and b"".join(core.data_to_send(1 << 30)[0]))
    assert told[0] == told[1] == told[2]
    assert answers[0] == answers[1] == answers[2]


class _Script(random.Random):
    """Numbers from a script; behind its end, those with which nothing is done."""

    def __new__(cls, script: bytes) -> _Script:
        return super().__new__(cls)

    def __init__(self, script: bytes) -> None:
        super().__init__(0)
        self._left = iter(script)

    def random(self) -> float:
        return next(self._left, 255) / 256

    def getrandbits(self, k: int) -> int:
        size = (k + 7) // 8
        number = int.from_bytes((next(self._left, 0) for _ in range(size)), "big")
        return number >> (size * 8 - k)

    def randbytes(self, n: int) -> bytes:
        return bytes(n)


def application(data: bytes) -> None:
    """An application that does something after each read: the counts are right, and come back."""
    given = Input.of(data)
    core = given.connection()
    user = Application(_Script(given.script), core)
    user.streams += core.streams.live.values()
    user.meet(given.pieces(given.sent()))
    user.leave()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decoder": decoder,
    "connection": connection,
    "application": application,
}
