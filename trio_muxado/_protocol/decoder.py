"""Bytes of one wire to frames, however they are cut."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, ClassVar, TypeAlias

from .codec import (
    HEADER_SIZE,
    MAX_DEBUG,
    MAX_PRIORITY,
    MAX_STREAM_ID,
    SYN_FIN,
    SYN_PRIORITY,
    SYN_TYPE,
    Wire,
    syn_size,
)
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
    new_tuple,
)

COPY_BELOW = 2048
"""Bytes of a payload below which a copy is cheaper than a view."""

FRAMES_AT_ONCE = 256
"""Frames that a connection handles before others have their turn.

A frame costs 3 to 10 us with all that follows from it, so this is 1 to 3 ms; a read of 256 KiB can
hold a hundred times as many.  Ordinary bursts are less: 64 requests at once are 128 frames, and of
frames of 1 KiB a read has as many as this.
"""

_Received: TypeAlias = "bytes | memoryview"

_Parse: TypeAlias = "Callable[[Any, _Received, int, int, int, int], tuple[Frame, int] | None]"
"""Reads the body of a control frame; what is wrong with one is a frame as well."""

_WORD = Struct(">I")
_TWO_WORDS = Struct(">II")


class Decoder:
    """Bytes of one wire to frames, however they are cut.

    ``knows_stream(stream_id, opening)`` says whether a frame with that id could come next;
    it settles whether bytes after a GOAWAY are its debug text or a frame (see
    ``Wire.goaway_overstates``).  With ``runs``, equal DATA frames in a row may be one ``DataRun``.
    ``at_once`` bounds the frames of a call, each of a run among them.
    """

    __slots__ = (
        "_at_once",
        "_bits",
        "_broken",
        "_debug",
        "_debug_doubted",
        "_knows_stream",
        "_left",
        "_newest_syn",
        "_rest",
        "_rest_from",
        "_runs",
        "_tail",
        "_take_left",
        "_wire",
        "has_more",
    )

    def __init__(
        self,
        wire: Wire,
        knows_stream: Callable[[int, bool], bool],
        *,
        runs: bool = False,
        at_once: int = sys.maxsize,
    ) -> None:
        self._wire = wire
        self._bits = wire.head_bits
        self._knows_stream = knows_stream
        self._runs = runs
        self._at_once = at_once
        self.has_more: bool = False
        """``feed`` has stopped at the bound: it goes on when it is called with nothing."""
        self._rest = b""  # what it goes on with, from where
        self._rest_from = 0
        self._tail = b""
        # Bytes that are missing of the frame before, and what takes them: no bound method, which
        # would keep the decoder of a session that is over for the garbage collector to find.
        self._left = 0
        self._take_left: Callable[[Decoder, _Received, int, list[Frame]], int] = Decoder._skip
        self._debug = b""
        self._debug_doubted = False
        self._broken = False
        self._newest_syn = 0  # of this read, whose frames nobody has handled yet

    def feed(self, data: _Received) -> list[Frame]:
        """The frames that ``data`` completes, up to the bound; nothing after ``Malformed``.

        Their payloads may be views of it.  While it ``has_more``, it is to be called with nothing.
        """
        frames: list[Frame] = []
        self._newest_syn = 0
        position = 0
        if self.has_more:
            assert not data
            data, position = self._rest, self._rest_from
            self._rest = b""
            self.has_more = False
        elif self._broken or not data:
            return frames
        elif self._tail:
            data = self._tail + data
            self._tail = b""
        length_shift, length_mask, type_bits, data_bits, fin_bits, syn_bits, bare_syn = self._bits
        unpack, runs = _TWO_WORDS.unpack_from, self._runs
        last_header = len(data) - HEADER_SIZE  # where the last one that is whole could begin
        left = self._at_once  # frames that this call may add, those of runs beyond the first aside
        run_word = run_of = -1  # the header of the latest long frame: its equals are a run
        if self._left:
            position = self._take_left(self, data, 0, frames)
        while position <= last_header and len(frames) < left:
            word, stream_id = unpack(data, position)
            stream_id &= MAX_STREAM_ID
            length = word >> length_shift & length_mask
            if word & type_bits != data_bits:
                if word == bare_syn:  # so most streams of v1 begin; a parser's call less for each
                    self._newest_syn = stream_id
                    frames.append(new_tuple(Syn, (stream_id, 0, 0, False)))
                    position += HEADER_SIZE
                    continue
                used = self._control_frame(data, position, word, length, stream_id, frames)
                if used is None:
                    break
                position += used
                if self._left:
                    position += self._take_left(self, data, position, frames)
                continue
            if not stream_id:
                self._fail(frames, ErrorCode.PROTOCOL_ERROR, "DATA with stream id 0")
                break
            position += HEADER_SIZE
            fin, syn = word & fin_bits != 0, word & syn_bits != 0
            if length < COPY_BELOW:
                payload = data[position : position + length]
                frames.append(new_tuple(Data, (stream_id, length, payload, syn, fin)))
                position += length
                continue
            if word == run_word and stream_id == run_of:
                begun = position - HEADER_SIZE
                end = self._take_run(data, begun, word, stream_id, left - len(frames), frames)
                if end > begun:
                    left -= (end - begun) // (HEADER_SIZE + length) - 1
                    position = end
                    continue
            view = memoryview(data)[position : position + length]
            frames.append(new_tuple(Data, (stream_id, length, view, syn, fin)))
            position += length
            if runs and not (fin or syn):
                run_word, run_of = word, stream_id
        else:
            if position <= last_header:
                self._keep_rest(data, position)
                return frames
        missing = position - len(data)
        if missing > 0:
            self._left, self._take_left = missing, Decoder._take_data
        elif missing and not self._broken:
            self._tail = bytes(data[position:])
        return frames

    def _keep_rest(self, data: _Received, position: int) -> None:
        """Keep what was not looked at; ``data`` may be overwritten when its caller goes on."""
        self.has_more = True
        # Bytes are kept as they are, so however often this happens, a read is copied once.
        if type(data) is bytes:
            self._rest, self._rest_from = data, position
        else:
            self._rest, self._rest_from = bytes(data[position:]), 0

    def _take_data(self, data: _Received, position: int, out: list[Frame]) -> int:
        """Take what comes of a payload that the read before had only the beginning of."""
        size = min(self._left, len(data) - position)
        self._left -= size
        # A piece that is all that was fed is passed on as it is, uncopied.
        whole = size == len(data)
        rest = data if whole else memoryview(data)[position : position + size]
        out.append(DataRest(rest, not self._left))
        return size

    def _skip(self, data: _Received, position: int, out: list[Frame]) -> int:
        """Take what comes of the body of an unknown frame."""
        size = min(self._left, len(data) - position)
        self._left -= size
        return size

    def _take_run(
        self,
        data: _Received,
        position: int,
        word: int,
        stream_id: int,
        most: int,
        out: list[Frame],
    ) -> int:
        """Add the whole frames at ``position``, where one with this header is; where they end."""
        length = word >> self._wire.length_shift & self._wire.length_mask
        size = HEADER_SIZE + length
        end = position + size * min(most, (len(data) - position) // size)
        view, unpack, header = memoryview(data), _TWO_WORDS.unpack_from, (word, stream_id)
        payloads: list[memoryview] = []
        for at in range(position, end, size):
            if unpack(data, at) != header:
                break
            payloads.append(view[at + HEADER_SIZE : at + size])
        if payloads:
            out.append(DataRun(stream_id, length, payloads))
        return position + size * len(payloads)

    def _control_frame(
        self,
        data: _Received,
        position: int,
        word: int,
        length: int,
        stream_id: int,
        out: list[Frame],
    ) -> int | None:
        """Add the frame at ``position``; its size, or None where nothing more can be read yet."""
        wire = self._wire
        flags = word >> wire.flags_shift & wire.flags_mask
        frame_type = word >> wire.type_shift & wire.type_mask
        parse = self._PARSERS.get(wire.names.get(frame_type))
        if parse is None:
            if not wire.skips_unknown_frames:
                self._fail(out, ErrorCode.PROTOCOL_ERROR, f"unknown frame type {frame_type}")
                return None
            self._left, self._take_left = length, Decoder._skip
            out.append(Unknown(frame_type, flags, stream_id, length))
            return HEADER_SIZE
        parsed = parse(self, data, position + HEADER_SIZE, length, flags, stream_id)
        if parsed is None:
            return None
        frame, body_size = parsed
        out.append(frame)
        if type(frame) is Malformed:
            self._broken = True
            return None
        return HEADER_SIZE + body_size

    def _fail(self, out: list[Frame], code: ErrorCode, message: str) -> None:
        self._broken = True
        out.append(Malformed(code, message))

    def _parse_syn(
        self, data: _Received, at: int, length: int, flags: int, stream_id: int
    ) -> tuple[Frame, int] | None:
        expected = syn_size(flags)
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
        return new_tuple(Syn, (stream_id, priority, stream_type, flags & SYN_FIN != 0)), length

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
        self._left, self._take_left = debug_size, Decoder._take_debug
        # Go v1 announces eight bytes more than its debug text has, so never fewer than eight.
        self._debug_doubted = self._wire.goaway_overstates and debug_size >= 8
        return GoAway(last_stream_id & MAX_STREAM_ID, number), 8

    def _take_debug(self, data: _Received, position: int, out: list[Frame]) -> int:
        """Take debug text; how many bytes: none when more must come to tell what they are."""
        available = len(data) - position
        if self._debug_doubted:
            if available < HEADER_SIZE:
                return 0
            self._debug_doubted = False
            if self._looks_like_a_frame(data, position):
                self._left = 0
                return 0
        size = min(self._left, available)
        self._left -= size
        room = MAX_DEBUG - len(self._debug)
        self._debug += data[position : position + min(size, room)]
        if not self._left:
            out.append(GoAwayDebug(self._debug))
        return size

    def _looks_like_a_frame(self, data: _Received, position: int) -> bool:
        wire = self._wire
        word, stream_id = _TWO_WORDS.unpack_from(data, position)
        length = word >> wire.length_shift & wire.length_mask
        flags = word >> wire.flags_shift & wire.flags_mask
        name = wire.names.get(word >> wire.type_shift & wire.type_mask, "")
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
            sane = flags <= (SYN_FIN | SYN_PRIORITY | SYN_TYPE) and length == syn_size(flags)
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

    _PARSERS: ClassVar[Mapping[str | None, _Parse]] = {
        "SYN": _parse_syn,
        "RST": _parse_rst,
        "WNDINC": _parse_wndinc,
        "GOAWAY": _parse_goaway,
    }


def _wrong_size(frame: str, length: int, expected: int) -> Malformed:
    return Malformed(
        ErrorCode.FRAME_SIZE_ERROR, f"{frame} of {length} bytes where {expected} were due"
    )
