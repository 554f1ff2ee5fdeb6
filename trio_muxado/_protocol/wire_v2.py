"""muxado v2 (2014-today): golang.ngrok.com/muxado, the Rust crate, every ngrok agent."""

from __future__ import annotations

from .codec import Wire
from .errors import ErrorCode

V2 = Wire(
    name="v2",
    # u24 length, u4 type, u4 flags
    length_shift=8,
    length_mask=0xFFFFFF,
    flags_shift=0,
    flags_mask=0xF,
    type_shift=4,
    type_mask=0xF,
    types={"RST": 0, "DATA": 1, "WNDINC": 2, "GOAWAY": 3},
    syn_flag=0x2,
    initial_window=0x40000,
    # The wire would carry 16 MiB.  The Go library puts as much as a window into a frame, where a
    # write has so much.  Our frames are as long as a quantum, which makes few of them.  With 64 KiB
    # both sides in one process take a tenth more CPU time, and two move no fewer bytes (measured).
    max_payload=0x40000,
    error_codes={code: code.number("v2") for code in ErrorCode},
    heartbeat_type=0xFFFFFFFF,
    heartbeat_interval=10.0,
    heartbeat_tolerance=15.0,
    first_extension_type=0xFFFFFFFF,
    skips_unknown_frames=True,
    syns_rise=False,
    ignores_zero_increment=False,
    goaway_overstates=False,
    goaway_understates=True,
)
