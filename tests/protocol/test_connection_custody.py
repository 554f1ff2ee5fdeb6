"""Who has a stream of the peer: one of those that want it, or nobody, and it is counted right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.events import StreamOpened
from trio_muxado._protocol.frames import Rst
from trio_muxado._protocol.states import Custody, PeerView
from trio_muxado._protocol.stream import Stream

from .driver import BOTH, V1, V2, End, ids, only, opened

both = pytest.mark.parametrize("wire", BOTH)
take = pytest.mark.parametrize("take", [Connection.accept, Connection.hold])

Take = Callable[[Connection, Stream], bool]


def offered(end: End, stream_id: int = 3) -> Stream:
    (stream,) = opened(end.feed(end.syn(stream_id)))
    return stream


@both
@take
def test_a_stream_that_waits_can_be_had_once(wire: Wire, take: Take) -> None:
    end = End(wire)
    stream = offered(end)
    assert stream.custody is Custody.WAITING
    assert take(end.core, stream)
    assert not end.core.accept(stream)
    assert end.core.streams.waiting.used == 0


@both
@take
def test_a_stream_that_was_refused_cannot_be_had_any_more(wire: Wire, take: Take) -> None:
    """It may be on its way to a task that was woken for it, as the session closes."""
    end = End(wire)
    stream = offered(end)
    end.core.refuse_unaccepted()
    assert [type(frame) for frame in end.sent()] == [Rst]
    assert not take(end.core, stream)
    assert stream.custody is Custody.RELEASED
    streams = end.core.streams
    assert (streams.waiting.used, streams.inbound.used) == (0, 0)


@both
@take
def test_a_stream_that_was_taken_is_not_refused_any_more(wire: Wire, take: Take) -> None:
    end = End(wire)
    stream = offered(end)
    assert take(end.core, stream)
    end.core.refuse_unaccepted()
    assert end.sent() == []
    assert stream.broken is None


@both
def test_an_accepted_stream_may_be_held(wire: Wire) -> None:
    end = End(wire)
    stream = offered(end)
    assert end.core.accept(stream)
    assert end.core.hold(stream)
    assert not end.core.hold(stream)


@both
@take
@pytest.mark.parametrize("how", ["reset by the peer", "expired", "ended session"])
def test_a_stream_that_broke_while_it_waited_is_counted_until_it_is_taken(
    wire: Wire, take: Take, how: str
) -> None:
    """Else SYN and RST would let more streams wait than there is room for."""
    end = End(wire, accept_backlog=2)
    streams = [offered(end, stream_id) for stream_id in ids(2)]
    for stream in streams:
        if how == "reset by the peer":
            end.feed(end.rst(stream.id))
        elif how == "expired":
            end.core.expire(stream, ErrorCode.STREAM_CANCELLED, "for a test")
        else:
            end.feed(end.data(0, b"x"))
    assert end.core.streams.waiting.used == 2
    assert opened(end.feed(end.syn(101))) == []
    for left in 1, 0:
        assert take(end.core, streams[left])
        assert end.core.streams.waiting.used == left
        end.core.close(streams[left])
    assert end.core.streams.inbound.used == 0


@both
def test_no_more_streams_wait_than_may_whatever_the_peer_resets(wire: Wire) -> None:
    end = End(wire)
    shown = opened(end.feed(*(end.syn(i) + end.rst(i) for i in ids(500))))
    assert len(shown) == end.core.streams.waiting.limit


def test_an_extensions_stream_goes_to_its_handler_at_once() -> None:
    end = End(V1, extensions=[0xFFFFFF00])
    event = only(end.feed(end.syn(3, type=0xFFFFFF00)))
    assert isinstance(event, StreamOpened)
    assert event.stream.custody is Custody.ACCEPTED
    assert end.core.hold(event.stream)
    assert end.core.streams.waiting.used == 0


def test_a_stream_without_its_type_is_nobodys() -> None:
    end = End(V2, typed=True)
    assert end.feed(end.data(3, b"\0\0", syn=True)) == []
    stream = end.core.streams.live[3]
    assert stream.custody is Custody.UNTYPED
    (shown,) = opened(end.feed(end.data(3, b"\0\7")))
    assert (shown, shown.custody, shown.type) == (stream, Custody.WAITING, 7)


@both
@take
def test_closing_twice_gives_everything_back_once(wire: Wire, take: Take) -> None:
    end = End(wire)
    before = end.core.streams.spare_window
    stream = offered(end)
    assert take(end.core, stream)
    end.core.close(stream)
    end.core.close(stream)
    end.sent()
    assert stream.custody is Custody.RELEASED
    streams = end.core.streams
    assert (streams.inbound.used, streams.spare_window) == (0, before)


# ---- what a stream of this end is to the peer


@both
def test_a_stream_of_this_end_is_unheard_until_the_peer_shows_something(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    views = [stream.peer_view]
    for credit in 1000, 1000, 5000:
        end.feed(end.wndinc(stream.id, credit))
        views.append(stream.peer_view)
        end.core.send(stream, bytes(2000))
        end.sent()
    assert views == [PeerView.UNHEARD, PeerView.ANSWERED, PeerView.SEEN, PeerView.SEEN]


@both
def test_data_shows_that_the_peers_application_has_seen_a_stream(wire: Wire) -> None:
    end = End(wire, client=True)
    stream = end.open()
    end.feed(end.data(stream.id, b"x"))
    assert stream.peer_view is PeerView.SEEN


@both
def test_a_stream_of_the_peer_has_been_seen_by_it(wire: Wire) -> None:
    assert offered(End(wire)).peer_view is PeerView.SEEN
