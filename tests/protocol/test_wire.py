"""Telling the versions apart, and the numbers of their error codes."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.errors import ErrorCode, ProtocolViolation
from trio_muxado._protocol.wire import DETECTION_SIZE, WIRES, detect, looks_like, what_else

from .driver import BOTH, V1, V2, End

# Written down from docs/specification, not from the code.
CODES = {
    V1: (
        ErrorCode.NO_ERROR,
        ErrorCode.PROTOCOL_ERROR,
        ErrorCode.INTERNAL_ERROR,
        ErrorCode.FLOW_CONTROL_ERROR,
        ErrorCode.STREAM_CLOSED,
        ErrorCode.FRAME_SIZE_ERROR,
        ErrorCode.STREAM_REFUSED,
        ErrorCode.STREAM_CANCELLED,
    ),
    V2: (
        ErrorCode.NO_ERROR,
        ErrorCode.PROTOCOL_ERROR,
        ErrorCode.INTERNAL_ERROR,
        ErrorCode.FLOW_CONTROL_ERROR,
        ErrorCode.STREAM_CLOSED,
        ErrorCode.STREAM_REFUSED,
        ErrorCode.STREAM_CANCELLED,
        ErrorCode.STREAM_RESET,
        ErrorCode.FRAME_SIZE_ERROR,
        ErrorCode.ACCEPT_QUEUE_FULL,
        ErrorCode.ENHANCE_YOUR_CALM,
        ErrorCode.REMOTE_GONE_AWAY,
        ErrorCode.STREAMS_EXHAUSTED,
        ErrorCode.WRITE_TIMEOUT,
        ErrorCode.SESSION_CLOSED,
        ErrorCode.PEER_EOF,
    ),
}
NUMBERED = [
    pytest.param(wire, number, code, id=f"{wire.name}-{code.name}")
    for wire, codes in CODES.items()
    for number, code in enumerate(codes)
]


@pytest.mark.parametrize("wire, number, code", NUMBERED)
def test_a_code_has_its_number(wire: Wire, number: int, code: ErrorCode) -> None:
    assert wire.code_to_wire(code) == number
    assert wire.code_from_wire(number) is code


@pytest.mark.parametrize("wire", BOTH)
@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_can_be_sent_on_either_wire(wire: Wire, code: ErrorCode) -> None:
    assert wire.code_to_wire(code) in wire.known_codes


@pytest.mark.parametrize("wire", BOTH)
def test_a_number_without_a_name_stays_as_it_is(wire: Wire) -> None:
    assert wire.code_from_wire(4711) == 4711
    assert wire.code_to_wire(4711) == 4711


def test_a_full_backlog_reads_as_a_refusal_on_v1() -> None:
    number = V1.code_to_wire(ErrorCode.ACCEPT_QUEUE_FULL)
    assert V1.code_from_wire(number) is ErrorCode.STREAM_REFUSED


def test_the_wires_are_found_by_their_names() -> None:
    assert dict(WIRES) == {"v1": V1, "v2": V2}
    assert [repr(wire) for wire in WIRES.values()] == ["<Wire v1>", "<Wire v2>"]


# ---- detection

FIRST_BYTES = [
    ("0000 00 01", V1),  # SYN
    ("0008 06 01", V1),  # SYN with priority and type: a Go client's heartbeat
    ("0008 07 01", V1),  # the same with FIN
    ("0010 00 06", V1),  # GOAWAY
    ("000000 12", V2),  # DATA with SYN
    ("000004 12", V2),
    ("040000 12", V2),  # as large as the window
    ("000000 13", V2),  # DATA with SYN and FIN
    ("000008 30", V2),  # GOAWAY
    ("000000 11", V2),  # Rust: a stream that was dropped unused
    ("000004 10", V2),  # Go: the first write was empty
]
NOT_MUXADO = [
    b"GET ",  # HTTP
    b"POST",
    b"PRI ",  # HTTP/2
    b"SSH-",
    b"\x16\x03\x01\x02",  # a TLS ClientHello
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    bytes.fromhex("0005 00 03"),  # v1 DATA before any SYN
    bytes.fromhex("0004 00 04"),  # v1 WNDINC before any SYN
    bytes.fromhex("000004 00"),  # v2 RST before any SYN
    bytes.fromhex("000004 20"),  # v2 WNDINC before any SYN
    bytes.fromhex("4000 00 01"),  # v1 with reserved bits
    bytes.fromhex("0000 08 01"),  # v1 with a flag that does not exist
]


@pytest.mark.parametrize("first, wire", FIRST_BYTES)
def test_the_generation_shows_in_the_first_four_bytes(first: str, wire: Wire) -> None:
    assert detect(bytes.fromhex(first)) is wire


@pytest.mark.parametrize("first", NOT_MUXADO, ids=lambda first: first.hex())
def test_what_is_not_muxado_is_turned_away(first: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        detect(first)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR
    assert first.hex(" ") in str(caught.value)


@pytest.mark.parametrize(
    "first, name",
    [
        (b"GET ", "an HTTP request"),
        (b"HTTP", "an HTTP response"),
        (b"SSH-", "an SSH banner"),
        (b"\x16\x03\x01\x06", "a TLS handshake"),
        (b"PROX", "PROXY"),
        (bytes.fromhex("0005 00 03"), ""),
    ],
)
def test_another_protocol_is_named_and_is_no_version(first: bytes, name: str) -> None:
    assert name in what_else(first)
    assert bool(name) is bool(what_else(first))
    assert not name or looks_like(first) is None


@pytest.mark.parametrize("wire", BOTH)
def test_what_a_client_of_ours_sends_first_is_detected(wire: Wire) -> None:
    opener, leaver = End(wire, client=True), End(wire, client=True)
    opener.core.open_stream()
    leaver.core.goaway(ErrorCode.NO_ERROR, b"")
    for end in opener, leaver:
        assert detect(end.bytes_sent()[:DETECTION_SIZE]) is wire


@pytest.mark.parametrize(
    "first_bytes, version",
    [
        ("00 00 00 01", V1),
        ("00 08 00 06", V1),
        ("00 00 00 12", V2),
        ("00 00 04 20", V2),
        ("00 00 04 00", V2),
        ("47 45 54 20", None),  # "GET "
        ("41 42 43 20", V2),  # not every guess is right
        ("ff ff ff 01", None),
        ("53 53 48 2d", None),
        ("00 00 00", None),
        ("", None),
    ],
)
def test_what_a_peer_s_first_bytes_look_like(first_bytes: str, version: Wire | None) -> None:
    assert looks_like(bytes.fromhex(first_bytes)) is version
