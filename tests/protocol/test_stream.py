"""What one stream has to send: chunks in, frames' worth of bytes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_muxado._protocol.stream import SMALL_CHUNK, Buffer, Stream

from .driver import V2


@pytest.fixture
def stream() -> Stream:
    return Stream(3, V2, local=True)


def taken(stream: Stream, size: int) -> bytes:
    into: list[Buffer] = []
    stream.take(size, into)
    return b"".join(into)


def test_bytes_come_out_in_the_order_in_which_they_went_in(stream: Stream) -> None:
    for chunk in (b"abc", b"d", bytes(3000), b"ef"):
        stream.put(chunk)
    assert stream.buffered == 3006
    assert taken(stream, 3006) == b"abcd" + bytes(3000) + b"ef"
    assert stream.buffered == 0


def test_a_large_chunk_is_not_copied(stream: Stream) -> None:
    chunk = bytes(SMALL_CHUNK)
    stream.put(b"x" * SMALL_CHUNK)
    stream.put(chunk)
    into: list[Buffer] = []
    stream.take(2 * SMALL_CHUNK, into)
    assert into[1] is chunk


def test_a_chunk_can_be_taken_in_pieces(stream: Stream) -> None:
    stream.put(bytes(range(10)))
    assert [taken(stream, size) for size in (3, 3, 4)] == [
        bytes(range(3)),
        bytes(range(3, 6)),
        bytes(range(6, 10)),
    ]


def test_tiny_chunks_are_merged(stream: Stream) -> None:
    for _ in range(10 * SMALL_CHUNK):
        stream.put(b"x")
    assert len(stream.outgoing) <= 10


def test_a_tiny_chunk_is_merged_with_what_is_left_of_a_larger_one(stream: Stream) -> None:
    stream.put(b"x" * 2000)
    taken(stream, 1990)
    stream.put(b"y")
    assert len(stream.outgoing) == 1
    assert taken(stream, 11) == b"x" * 10 + b"y"


def test_what_was_taken_does_not_change_when_more_is_put(stream: Stream) -> None:
    stream.put(b"a")
    stream.put(b"b")
    into: list[Buffer] = []
    stream.take(1, into)
    stream.put(b"c")
    stream.take(2, into)
    stream.put(b"d")
    assert b"".join(into) == b"abc"


def test_what_is_dropped_is_not_sent(stream: Stream) -> None:
    stream.put(b"abc" + bytes(5000))
    stream.drop_outgoing()
    assert (stream.buffered, stream.outgoing) == (0, [])


def test_the_beginning_can_be_kept(stream: Stream) -> None:
    stream.put(b"abc" + bytes(5000))
    stream.put(b"def" * 2000)
    stream.drop_outgoing(keep=2)
    assert stream.buffered == 2
    assert taken(stream, 2) == b"ab"


def test_keeping_more_than_there_is_keeps_all(stream: Stream) -> None:
    stream.put(b"abc")
    stream.drop_outgoing(keep=100)
    assert (stream.buffered, taken(stream, 3)) == (3, b"abc")


def test_what_is_kept_does_not_hold_what_was_dropped(stream: Stream) -> None:
    stream.put(bytes(1_000_000))
    stream.drop_outgoing(keep=10)
    assert stream.outgoing == [bytes(10)]
    assert all(type(chunk) is bytes for chunk in stream.outgoing)


def test_a_stream_says_what_it_is(stream: Stream) -> None:
    assert repr(stream) == "<Stream 3 OPEN>"


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 5000).map(bytes), st.integers(1, 90)))
)
def test_no_byte_is_lost_or_doubled_however_it_is_put_and_taken(steps: list[bytes | int]) -> None:
    stream = Stream(3, V2, local=True)
    put = got = b""
    for step in steps:
        if isinstance(step, bytes):
            stream.put(step)
            put += step
        else:
            got += taken(stream, min(step, stream.buffered))
        assert stream.buffered == sum(map(len, stream.outgoing)) == len(put) - len(got)
    assert got + taken(stream, stream.buffered) == put
