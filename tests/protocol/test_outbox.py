"""What leaves, in which order, and in which frames."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import groupby, repeat

import pytest

from trio_muxado._protocol.codec import HEADER_SIZE, MAX_PRIORITY, Wire
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.frames import Data, Frame, GoAway, Rst, Syn, WndInc
from trio_muxado._protocol.outbox import QUANTUM
from trio_muxado._protocol.stream import Stream
from trio_muxado._protocol.windows import MAX_WINDOW

from .driver import BOTH, V1, V2, End, only

both = pytest.mark.parametrize("wire", BOTH)


def data_sizes(frames: list[Frame]) -> dict[int, int]:
    """Bytes of payload by stream."""
    sizes: dict[int, int] = {}
    for frame in frames:
        if isinstance(frame, Data):
            sizes[frame.stream_id] = sizes.get(frame.stream_id, 0) + frame.length
    return sizes


def turns(frames: list[Frame]) -> list[int]:
    """Whose data came, one after the other."""
    return [stream_id for stream_id, _ in groupby(f.stream_id for f in frames if type(f) is Data)]


def busy(end: End, *sizes: int, priorities: Iterable[int] = repeat(0)) -> list[Stream]:
    """Open streams with so many bytes to send, and more window than they need."""
    streams = [end.open(priority=priority) for _, priority in zip(sizes, priorities, strict=False)]
    for stream, size in zip(streams, sizes, strict=True):
        end.feed(end.wndinc(stream.id, size))
        end.core.send(stream, bytes(size))
    return streams


# ---- opening


def test_v1_opens_a_stream_with_a_frame_of_its_own() -> None:
    end = End(V1, client=True)
    end.core.open_stream(stream_type=7, priority=9)
    assert end.sent() == [Syn(3, 9, 7, False)]


def test_v2_opens_a_stream_at_once_without_waiting_for_data() -> None:
    end = End(V2, client=True)
    end.core.open_stream()
    assert end.sent() == [Data(3, 0, b"", True, False)]


def test_v2_opens_a_stream_with_its_first_data() -> None:
    end = End(V2, client=True)
    end.core.send(end.core.open_stream(), b"hello")
    assert end.sent() == [Data(3, 5, b"hello", True, False)]


def test_a_stream_is_opened_once() -> None:
    end = End(V2, client=True)
    stream = end.open()
    end.core.send(stream, b"hello")
    assert end.sent() == [Data(3, 5, b"hello", False, False)]


@both
def test_streams_are_opened_in_the_order_of_their_ids(wire: Wire) -> None:
    end = End(wire, client=True)
    for _ in range(3):
        end.core.open_stream()
    assert [frame.stream_id for frame in end.sent() if isinstance(frame, Syn | Data)] == [3, 5, 7]


@both
def test_nothing_overtakes_the_frame_that_opens_a_stream(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.core.open_stream()
    end.core.send(stream, b"hello")
    end.core.end_sending(stream)
    first = end.sent()[0]
    assert isinstance(first, Syn) or (isinstance(first, Data) and first.syn)


# ---- SYNs rise on v2, whatever overtakes what


def test_v2_opens_the_lower_streams_before_one_that_overtakes_them() -> None:
    end = End(V2, client=True)
    low, high = end.core.open_stream(), end.core.open_stream(priority=1)
    end.core.send(low, b"low")
    end.core.send(high, b"high")
    assert end.sent() == [
        Data(low.id, 0, b"", True, False),
        Data(high.id, 4, b"high", True, False),
        Data(low.id, 3, b"low", False, False),
    ]


def test_a_stream_that_is_opened_before_its_turn_has_no_turn_left_without_data() -> None:
    end = End(V2, client=True)
    streams = [end.core.open_stream(priority=priority) for priority in (0, 1, 2)]
    assert end.sent() == [Data(stream.id, 0, b"", True, False) for stream in streams]
    assert end.core.all_sent


def test_a_stream_that_is_opened_before_its_turn_carries_its_type() -> None:
    end = End(V2, client=True, typed=True)
    low = end.core.open_stream(stream_type=1)
    end.core.send(low, b"low")
    end.core.open_stream(stream_type=2, priority=1)
    assert end.sent() == [
        Data(3, 4, b"\0\0\0\1", True, False),
        Data(5, 4, b"\0\0\0\2", True, False),
        Data(3, 3, b"low", False, False),
    ]


def test_a_stream_that_is_opened_before_its_turn_promises_its_larger_window() -> None:
    end = End(V2, client=True, receive_window=1_000_000)
    end.core.open_stream(), end.core.open_stream(priority=1)
    promises = [frame for frame in end.sent(1) if isinstance(frame, WndInc)]
    assert [promise.stream_id for promise in promises] == [3, 5]


def test_a_stream_that_is_opened_before_its_turn_ends_in_its_turn() -> None:
    end = End(V2, client=True)
    low = end.core.open_stream()
    end.core.close(low)
    end.core.open_stream(priority=1)
    assert [frame.stream_id for frame in end.sent() if isinstance(frame, Data)] == [3, 5, 3]
    assert low.id not in end.core.streams.live


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_given_up_before_it_is_opened_holds_no_syn_up(number: int) -> None:
    end = End(V2, client=True)
    lower = [end.core.open_stream(), end.core.open_stream()]
    high = end.core.open_stream(priority=1)
    end.core.reset(lower.pop(number), ErrorCode.STREAM_CANCELLED)
    assert end.sent() == [Data(s.id, 0, b"", True, False) for s in (*lower, high)]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_syns_rise_under_any_priorities(typed: bool, size: int) -> None:
    generator = random.Random(7)
    end = End(V2, client=True, typed=typed)
    opened: list[int] = []
    for _ in range(300):
        if generator.random() < 0.6:
            stream = end.core.open_stream(priority=generator.randrange(4))
            end.core.send(stream, bytes(generator.choice((0, 1, 300))))
        else:
            opened += [f.stream_id for f in end.sent(size) if isinstance(f, Data) and f.syn]
    while end.core.wants_to_send:
        opened += [f.stream_id for f in end.sent(size) if isinstance(f, Data) and f.syn]
    assert opened == sorted(end.core.streams.live)


# ---- the end of a direction


@both
def test_the_end_joins_the_last_data(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.core.send(stream, b"bye")
    end.core.end_sending(stream)
    assert end.sent() == [Data(3, 3, b"bye", False, True)]


@both
def test_the_end_of_a_stream_that_has_nothing_to_send_is_an_empty_frame(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.end_sending(end.open())
    assert end.sent() == [Data(3, 0, b"", False, True)]


@both
def test_the_end_is_sent_once(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.end_sending(end.open())
    end.sent()
    assert not end.core.wants_to_send


@pytest.mark.parametrize("payload", [b"", b"hello"])
def test_the_frame_that_opens_a_stream_never_ends_it(payload: bytes) -> None:
    end = End(V2, client=True)
    stream = end.core.open_stream()
    end.core.send(stream, payload)
    end.core.end_sending(stream)
    assert end.sent() == [
        Data(3, len(payload), payload, True, False),
        Data(3, 0, b"", False, True),
    ]


@both
def test_the_end_waits_behind_data_that_waits_for_window(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.core.send(stream, bytes(wire.initial_window + 1))
    end.core.end_sending(stream)
    assert not any(isinstance(frame, Data) and frame.fin for frame in end.sent())
    end.feed(end.wndinc(3, 1))
    assert end.sent() == [Data(3, 1, b"\0", False, True)]


@both
def test_the_end_needs_no_window(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.core.send(stream, bytes(wire.initial_window))
    end.sent()
    end.core.end_sending(stream)
    assert end.sent() == [Data(3, 0, b"", False, True)]


# ---- windows and sizes


@both
def test_no_more_is_sent_than_the_window_allows(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.send(end.open(), bytes(3 * wire.initial_window))
    assert data_sizes(end.sent()) == {3: wire.initial_window}
    assert not end.core.wants_to_send
    end.feed(end.wndinc(3, 100))
    assert data_sizes(end.sent()) == {3: 100}


@both
def test_no_frame_is_larger_than_the_wires_measure(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.send(end.open(), bytes(wire.initial_window))
    lengths = [frame.length for frame in end.sent() if isinstance(frame, Data)]
    assert max(lengths) == wire.max_payload
    assert sum(lengths) == wire.initial_window


@both
@pytest.mark.parametrize("streams", [1, 2, 5])
def test_a_batch_is_as_large_as_it_was_asked_for(wire: Wire, streams: int) -> None:
    """With a few bytes more it might not fit into what a transport takes at once."""
    end = End(wire, client=True)
    busy(end, *[40 * wire.max_payload] * streams)
    frame = HEADER_SIZE + wire.max_payload
    for size in (frame - 1, frame, frame + 1, 2 * QUANTUM, 20_000, 2 * QUANTUM):
        # Less is left over than a frame with a byte takes.
        assert size - HEADER_SIZE <= len(end.bytes_sent(size)) <= size


@both
def test_a_batch_that_is_full_of_whole_turns_is_full(wire: Wire) -> None:
    end = End(wire, client=True)
    busy(end, *[20 * wire.max_payload] * 5)
    for _ in range(3):
        batch, streams = end.core.data_to_send(2 * QUANTUM)
        assert sum(map(len, batch)) == 2 * QUANTUM
        assert len(streams) == 2


@both
def test_a_batch_has_one_frame_at_least(wire: Wire) -> None:
    end = End(wire, client=True)
    busy(end, 100)
    assert data_sizes(end.sent(1)) == {3: 1}


@both
def test_no_frame_is_larger_than_its_batch(wire: Wire) -> None:
    end = End(wire, client=True)
    busy(end, 10_000)
    assert data_sizes(end.sent(4096)) == {3: 4096 - HEADER_SIZE}


@both
def test_a_stream_beside_which_nobody_waits_has_the_whole_batch(wire: Wire) -> None:
    end = End(wire, client=True)
    streams = busy(end, 6_000, 6_000)
    batches = [end.core.data_to_send(4096)[1] for _ in range(3)]
    assert batches == [streams, streams, streams]
    end.core.send(streams[0], bytes(10_000))
    assert end.core.data_to_send(4096)[1] == [streams[0]]


def test_on_v2_a_turn_is_one_frame() -> None:
    end = End(V2, client=True)
    busy(end, *[QUANTUM] * 3)
    assert [f.length for f in end.sent(2 * QUANTUM) if isinstance(f, Data)] == [
        QUANTUM - HEADER_SIZE
    ] * 2


def test_a_small_batch_does_not_cut_a_type() -> None:
    end = End(V2, client=True, typed=True)
    end.core.open_stream(stream_type=7)
    assert end.sent(1) == [Data(3, 4, b"\0\0\0\7", True, False)]


@both
def test_a_batch_names_the_streams_that_it_is_from(wire: Wire) -> None:
    end = End(wire, client=True)
    streams = busy(end, 10, 10)
    assert end.core.data_to_send(1 << 20)[1] == streams


@both
def test_there_is_nothing_to_send_when_all_is_sent(wire: Wire) -> None:
    end = End(wire, client=True)
    busy(end, 10)
    assert not end.core.all_sent
    end.sent()
    assert end.core.all_sent
    assert not end.core.wants_to_send


@both
def test_data_that_waits_for_window_is_not_all_sent(wire: Wire) -> None:
    end = End(wire, client=True)
    end.core.send(end.open(), bytes(wire.initial_window + 1))
    end.sent()
    assert not end.core.wants_to_send
    assert not end.core.all_sent


# ---- whose turn it is


@both
@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (2, 3, 5)])
def test_equals_get_equal_shares_in_bytes(wire: Wire, sizes: tuple[int, ...]) -> None:
    end = End(wire, client=True)
    busy(end, *(size * 20 * QUANTUM for size in sizes))
    shares = data_sizes(end.sent(19 * len(sizes) * QUANTUM))
    assert len(shares) == len(sizes)
    assert max(shares.values()) <= 1.1 * min(shares.values())
    assert max(shares.values()) - min(shares.values()) <= QUANTUM


@both
@pytest.mark.parametrize("above", [16_000, 64_000, 120_000, 200_000])
def test_equals_get_equal_shares_below_a_higher_priority(wire: Wire, above: int) -> None:
    """It takes a part of each batch, whose end cuts a turn short: the same stream's each time."""
    end = End(wire, client=True)
    batch, batches = 2 * QUANTUM, 40
    high = end.open(priority=1)
    end.feed(end.wndinc(high.id, batches * above))
    equals = busy(end, batches * batch, batches * batch)
    sizes: Counter[int] = Counter()
    for _ in range(batches):
        end.core.send(high, bytes(above))
        sizes.update(data_sizes(end.sent(batch)))
    shares = [sizes[stream.id] for stream in equals]
    assert sizes[high.id] == batches * above
    assert max(shares) - min(shares) <= 1.1 * QUANTUM


@both
@pytest.mark.parametrize("above", [25_000, 88_000, 96_000, 104_000, 160_000])
@pytest.mark.parametrize("equals", [2, 3, 5])
def test_shares_never_differ_by_two_turns(wire: Wire, above: int, equals: int) -> None:
    """Whose turn is cut short, and how often, is different in each batch."""
    end = End(wire, client=True)
    batch, batches = 2 * QUANTUM, 60
    high = end.open(priority=1)
    end.feed(end.wndinc(high.id, batches * above))
    streams = busy(end, *[batches * batch] * equals)
    sizes = Counter({stream.id: 0 for stream in streams})
    for _ in range(batches):
        end.core.send(high, bytes(above))
        sizes.update(data_sizes(end.sent(batch)))
        shares = [sizes[stream.id] for stream in streams]
        assert max(shares) - min(shares) < 2 * QUANTUM


@both
@pytest.mark.parametrize("size", [1000, QUANTUM // 3, QUANTUM // 2, QUANTUM - 1000])
def test_the_rest_of_a_turn_is_no_turn_of_its_own(wire: Wire, size: int) -> None:
    """It would make three of two in each batch to come."""
    end = End(wire, client=True)
    small, *large = busy(end, size, *[16 * QUANTUM] * 5)
    assert end.core.data_to_send(2 * QUANTUM)[1] == [small, *large[:2]]
    for i in range(10):
        batch, streams = end.core.data_to_send(2 * QUANTUM)
        assert streams == [large[(2 * i + 2) % 5], large[(2 * i + 3) % 5]]
        assert sum(map(len, batch)) == 2 * QUANTUM


@both
def test_short_rests_of_turns_add_up_to_one(wire: Wire) -> None:
    """Whoever always comes last in a batch loses nothing by it."""
    end = End(wire, client=True)
    first, last = busy(end, 64 * QUANTUM, 64 * QUANTUM)
    sizes = Counter[int]()
    for _ in range(40):
        end.core.send(end.open(priority=1), bytes(QUANTUM // 6))
        sizes.update(data_sizes(end.sent(2 * QUANTUM)))
    assert abs(sizes[first.id] - sizes[last.id]) <= 1.5 * QUANTUM


@both
@pytest.mark.parametrize("batches", [1, 2], ids=["in its next turn", "first in the next batch"])
def test_a_turn_that_was_cut_short_dies_with_its_stream(wire: Wire, batches: int) -> None:
    end = End(wire, client=True)
    first, second = busy(end, 8 * QUANTUM, 8 * QUANTUM)
    for _ in range(batches):
        end.core.send(end.open(priority=1), bytes(QUANTUM // 2 + 1000))
        end.sent(2 * QUANTUM)
    for stream in (first, second):
        end.core.reset(stream, 7)
    assert [type(frame) for frame in end.sent()] == [Rst, Rst]
    third = only(busy(end, 2 * QUANTUM))
    assert data_sizes(end.sent())[third.id] == 2 * QUANTUM


@both
def test_small_writers_are_not_held_back_by_a_large_one(wire: Wire) -> None:
    end = End(wire, client=True)
    _, *small = busy(end, 16 * QUANTUM, *[10] * 20)
    sent = data_sizes(end.sent(2 * QUANTUM))
    assert all(sent[stream.id] == 10 for stream in small)


@both
def test_a_higher_priority_goes_first_until_it_has_nothing_to_send(wire: Wire) -> None:
    end = End(wire, client=True)
    low, high = busy(end, *[3 * wire.max_payload] * 2, priorities=(1, 2))
    frames = end.sent()
    assert turns(frames) == [high.id, low.id]
    assert set(data_sizes(frames).values()) == {3 * wire.max_payload}


@both
def test_a_higher_priority_that_waits_for_window_lets_others_go(wire: Wire) -> None:
    end = End(wire, client=True)
    high, low = end.open(priority=2), end.open(priority=1)
    end.core.send(high, bytes(wire.initial_window + 1))
    end.sent()
    end.core.send(low, bytes(5))
    assert data_sizes(end.sent()) == {low.id: 5}


def test_a_v1_peers_priority_counts_for_our_answers() -> None:
    end = End(V1)
    events = end.feed(end.syn(3, priority=1), end.syn(5, priority=9))
    for event in events:
        end.core.send(event.stream, b"answer")  # type: ignore[union-attr]
    assert list(data_sizes(end.sent())) == [5, 3]


@both
def test_a_new_priority_counts_for_what_waits_already(wire: Wire) -> None:
    end = End(wire)
    first, second = end.accept(3), end.accept(5)
    for stream in (first, second):
        end.core.send(stream, bytes(wire.initial_window))
    end.core.prioritize(second, 1)
    frames = end.sent()
    assert turns(frames) == [5, 3]
    assert set(data_sizes(frames).values()) == {wire.initial_window}


@both
def test_a_new_priority_counts_for_what_comes_later(wire: Wire) -> None:
    end = End(wire)
    first, second = end.accept(3), end.accept(5)
    end.core.prioritize(second, 1)
    for stream in (first, second):
        end.core.send(stream, b"data")
    assert list(data_sizes(end.sent())) == [5, 3]


@both
def test_what_stands_above_all_overtakes_the_highest_priority(wire: Wire) -> None:
    end = End(wire, client=True)
    highest, beat = end.open(priority=MAX_PRIORITY), end.open()
    end.core.put_above_all(beat)
    for stream in (highest, beat):
        end.core.send(stream, b"data")
    assert list(data_sizes(end.sent())) == [beat.id, highest.id]


def test_v2_opens_the_lower_streams_before_one_that_is_moved_past_them() -> None:
    end = End(V2, client=True)
    low, high = end.core.open_stream(), end.core.open_stream()
    end.core.prioritize(high, 1)
    end.core.send(low, b"low")
    assert end.sent() == [
        Data(low.id, 0, b"", True, False),
        Data(high.id, 0, b"", True, False),
        Data(low.id, 3, b"low", False, False),
    ]


def test_v1_tells_the_priority_of_the_opening_whatever_it_is_by_then() -> None:
    end = End(V1, client=True)
    end.core.prioritize(end.core.open_stream(priority=9), 5)
    assert end.sent() == [Syn(3, 9, 0, False)]


@both
def test_control_frames_overtake_data(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    end.core.send(stream, b"late")
    end.core.goaway(0, b"")
    frames = end.sent()
    assert isinstance(frames[0], GoAway)
    assert frames[-1] == Data(3, 4, b"late", False, False)


@both
def test_control_frames_keep_their_order(wire: Wire) -> None:
    end = End(wire)
    first, second = end.accept(3), end.accept(5)
    end.core.reset(second, 7)
    end.core.goaway(0, b"", last=True)
    end.core.reset(first, 7)
    assert end.sent() == [Rst(5, 7), GoAway(5, 0), Rst(3, 7)]


# ---- credit


@both
def test_credit_is_granted_once_however_often_it_was_given(wire: Wire) -> None:
    end = End(wire)
    stream = end.accept(3)
    half = wire.initial_window // 2
    for _ in range(3):
        end.feed(*[end.data(3, bytes(half // 4))] * 4)
        end.core.consume(stream, half)
    grant = only(end.sent())
    assert isinstance(grant, WndInc)
    assert grant.increment >= 3 * half


@both
def test_a_larger_receive_window_is_promised_right_behind_the_frame_that_opens(wire: Wire) -> None:
    end = End(wire, client=True, receive_window=1_000_000)
    end.core.open_stream()
    opening, promise = end.sent()
    assert isinstance(opening, Syn | Data)
    assert promise == WndInc(3, 1_000_000 - wire.initial_window)


def test_a_larger_receive_window_is_promised_behind_the_first_data_of_v2() -> None:
    end = End(V2, client=True, receive_window=1_000_000)
    end.core.send(end.core.open_stream(), b"hello")
    assert end.sent() == [
        Data(3, 5, b"hello", True, False),
        WndInc(3, 1_000_000 - V2.initial_window),
    ]


@both
def test_a_larger_receive_window_is_promised_to_the_peers_streams_at_once(wire: Wire) -> None:
    end = End(wire, receive_window=1_000_000)
    end.feed(end.syn(3))
    assert end.sent() == [WndInc(3, 1_000_000 - wire.initial_window)]


@both
def test_a_receive_window_below_the_generations_is_not_to_be_had(wire: Wire) -> None:
    end = End(wire, receive_window=1)
    stream = end.accept(3)
    assert stream.receive_window.credit == wire.initial_window
    assert end.sent() == []


@both
def test_a_stream_that_is_closed_at_once_promises_nothing_before_it_is_opened(wire: Wire) -> None:
    end = End(wire, client=True, receive_window=1_000_000)
    end.core.close(end.core.open_stream())
    first = end.sent()[0]
    assert isinstance(first, Syn | Data)


@both
def test_credit_that_adds_up_while_nothing_is_sent_stays_what_a_frame_can_carry(wire: Wire) -> None:
    """A peer that sends on credit before it can have heard of it, and reads nothing, may go on for
    as long as the transport may stand still."""
    end = End(wire)
    stream = end.accept(3)
    window = stream.receive_window
    for _ in range(3):  # in short what would take gigabytes
        window.size += MAX_WINDOW // 2
        end.core._outbox.queue_credit(stream.id, window.take_grant())
    assert end.sent() == [WndInc(3, MAX_WINDOW)]


@both
def test_a_stream_that_broke_gets_no_credit(wire: Wire) -> None:
    end = End(wire, receive_window=1_000_000)
    end.feed(end.syn(3), end.rst(3))
    assert not end.core.wants_to_send


# ---- what was given is what goes out


@both
def test_frames_that_were_handed_out_never_change(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    for piece in b"ab", b"cd":
        end.core.send(stream, piece)
    batch, _ = end.core.data_to_send(1 << 20)
    before = b"".join(batch)
    end.core.send(stream, b"ef")
    end.core.data_to_send(1 << 20)
    assert b"".join(batch) == before


@both
def test_what_was_given_is_not_written_to(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    given = bytearray(b"given")
    end.core.send(stream, memoryview(given))
    end.core.send(stream, b" and more")
    assert given == b"given"
    assert end.sent() == [Data(3, 14, b"given and more", False, False)]


# ---- a send that was cancelled


@both
def test_a_cancelled_send_is_withdrawn_but_for_what_is_to_be_kept(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.core.send(stream, bytes(range(200)))
    end.core.withdraw(stream, keep=10)
    assert end.sent() == [Data(3, 10, bytes(range(10)), False, False)]


@both
def test_nothing_waits_when_all_is_withdrawn(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.core.send(stream, b"hello")
    end.core.withdraw(stream, keep=0)
    assert not end.core.wants_to_send


def test_a_cancelled_first_send_leaves_what_opens_the_stream() -> None:
    end = End(V2, client=True)
    stream = end.core.open_stream()
    end.core.send(stream, bytes(1000))
    end.core.withdraw(stream, keep=0)
    assert end.sent() == [Data(3, 0, b"", True, False)]


@pytest.mark.parametrize("keep", [0, 1, 4])
def test_a_cancelled_first_send_leaves_the_type(keep: int) -> None:
    end = End(V2, client=True, typed=True)
    stream = end.core.open_stream(stream_type=0x01020304)
    end.core.send(stream, bytes(1000))
    end.core.withdraw(stream, keep=keep)
    assert end.sent() == [Data(3, 4, b"\1\2\3\4", True, False)]


@both
def test_the_end_still_goes_out_behind_a_send_that_was_withdrawn(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.core.send(stream, bytes(wire.initial_window + 1))
    end.sent()
    end.core.end_sending(stream)
    end.core.withdraw(stream, keep=0)
    assert end.sent() == [Data(3, 0, b"", False, True)]


@both
@pytest.mark.parametrize("more", [0, 100])
def test_the_end_joins_the_last_of_several_frames(wire: Wire, more: int) -> None:
    end = End(wire, client=True)
    stream = end.open()
    size = 2 * wire.max_payload + more
    end.feed(end.wndinc(stream.id, size))
    end.core.send(stream, bytes(size))
    end.core.end_sending(stream)
    frames = [frame for frame in end.sent() if isinstance(frame, Data)]
    lengths = [wire.max_payload, wire.max_payload, more] if more else [wire.max_payload] * 2
    assert [frame.length for frame in frames] == lengths
    assert [frame.fin for frame in frames] == [False] * (len(lengths) - 1) + [True]
