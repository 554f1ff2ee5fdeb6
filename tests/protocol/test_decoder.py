"""What the vectors leave out: pieces, bounds, and which bytes behind a v1 GOAWAY are a frame."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.codec import HEADER_SIZE, MAX_DEBUG, Wire
from trio_muxado._protocol.decoder import COPY_BELOW, Decoder
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.frames import (
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

from .driver import BOTH, V1, V2, join, spread


def make_decoder(wire: Wire) -> Decoder:
    """Streams 3 and 5 were opened, and the peer's next is 2."""
    return Decoder(wire, lambda stream_id, new: stream_id == 2 if new else stream_id in (3, 5))


# ---- pieces


@pytest.mark.parametrize("wire", BOTH)
def test_a_payload_is_passed_on_in_the_pieces_in_which_it_comes(wire: Wire) -> None:
    decoder = make_decoder(wire)
    assert decoder.feed(wire.data_header(3, 6, fin=True) + b"ab") == [
        Data(3, 6, b"ab", False, True)
    ]
    assert decoder.feed(b"c") == [DataRest(b"c", False)]
    assert decoder.feed(b"def") == [DataRest(b"def", True)]


@pytest.mark.parametrize("wire", BOTH)
def test_a_payload_can_come_behind_its_header_alone(wire: Wire) -> None:
    decoder = make_decoder(wire)
    assert decoder.feed(wire.data_header(3, 2, fin=False)) == [Data(3, 2, b"", False, False)]
    assert decoder.feed(b"ab") == [DataRest(b"ab", True)]


@pytest.mark.parametrize("wire", BOTH)
def test_a_piece_that_is_a_whole_read_is_not_copied(wire: Wire) -> None:
    decoder = make_decoder(wire)
    decoder.feed(wire.data_header(3, 2000, fin=False))
    piece = bytes(1000)
    (rest,) = decoder.feed(piece)
    assert isinstance(rest, DataRest)
    assert rest.payload is piece


@pytest.mark.parametrize("wire", BOTH)
@pytest.mark.parametrize("size", [COPY_BELOW - 1, COPY_BELOW, COPY_BELOW + 1, 10_000])
def test_a_payload_ends_where_it_ends_whatever_comes_behind_it(wire: Wire, size: int) -> None:
    payload = bytes(range(250)) * 40
    data = wire.data_header(3, size, fin=False) + payload[:size]
    frames = join(make_decoder(wire).feed(data * 3 + wire.rst(5, 7) * 3000))
    assert frames[:3] == [Data(3, size, payload[:size], False, False)] * 3
    assert frames[3:] == [Rst(5, 7)] * 3000


# ---- runs


@pytest.mark.parametrize("wire", BOTH)
@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 5000])
def test_a_run_is_what_its_frames_are(wire: Wire, cut: int) -> None:
    a, b = bytes(range(250)) * 20, bytes(5000)
    plain = [wire.data_header(3, 5000, fin=False) + payload for payload in (a, b, a, a)]
    data = b"".join(plain) + wire.data_header(5, 5000, fin=False) + a + plain[0] * 2
    data += wire.rst(5, 7) + plain[1] * 2 + wire.data_header(3, 5000, fin=True) + a
    data += wire.data_header(3, 4999, fin=False) + a
    data = data[: len(data) - cut]
    runs = Decoder(wire, lambda stream_id, new: True, runs=True).feed(data)
    assert spread(runs) == join(make_decoder(wire).feed(data))
    assert [len(frame.payloads) for frame in runs if isinstance(frame, DataRun)] == [3, 1, 2]


@pytest.mark.parametrize("wire", BOTH)
def test_small_frames_are_no_run(wire: Wire) -> None:
    """Each is copied at once, which is cheaper than a view."""
    data = (wire.data_header(3, COPY_BELOW - 1, fin=False) + bytes(COPY_BELOW - 1)) * 5
    frames = Decoder(wire, lambda stream_id, new: True, runs=True).feed(data)
    assert frames == [Data(3, COPY_BELOW - 1, bytes(COPY_BELOW - 1), False, False)] * 5


@pytest.mark.parametrize("wire", BOTH)
def test_no_bytes_are_no_frames(wire: Wire) -> None:
    decoder = make_decoder(wire)
    frame = wire.rst(3, 7)
    assert decoder.feed(frame[:5]) == []
    assert decoder.feed(b"") == []
    assert decoder.feed(frame[5:]) == [Rst(3, 7)]


@pytest.mark.parametrize("wire", BOTH)
def test_an_unfinished_frame_is_all_that_is_kept(wire: Wire) -> None:
    decoder = make_decoder(wire)
    decoder.feed(wire.data_header(3, 50_000 & wire.length_mask, fin=False) + bytes(100))
    assert decoder._tail == b""
    decoder = make_decoder(wire)
    decoder.feed(wire.wndinc(3, 1) * 1000 + wire.wndinc(3, 1)[:-1])
    assert len(decoder._tail) == HEADER_SIZE + 3


@pytest.mark.parametrize("wire", BOTH)
def test_frames_before_bytes_that_are_none_are_still_reported(wire: Wire) -> None:
    frames = make_decoder(wire).feed(wire.rst(3, 7) + wire.header("RST", 5, 0, 3))
    assert frames[0] == Rst(3, 7)
    assert isinstance(frames[1], Malformed)


@pytest.mark.parametrize("wire", BOTH)
def test_nothing_is_reported_behind_bytes_that_are_no_frame(wire: Wire) -> None:
    decoder = make_decoder(wire)
    (malformed,) = decoder.feed(wire.header("WNDINC", 5, 0, 3) + wire.rst(3, 7))
    assert malformed == Malformed(ErrorCode.FRAME_SIZE_ERROR, "WNDINC of 5 bytes where 4 were due")
    assert decoder.feed(wire.rst(3, 7)) == []


def test_the_body_of_an_unknown_frame_is_skipped_piece_by_piece_and_never_kept() -> None:
    decoder = make_decoder(V2)
    header = (0x100000 << 8 | 0x7 << 4).to_bytes(4, "big") + (3).to_bytes(4, "big")
    assert decoder.feed(header + bytes(100)) == [Unknown(7, 0, 3, 0x100000)]
    for _ in range(0x100000 // 1000):
        assert decoder.feed(bytes(1000)) == []
        assert decoder._tail == b""
    left = 0x100000 % 1000 - 100
    assert decoder.feed(bytes(left) + V2.rst(3, 7)) == [Rst(3, 7)]


# ---- debug text


@pytest.mark.parametrize("wire", BOTH)
def test_four_kib_of_a_debug_text_are_kept(wire: Wire) -> None:
    text = bytes(range(256)) * 40
    frames = make_decoder(wire).feed(wire.goaway(3, 0, text) + wire.rst(3, 7))
    assert frames == [GoAway(3, 0), GoAwayDebug(text[:MAX_DEBUG]), Rst(3, 7)]


@pytest.mark.parametrize("wire", BOTH)
def test_a_long_debug_text_is_kept_nowhere_else_while_it_comes(wire: Wire) -> None:
    decoder = make_decoder(wire)
    goaway = wire.goaway(3, 0, b"x" * 16_000)
    for i in range(0, len(goaway), 100):
        decoder.feed(goaway[i : i + 100])
        assert len(decoder._debug) <= MAX_DEBUG
        assert len(decoder._tail) < 2 * HEADER_SIZE


@pytest.mark.parametrize("wire", BOTH)
def test_a_debug_text_is_not_carried_over_to_the_next_goaway(wire: Wire) -> None:
    decoder = make_decoder(wire)
    decoder.feed(wire.goaway(3, 0, b"one"))
    assert decoder.feed(wire.goaway(3, 0, b"two")) == [GoAway(3, 0), GoAwayDebug(b"two")]


# ---- Go v1 announces debug text that it does not send

GO_GOAWAY = V1.header("GOAWAY", 31, 0, 0) + bytes(8)
"""Session.Close() of Go v1: 23 bytes of debug text are announced."""

FRAMES = [
    (V1.syn(2, 0, 0), Syn(2, 0, 0, False)),
    (V1.syn(2, 5, 6), Syn(2, 5, 6, False)),
    (V1.header("SYN", 8, 7, 2) + V1.syn(2, 5, 6)[8:], Syn(2, 5, 6, True)),
    (V1.rst(3, 7), Rst(3, 7)),
    (V1.wndinc(5, 7), WndInc(5, 7)),
    (V1.data_header(3, 1, fin=False) + b"x", Data(3, 1, b"x", False, False)),
    (V1.data_header(5, 0, fin=True), Data(5, 0, b"", False, True)),
    (V1.goaway(3, 2, b""), GoAway(3, 2)),
]


@pytest.mark.parametrize("data, frame", FRAMES, ids=[type(frame).__name__ for _, frame in FRAMES])
def test_a_frame_behind_a_short_goaway_is_a_frame(data: bytes, frame: Frame) -> None:
    assert make_decoder(V1).feed(GO_GOAWAY + data) == [GoAway(0, 0), frame]


@pytest.mark.parametrize("data, frame", FRAMES, ids=[type(frame).__name__ for _, frame in FRAMES])
def test_a_frame_behind_a_short_goaway_is_a_frame_in_pieces_too(data: bytes, frame: Frame) -> None:
    decoder = make_decoder(V1)
    pieces = [data[i : i + 1] for i in range(len(data))]
    found = [frame for piece in [GO_GOAWAY, *pieces] for frame in decoder.feed(piece)]
    assert found[0] == GoAway(0, 0)
    assert type(found[1]) is type(frame)


@pytest.mark.parametrize(
    "data, frame",
    [
        (V1.syn(10, 0, 0), Syn(10, 0, 0, False)),
        (V1.rst(8, 7), Rst(8, 7)),
        (V1.rst(6, 7), Rst(6, 7)),
        (V1.rst(3, 7), Rst(3, 7)),
    ],
)
def test_a_frame_of_a_stream_that_was_opened_in_the_same_read(data: bytes, frame: Frame) -> None:
    """Whoever handles the frames knows of the stream only when it has them."""
    decoder = make_decoder(V1)
    syns = [Syn(6, 0, 0, False), Syn(8, 0, 0, False)]
    frames = decoder.feed(V1.syn(6, 0, 0) + V1.syn(8, 0, 0) + GO_GOAWAY + data)
    assert frames == [*syns, GoAway(0, 0), frame]


@pytest.mark.parametrize(
    "data", [V1.syn(14, 0, 0), V1.syn(2, 0, 0), V1.rst(9, 7), V1.rst(10, 7), V1.rst(0, 7)]
)
def test_no_frame_of_a_stream_that_was_not_opened_in_the_same_read(data: bytes) -> None:
    decoder = make_decoder(V1)
    frames = decoder.feed(V1.syn(8, 0, 0) + V1.goaway(0, 0, data[:8] + bytes(15)))
    assert frames[1:] == [GoAway(0, 0), GoAwayDebug(data[:8] + bytes(15))]


def header(length: int, flags: int, frame_type: int, stream_id: int) -> bytes:
    return (length << 16 | flags << 8 | frame_type).to_bytes(4, "big") + stream_id.to_bytes(
        4, "big"
    )


NOT_NEXT = {
    "an unknown type": header(4, 0, 5, 3),
    "reserved bits of the length": header(0xC001, 0, 3, 3),
    "reserved bits of the type": header(1, 0, 0x23, 3),
    "the reserved bit of the id": header(1, 0, 3, 0x80000003),
    "DATA for an id that was never opened": header(1, 0, 3, 9),
    "DATA for no stream": header(1, 0, 3, 0),
    "DATA with undefined flags": header(1, 2, 3, 3),
    "SYN with an id that is not the next": header(0, 0, 1, 4),
    "SYN whose length does not fit its flags": header(4, 0, 1, 2),
    "SYN with undefined flags": header(0, 8, 1, 2),
    "RST of a wrong length": header(5, 0, 2, 3),
    "RST with flags": header(4, 1, 2, 3),
    "WNDINC of a wrong length": header(8, 0, 4, 3),
    "WNDINC for an id that was never opened": header(4, 0, 4, 9),
    "GOAWAY with a stream": header(8, 0, 6, 3),
    "GOAWAY with flags": header(8, 1, 6, 0),
    "GOAWAY that is too short": header(7, 0, 6, 0),
}


@pytest.mark.parametrize("text", NOT_NEXT.values(), ids=NOT_NEXT)
def test_what_cannot_come_next_is_debug_text(text: bytes) -> None:
    frames = make_decoder(V1).feed(V1.goaway(0, 0, text) + V1.rst(3, 7))
    assert frames == [GoAway(0, 0), GoAwayDebug(text), Rst(3, 7)]


def test_a_goaway_that_announces_less_than_eight_bytes_is_believed() -> None:
    text = header(4, 0, 2, 3)[:7]
    frames = make_decoder(V1).feed(V1.goaway(0, 0, text) + V1.rst(3, 7))
    assert frames == [GoAway(0, 0), GoAwayDebug(text), Rst(3, 7)]


def test_v2_debug_text_may_look_like_a_frame() -> None:
    text = V2.rst(3, 7)
    frames = make_decoder(V2).feed(V2.goaway(0, 0, text) + V2.rst(5, 7))
    assert frames == [GoAway(0, 0), GoAwayDebug(text), Rst(5, 7)]
