"""Bytes that wait: chunks in, frames' worth of bytes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_muxado._protocol.byte_queue import SMALL_CHUNK, Buffer, ByteQueue


@pytest.fixture
def queue() -> ByteQueue:
    return ByteQueue()


def taken(queue: ByteQueue, size: int) -> bytes:
    into: list[Buffer] = []
    queue.take(size, into)
    return b"".join(into)


def test_bytes_come_out_in_the_order_in_which_they_went_in(queue: ByteQueue) -> None:
    for chunk in (b"abc", b"d", bytes(3000), b"ef"):
        queue.put(chunk)
    assert queue.size == 3006
    assert taken(queue, 3006) == b"abcd" + bytes(3000) + b"ef"
    assert queue.size == 0


def test_a_large_chunk_is_not_copied(queue: ByteQueue) -> None:
    chunk = bytes(SMALL_CHUNK)
    queue.put(b"x" * SMALL_CHUNK)
    queue.put(chunk)
    into: list[Buffer] = []
    queue.take(2 * SMALL_CHUNK, into)
    assert into[1] is chunk


def test_a_chunk_can_be_taken_in_pieces(queue: ByteQueue) -> None:
    queue.put(bytes(range(10)))
    assert [taken(queue, size) for size in (3, 3, 4)] == [
        bytes(range(3)),
        bytes(range(3, 6)),
        bytes(range(6, 10)),
    ]


def test_tiny_chunks_are_merged(queue: ByteQueue) -> None:
    for _ in range(10 * SMALL_CHUNK):
        queue.put(b"x")
    assert len(queue.chunks or ()) <= 10


def test_a_tiny_chunk_is_merged_with_what_is_left_of_a_larger_one(queue: ByteQueue) -> None:
    queue.put(b"x" * 2000)
    taken(queue, 1990)
    queue.put(b"y")
    assert len(queue.chunks or ()) == 1
    assert taken(queue, 11) == b"x" * 10 + b"y"


def test_what_was_taken_does_not_change_when_more_is_put(queue: ByteQueue) -> None:
    queue.put(b"a")
    queue.put(b"b")
    into: list[Buffer] = []
    queue.take(1, into)
    queue.put(b"c")
    queue.take(2, into)
    queue.put(b"d")
    assert b"".join(into) == b"abc"


def test_what_is_dropped_is_not_sent(queue: ByteQueue) -> None:
    queue.put(b"abc" + bytes(5000))
    queue.drop()
    assert (queue.size, queue.chunks) == (0, None)


def test_the_beginning_can_be_kept(queue: ByteQueue) -> None:
    queue.put(b"abc" + bytes(5000))
    queue.put(b"def" * 2000)
    queue.drop(keep=2)
    assert queue.size == 2
    assert taken(queue, 2) == b"ab"


def test_keeping_more_than_there_is_keeps_all(queue: ByteQueue) -> None:
    queue.put(b"abc")
    queue.drop(keep=100)
    assert (queue.size, taken(queue, 3)) == (3, b"abc")


def test_what_is_kept_does_not_hold_what_was_dropped(queue: ByteQueue) -> None:
    queue.put(bytes(1_000_000))
    queue.drop(keep=10)
    assert queue.chunks == [bytes(10)]
    assert type(queue.chunks[0]) is bytes


def test_frames_of_a_chunk_are_not_copied(queue: ByteQueue) -> None:
    chunk = bytes(range(100))
    queue.put(chunk)
    into: list[Buffer] = []
    queue.take_frames(b"h", 40, 2, into)
    assert into == [b"h", chunk[:40], b"h", chunk[40:80]]
    assert all(view.obj is chunk for view in into[1::2] if isinstance(view, memoryview))
    assert taken(queue, 20) == chunk[80:]


def framed(queue: ByteQueue, size: int, most: int) -> bytes:
    """Up to ``most`` frames of so many bytes; what is in them."""
    into: list[Buffer] = []
    count = min(queue.size // size, most)
    queue.take_frames(b"header", size, count, into)
    rest = b"".join(into)
    payloads = [rest[at : at + size] for at in range(6, len(rest), 6 + size)]
    assert rest == b"".join(b"header" + payload for payload in payloads)
    assert len(payloads) == count
    return b"".join(payloads)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=50),
            st.integers(0, 5000).map(bytes),
            st.integers(0, 90),
            st.tuples(st.integers(1, 2000), st.integers(0, 5)),
        )
    )
)
def test_no_byte_is_lost_or_doubled_however_it_is_put_and_taken(
    steps: list[bytes | int | tuple[int, int]],
) -> None:
    queue = ByteQueue()
    put = got = b""
    for step in steps:
        if isinstance(step, bytes):
            queue.put(step)
            put += step
        elif isinstance(step, tuple):
            got += framed(queue, *step)
        else:
            got += taken(queue, min(step, queue.size))
        assert queue.size == sum(map(len, queue.chunks or ())) == len(put) - len(got)
    assert got + taken(queue, queue.size) == put
