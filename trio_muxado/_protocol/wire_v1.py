"""muxado v1 (2012-2014): the seed, Debian's package, inconshreveable/muxado up to f693c7e."""

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
    error_codes={
        ErrorCode.NO_ERROR: 0,
        ErrorCode.PROTOCOL_ERROR: 1,
        ErrorCode.INTERNAL_ERROR: 2,
        ErrorCode.FLOW_CONTROL_ERROR: 3,
        ErrorCode.STREAM_CLOSED: 4,
        ErrorCode.FRAME_SIZE_ERROR: 5,
        ErrorCode.STREAM_REFUSED: 6,
        ErrorCode.STREAM_CANCELLED: 7,
        # v1 has no number for these: the nearest that tells the peer what to do.
        ErrorCode.STREAM_RESET: 7,
        ErrorCode.ACCEPT_QUEUE_FULL: 6,
        ErrorCode.ENHANCE_YOUR_CALM: 1,
        ErrorCode.REMOTE_GONE_AWAY: 6,
        ErrorCode.STREAMS_EXHAUSTED: 2,
        ErrorCode.WRITE_TIMEOUT: 2,
        ErrorCode.SESSION_CLOSED: 0,
        ErrorCode.PEER_EOF: 2,
    },
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
