"""muxado v1 (2012-2014): inconshreveable/muxado up to f693c7e, and Debian's package of it."""

from __future__ import annotations

from .codec import Wire
from .errors import ErrorCode

V1 = Wire(
    name="v1",
    # u16 length (14 bits used), u8 flags, u8 type (5 bits used)
    length_shift=16,
    length_mask=0x3FFF,
    flags_shift=8,
    flags_mask=0xFF,
    type_shift=0,
    type_mask=0x1F,
    types={"SYN": 1, "RST": 2, "DATA": 3, "WNDINC": 4, "GOAWAY": 6},
    syn_flag=0,
    initial_window=0x10000,
    max_payload=0x3FFF,
    error_codes={code: code.number("v1") for code in ErrorCode},
    heartbeat_type=0xFFFFFEFF,
    heartbeat_interval=3.0,
    heartbeat_tolerance=10.0,
    first_extension_type=0xFFFFFEFF,
    skips_unknown_frames=False,
    syns_rise=True,
    ignores_zero_increment=True,
    goaway_overstates=True,
    goaway_understates=False,
)
