"""Bytes <-> frames: what both generations share.

Both wires have an eight-byte, big-endian header: a word that packs length, flags and type,
and a word with the stream id.  They differ in where the bits are and in a handful of rules,
so a wire is data (:class:`Wire`), and one encoder and one decoder serve both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from struct import Struct
from typing import Literal, TypeAlias

from .byte_queue import Buffer
from .errors import ErrorCode
from .frames import (
    Data,
    DataRest,
    DataRun,
    Frame,
    GoAway,
    GoAwayDebug,
    Malformed,
    Rst,
    Syn,
    Unknown,
    WndInc,
)

HEADER_SIZE = 8
"""Bytes of a frame header, in both generations."""

MAX_STREAM_ID = 0x7FFFFFFF
"""Stream ids have 31 bits; the top bit is reserved and ignored."""

MAX_PRIORITY = 0x7FFFFFFF
"""A priority has 31 bits as well."""

COPY_BELOW = 2048
"""Bytes of a payload below which a copy is cheaper than a view."""

MAX_DEBUG = 4096
"""Bytes of a GOAWAY's debug text that are kept; a peer may announce megabytes."""

SYN_FIN = 0x1
SYN_PRIORITY = 0x2
SYN_TYPE = 0x4

_Received: TypeAlias = "bytes | memoryview"

# What a named tuple's class does as well, by one call more for each frame.
_make_data = partial(tuple.__new__, Data)  # pyright: ignore[reportUnknownMemberType]

_WORD = Struct(">I")
_TWO_WORDS = Struct(">II")
_THREE_WORDS = Struct(">III")
_FOUR_WORDS = Struct(">IIII")


@dataclass(frozen=True, eq=False, repr=False)
class Wire:
    """One generation of the protocol, as data: where its bits are, and what it rules."""

    name: Literal["v1", "v2"]
    length_shift: int
    length_mask: int
    flags_shift: int
    flags_mask: int
    type_shift: int
    type_mask: int
    types: Mapping[str, int]
    """Frame types by name; ``SYN`` is missing where DATA opens a stream."""
    syn_flag: int
    """The flag of DATA that opens a stream, 0 where a SYN frame does."""

    initial_window: int
    """Bytes that each end may send on a new stream before it is granted more."""
    max_payload: int
    """Bytes that we put into one DATA frame."""
    error_codes: Mapping[ErrorCode, int]
    """What each code is on this wire; several may share a number that stands for them."""
    heartbeat_type: int
    heartbeat_interval: float
    """Seconds between the heartbeats of the known peers."""
    heartbeat_tolerance: float
    """Seconds past the interval after which the known peers give up."""
    first_extension_type: int
    """Stream types from here on are extensions, never shown to an application."""

    skips_unknown_frames: bool
    """An unknown frame type is skipped; otherwise it is a protocol error."""
    syns_rise: bool
    """A SYN must carry a higher id than all that came before."""
    ignores_zero_increment: bool
    """A WNDINC of zero is ignored; otherwise it is a protocol error."""
    goaway_overstates: bool
    """A known peer announces GOAWAY debug bytes that it never sends (Go v1)."""
    goaway_understates: bool
    """A known peer leaves eight bytes out of a GOAWAY's length (Rust)."""

    known_codes: Mapping[int, ErrorCode] = field(init=False)
    _data_bits: int = field(init=False)
    _fin_bits: int = field(init=False)
    _syn_bits: int = field(init=False)

    def __post_init__(self) -> None:
        by_number: dict[int, ErrorCode] = {}
        for code, number in self.error_codes.items():
            by_number.setdefault(number, code)
        set_once = object.__setattr__
        set_once(self, "known_codes", by_number)
        set_once(self, "_data_bits", self.types["DATA"] << self.type_shift)
        set_once(self, "_fin_bits", SYN_FIN << self.flags_shift)
        set_once(self, "_syn_bits", self.syn_flag << self.flags_shift)

    def __repr__(self) -> str:
        return f"<Wire {self.name}>"

    @property
    def has_syn_frame(self) -> bool:
        """Streams are opened by a frame of their own, which carries type and priority."""
        return "SYN" in self.types

    def code_from_wire(self, number: int) -> ErrorCode | int:
        """What a received error code means; a number without a name stays a number."""
        return self.known_codes.get(number, number)

    def code_to_wire(self, code: ErrorCode | int) -> int:
        """The number to send for ``code``; plain numbers are sent as they are."""
        return self.error_codes[code] if isinstance(code, ErrorCode) else code

    def header(self, frame: str, length: int, flags: int, stream_id: int) -> bytes:
        """The eight bytes in front of any frame."""
        word = (
            length << self.length_shift
            | flags << self.flags_shift
            | self.types[frame] << self.type_shift
        )
        return _TWO_WORDS.pack(word, stream_id)

    def data_header(self, stream_id: int, length: int, *, fin: bool, syn: bool = False) -> bytes:
        """The header of a DATA frame; the payload follows it as it is, uncopied."""
        word = length << self.length_shift | self._data_bits
        if fin:
            word |= self._fin_bits
        if syn:
            word |= self._syn_bits
        return _TWO_WORDS.pack(word, stream_id)

    def syn(self, stream_id: int, priority: int, stream_type: int) -> bytes:
        """A SYN frame (v1): a field is present exactly when it is not zero.

        There is no FIN: an acceptor of the Go library takes it for its own direction.
        """
        flags = 0
        body = b""
        if priority:
            flags |= SYN_PRIORITY
            body += _WORD.pack(priority)
        if stream_type:
            flags |= SYN_TYPE
            body += _WORD.pack(stream_type)
        return self.header("SYN", len(body), flags, stream_id) + body

    def opens(self, frame: Buffer) -> int | None:
        """The id of the stream that a frame of ours opens, if it is a SYN (v1)."""
        word, stream_id = _TWO_WORDS.unpack_from(frame)
        is_syn = word >> self.type_shift & self.type_mask == self.types["SYN"]
        return stream_id if is_syn else None

    def rst(self, stream_id: int, code: ErrorCode | int) -> bytes:
        """An RST frame."""
        return self.header("RST", 4, 0, stream_id) + _WORD.pack(self.code_to_wire(code))

    def wndinc(self, stream_id: int, increment: int) -> bytes:
        """A WNDINC frame."""
        return self.header("WNDINC", 4, 0, stream_id) + _WORD.pack(increment)

    def goaway(self, last_stream_id: int, code: ErrorCode | int, debug: bytes) -> bytes:
        """A GOAWAY frame."""
        body = _TWO_WORDS.pack(last_stream_id, self.code_to_wire(code)) + debug
        return self.header("GOAWAY", len(body), 0, 0) + body


class Decoder:
    """Bytes of one wire to frames, however they are cut.

    ``knows_stream(stream_id, opening)`` says whether a frame with that id could come next;
    it settles whether bytes behind a GOAWAY are its debug text or a frame (see
    ``Wire.goaway_overstates``).  With ``runs``, equal DATA frames in a row may be one ``DataRun``.
    """

    def __init__(
        self, wire: Wire, knows_stream: Callable[[int, bool], bool], *, runs: bool = False
    ) -> None:
        self._wire = wire
        self._knows_stream = knows_stream
        self._runs = runs
        self._tail = b""
        self._data_left = 0
        self._skip_left = 0
        self._debug_left = 0
        self._debug = b""
        self._debug_doubted = False
        self._broken = False
        self._newest_syn = 0  # of this read, whose frames nobody has handled yet
        types = wire.types
        self._parsers: dict[
            int, Callable[[_Received, int, int, int, int], tuple[Frame, int] | None]
        ]
        self._parsers = {
            types["RST"]: self._parse_rst,
            types["WNDINC"]: self._parse_wndinc,
            types["GOAWAY"]: self._parse_goaway,
        }
        if wire.has_syn_frame:
            self._parsers[types["SYN"]] = self._parse_syn

    def feed(self, data: _Received) -> list[Frame]:
        """All frames that ``data`` completes; after ``Malformed`` everything is ignored.

        Their payloads may be views of it.
        """
        frames: list[Frame] = []
        self._newest_syn = 0
        if self._broken:
            return frames
        if self._tail:
            data = self._tail + data
            self._tail = b""
        wire = self._wire
        length_shift, length_mask = wire.length_shift, wire.length_mask
        type_bits = wire.type_mask << wire.type_shift
        data_bits, fin_bits, syn_bits = wire._data_bits, wire._fin_bits, wire._syn_bits
        position, end = 0, len(data)
        while position < end:
            if self._data_left:
                size = min(self._data_left, end - position)
                self._data_left -= size
                # A piece that is all that was fed is passed on as it is, uncopied.
                whole = size == end
                rest = data if whole else memoryview(data)[position : position + size]
                frames.append(DataRest(rest, not self._data_left))
                position += size
            elif self._skip_left:
                size = min(self._skip_left, end - position)
                self._skip_left -= size
                position += size
            elif self._debug_left:
                used = self._take_debug(data, position, frames)
                if used is None:
                    break
                position += used
            elif end - position < HEADER_SIZE:
                break
            else:
                word, stream_id = _TWO_WORDS.unpack_from(data, position)
                stream_id &= MAX_STREAM_ID
                length = word >> length_shift & length_mask
                if word & type_bits == data_bits:
                    if not stream_id:
                        self._fail(frames, ErrorCode.PROTOCOL_ERROR, "DATA with stream id 0")
                        return frames
                    position += HEADER_SIZE
                    payload: bytes | memoryview
                    if length < COPY_BELOW:
                        payload = data[position : position + length]
                    else:
                        payload = memoryview(data)[position : position + length]
                    position += len(payload)
                    self._data_left = length - len(payload)
                    fin, syn = word & fin_bits != 0, word & syn_bits != 0
                    frames.append(_make_data((stream_id, length, payload, syn, fin)))
                    if self._runs and length >= COPY_BELOW and not (fin or syn):
                        position = self._take_run(data, position, word, stream_id, length, frames)
                else:
                    used = self._control_frame(data, position, word, length, stream_id, frames)
                    if not used:
                        if frames and type(frames[-1]) is Malformed:
                            return frames
                        break
                    position += used
        if position < end:
            self._tail = bytes(data[position:])
        return frames

    def _take_run(
        self,
        data: _Received,
        position: int,
        word: int,
        stream_id: int,
        length: int,
        out: list[Frame],
    ) -> int:
        """Add the whole frames at ``position`` that have this header; where they end."""
        view = memoryview(data)
        last = len(data) - HEADER_SIZE - length  # where the last that is whole could begin
        payloads: list[memoryview] = []
        while position <= last and _TWO_WORDS.unpack_from(data, position) == (word, stream_id):
            position += HEADER_SIZE
            payloads.append(view[position : position + length])
            position += length
        if payloads:
            out.append(DataRun(stream_id, length, payloads))
        return position

    def _control_frame(
        self,
        data: _Received,
        position: int,
        word: int,
        length: int,
        stream_id: int,
        out: list[Frame],
    ) -> int:
        """Add the frame at ``position``; its size, or 0 when more bytes must come first."""
        wire = self._wire
        flags = word >> wire.flags_shift & wire.flags_mask
        frame_type = word >> wire.type_shift & wire.type_mask
        parse = self._parsers.get(frame_type)
        if parse is None:
            if not wire.skips_unknown_frames:
                self._fail(out, ErrorCode.PROTOCOL_ERROR, f"unknown frame type {frame_type}")
                return 0
            self._skip_left = length
            out.append(Unknown(frame_type, flags, stream_id, length))
            return HEADER_SIZE
        parsed = parse(data, position + HEADER_SIZE, length, flags, stream_id)
        if parsed is None:
            return 0
        frame, body_size = parsed
        out.append(frame)
        if type(frame) is Malformed:
            self._broken = True
            return 0
        return HEADER_SIZE + body_size

    def _fail(self, out: list[Frame], code: ErrorCode, message: str) -> None:
        self._broken = True
        out.append(Malformed(code, message))

    def _parse_syn(
        self, data: _Received, at: int, length: int, flags: int, stream_id: int
    ) -> tuple[Frame, int] | None:
        expected = _syn_size(flags)
        if length != expected:
            return _wrong_size("SYN", length, expected), 0
        if len(data) - at < length:
            return None
        self._newest_syn = stream_id
        priority = stream_type = 0
        if flags & SYN_PRIORITY:
            priority = _WORD.unpack_from(data, at)[0] & MAX_PRIORITY
        if flags & SYN_TYPE:
            stream_type = _WORD.unpack_from(data, at + length - 4)[0]
        return Syn(stream_id, priority, stream_type, flags & SYN_FIN != 0), length

    def _parse_rst(
        self, data: _Received, at: int, length: int, flags: int, stream_id: int
    ) -> tuple[Frame, int] | None:
        if length != 4:
            return _wrong_size("RST", length, 4), 0
        if not stream_id:
            return Malformed(ErrorCode.PROTOCOL_ERROR, "RST with stream id 0"), 0
        if len(data) - at < 4:
            return None
        return Rst(stream_id, _WORD.unpack_from(data, at)[0]), 4

    def _parse_wndinc(
        self, data: _Received, at: int, length: int, flags: int, stream_id: int
    ) -> tuple[Frame, int] | None:
        if length != 4:
            return _wrong_size("WNDINC", length, 4), 0
        if not stream_id:
            return Malformed(ErrorCode.PROTOCOL_ERROR, "WNDINC with stream id 0"), 0
        if len(data) - at < 4:
            return None
        return WndInc(stream_id, _WORD.unpack_from(data, at)[0] & 0x7FFFFFFF), 4

    def _parse_goaway(
        self, data: _Received, at: int, length: int, flags: int, stream_id: int
    ) -> tuple[Frame, int] | None:
        if stream_id:
            return Malformed(ErrorCode.PROTOCOL_ERROR, f"GOAWAY with stream id {stream_id}"), 0
        debug_size = length - 8
        if debug_size < 0:
            return _wrong_size("GOAWAY", length, 8), 0
        if len(data) - at < 8:
            return None
        last_stream_id, number = _TWO_WORDS.unpack_from(data, at)
        self._debug = b""
        self._debug_left = debug_size
        # Go v1 announces eight bytes more than its debug text has, so never fewer than eight.
        self._debug_doubted = self._wire.goaway_overstates and debug_size >= 8
        return GoAway(last_stream_id & MAX_STREAM_ID, number), 8

    def _take_debug(self, data: _Received, position: int, out: list[Frame]) -> int | None:
        """Take debug text; how many bytes, or None when more must come to tell what they are."""
        available = len(data) - position
        if self._debug_doubted:
            if available < HEADER_SIZE:
                return None
            self._debug_doubted = False
            if self._looks_like_a_frame(data, position):
                self._debug_left = 0
                return 0
        size = min(self._debug_left, available)
        self._debug_left -= size
        room = MAX_DEBUG - len(self._debug)
        self._debug += data[position : position + min(size, room)]
        if not self._debug_left:
            out.append(GoAwayDebug(self._debug))
        return size

    def _looks_like_a_frame(self, data: _Received, position: int) -> bool:
        wire = self._wire
        word, stream_id = _TWO_WORDS.unpack_from(data, position)
        length = word >> wire.length_shift & wire.length_mask
        flags = word >> wire.flags_shift & wire.flags_mask
        names = {number: name for name, number in wire.types.items()}
        name = names.get(word >> wire.type_shift & wire.type_mask, "")
        reserved_are_zero = (
            wire.header(name, length, flags, stream_id) == data[position : position + HEADER_SIZE]
            if name
            else False
        )
        if not reserved_are_zero or stream_id > MAX_STREAM_ID:
            return False
        if name == "GOAWAY":
            return not stream_id and not flags and length >= 8
        if name == "SYN":
            sane = flags <= (SYN_FIN | SYN_PRIORITY | SYN_TYPE) and length == _syn_size(flags)
        elif name == "DATA":
            sane = flags <= SYN_FIN
        else:
            sane = length == 4 and not flags
        return sane and self._could_come(stream_id, opening=name == "SYN")

    def _could_come(self, stream_id: int, *, opening: bool) -> bool:
        newest = self._newest_syn
        if not newest:
            return self._knows_stream(stream_id, opening)
        if opening:
            return stream_id == newest + 2
        opened_just_now = 1 < stream_id <= newest and stream_id % 2 == newest % 2
        return opened_just_now or self._knows_stream(stream_id, opening)


def _syn_size(flags: int) -> int:
    return (4 if flags & SYN_PRIORITY else 0) + (4 if flags & SYN_TYPE else 0)


def _wrong_size(frame: str, length: int, expected: int) -> Malformed:
    return Malformed(
        ErrorCode.FRAME_SIZE_ERROR, f"{frame} of {length} bytes where {expected} were due"
    )
