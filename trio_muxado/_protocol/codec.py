"""The format of frames, as both protocol versions have it, and how they are encoded.

Both wires have an eight-byte, big-endian header: a word that packs length, flags and type,
and a word with the stream id.  They differ in where the bits are and in a handful of rules,
so a wire is data (:class:`Wire`), and one encoder and one decoder serve both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Literal

from .byte_queue import Buffer
from .errors import ErrorCode

HEADER_SIZE = 8
"""Bytes of a frame header, in both versions."""

MAX_STREAM_ID = 0x7FFFFFFF
"""Stream ids have 31 bits; the top bit is reserved and ignored."""

MAX_PRIORITY = 0x7FFFFFFF
"""A priority has 31 bits as well."""

TYPE_SIZE = 4
"""Bytes of a stream's type, which are its first on a typed v2 session."""

MAX_DEBUG = 4096
"""Bytes of a GOAWAY's debug text that are kept; a peer may announce megabytes."""

SYN_FIN = 0x1
SYN_PRIORITY = 0x2
SYN_TYPE = 0x4

_WORD = Struct(">I")
_TWO_WORDS = Struct(">II")


@dataclass(frozen=True, eq=False, repr=False)
class Wire:
    """One protocol version as data: where its bits are, and its rules."""

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
    """Bytes that each side may send on a new stream before it is granted more."""
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

    has_syn_frame: bool = field(init=False)
    """Streams are opened by a frame of their own, which carries type and priority."""
    names: Mapping[int, str] = field(init=False)
    """Of the frame types."""
    known_codes: Mapping[int, ErrorCode] = field(init=False)
    bare_syn: int = field(init=False)
    """The first word of a SYN frame without type and priority; -1 where there is none."""
    data_bits: int = field(init=False)
    fin_bits: int = field(init=False)
    syn_bits: int = field(init=False)
    head_bits: tuple[int, int, int, int, int, int, int] = field(init=False)
    """Where the decoder finds what of the first word of a frame; unpacked in one go."""

    def __post_init__(self) -> None:
        by_number: dict[int, ErrorCode] = {}
        for code, number in self.error_codes.items():
            by_number.setdefault(number, code)
        set_once = object.__setattr__
        set_once(self, "has_syn_frame", "SYN" in self.types)
        set_once(self, "names", {number: name for name, number in self.types.items()})
        set_once(self, "known_codes", by_number)
        syn = self.types["SYN"] << self.type_shift if self.has_syn_frame else -1
        set_once(self, "bare_syn", syn)
        set_once(self, "data_bits", self.types["DATA"] << self.type_shift)
        set_once(self, "fin_bits", SYN_FIN << self.flags_shift)
        set_once(self, "syn_bits", self.syn_flag << self.flags_shift)
        type_bits = self.type_mask << self.type_shift
        bits = (type_bits, self.data_bits, self.fin_bits, self.syn_bits, self.bare_syn)
        set_once(self, "head_bits", (self.length_shift, self.length_mask, *bits))

    def __repr__(self) -> str:
        return f"<Wire {self.name}>"

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

    def data_header(
        self, stream_id: int, length: int, fin: bool = False, syn: bool = False
    ) -> bytes:
        """The header of a DATA frame; the payload follows it as it is, uncopied."""
        word = length << self.length_shift | self.data_bits
        if fin:
            word |= self.fin_bits
        if syn:
            word |= self.syn_bits
        return _TWO_WORDS.pack(word, stream_id)

    def syn(self, stream_id: int, priority: int, stream_type: int) -> bytes:
        """A SYN frame (v1): a field is present exactly when it is not zero.

        There is no FIN: an acceptor of the Go library takes it for its own direction.
        """
        if not (priority or stream_type):  # fast path of what follows: most streams
            return _TWO_WORDS.pack(self.bare_syn, stream_id)
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


def syn_size(flags: int) -> int:
    """Bytes of the body of a SYN with these flags (v1)."""
    return (4 if flags & SYN_PRIORITY else 0) + (4 if flags & SYN_TYPE else 0)


def check_priority(priority: int) -> None:
    """Raise ValueError for a number that no frame can carry as a priority."""
    if not 0 <= priority <= MAX_PRIORITY:
        raise ValueError(f"a priority is an unsigned 31-bit number, not {priority}")
