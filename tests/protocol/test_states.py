"""Every cell of the state tables, against tables that were written down for themselves.

What is expected stands here in full, of streams and sessions from docs/specification: a cell that
is not here must not be in the code either.
"""

from __future__ import annotations

import pytest

from trio_muxado._protocol.states import (
    CUSTODY_TRANSITIONS,
    PEER_VIEW_TRANSITIONS,
    SESSION_TRANSITIONS,
    STREAM_TRANSITIONS,
    Custody,
    CustodyInput,
    PeerInput,
    PeerView,
    SessionInput,
    SessionState,
    StreamInput,
    StreamState,
)
from trio_muxado._protocol.stream import Stream

from .driver import V1

# One row per state: what each input leads to, "-" where it must not happen.
STREAM_INPUTS = "SEND_END CLOSE SEND_RESET RECEIVE_DATA RECEIVE_END RECEIVE_RESET SESSION_END"
STREAM_TABLE = """
    OPEN HALF_CLOSED_LOCAL CLOSED_LOCAL CLOSED OPEN HALF_CLOSED_REMOTE CLOSED CLOSED
    HALF_CLOSED_LOCAL - CLOSED_LOCAL CLOSED HALF_CLOSED_LOCAL CLOSED CLOSED CLOSED
    HALF_CLOSED_REMOTE CLOSED CLOSED CLOSED - HALF_CLOSED_REMOTE CLOSED CLOSED
    CLOSED_LOCAL - CLOSED_LOCAL CLOSED - CLOSED CLOSED CLOSED
    CLOSED - CLOSED CLOSED - CLOSED CLOSED CLOSED
"""

SESSION_INPUTS = "SEND_GOAWAY RECEIVE_GOAWAY END"
SESSION_TABLE = """
    ACTIVE      GOING_AWAY GONE_AWAY ENDED
    GOING_AWAY  GOING_AWAY DRAINING  ENDED
    GONE_AWAY   DRAINING   GONE_AWAY ENDED
    DRAINING    DRAINING   DRAINING  ENDED
    ENDED       -          -         ENDED
"""

CUSTODY_INPUTS = "OFFER ACCEPT HOLD RELEASE"
CUSTODY_TABLE = """
    UNTYPED   WAITING ACCEPTED -    RELEASED
    WAITING   -       ACCEPTED HELD RELEASED
    ACCEPTED  -       -        HELD RELEASED
    HELD      -       -        -    RELEASED
    RELEASED  -       -        -    RELEASED
"""

PEER_VIEW_INPUTS = "WIDEN ACT"
PEER_VIEW_TABLE = """
    UNHEARD   ANSWERED SEEN
    ANSWERED  ANSWERED SEEN
    SEEN      SEEN     SEEN
"""


def cells(table: str, inputs: str) -> list[tuple[str, str, str]]:
    return [
        (state, what, after)
        for state, *row in map(str.split, table.strip().splitlines())
        for what, after in zip(inputs.split(), row, strict=True)
    ]


STREAM_CELLS = cells(STREAM_TABLE, STREAM_INPUTS)
SESSION_CELLS = cells(SESSION_TABLE, SESSION_INPUTS)
CUSTODY_CELLS = cells(CUSTODY_TABLE, CUSTODY_INPUTS)
PEER_VIEW_CELLS = cells(PEER_VIEW_TABLE, PEER_VIEW_INPUTS)


def stream_in(state: str) -> Stream:
    stream = Stream(3, V1, local=False)
    stream.state = StreamState[state]
    stream.allowed = STREAM_TRANSITIONS[stream.state]
    return stream


@pytest.mark.parametrize("state, what, after", [cell for cell in STREAM_CELLS if cell[2] != "-"])
def test_a_stream_goes_from_state_to_state(state: str, what: str, after: str) -> None:
    stream = stream_in(state)
    assert StreamInput[what] in stream.allowed
    stream.step(StreamInput[what])
    assert stream.state is StreamState[after]


@pytest.mark.parametrize("state", StreamState)
def test_data_leaves_a_stream_in_its_state(state: StreamState) -> None:
    """The connection counts on it: it looks whether data may come, and does not step."""
    assert STREAM_TRANSITIONS[state].get(StreamInput.RECEIVE_DATA, state) is state


@pytest.mark.parametrize("state, what, after", [cell for cell in STREAM_CELLS if cell[2] == "-"])
def test_what_is_missing_in_the_streams_table_is_an_error(
    state: str, what: str, after: str
) -> None:
    stream = stream_in(state)
    assert StreamInput[what] not in stream.allowed
    with pytest.raises(KeyError):
        stream.step(StreamInput[what])
    assert stream.state is StreamState[state]


@pytest.mark.parametrize("state, what, after", [cell for cell in SESSION_CELLS if cell[2] != "-"])
def test_a_session_goes_from_state_to_state(state: str, what: str, after: str) -> None:
    assert SESSION_TRANSITIONS[SessionState[state]][SessionInput[what]] is SessionState[after]


@pytest.mark.parametrize("state, what, after", [cell for cell in SESSION_CELLS if cell[2] == "-"])
def test_what_is_missing_in_the_sessions_table_is_an_error(
    state: str, what: str, after: str
) -> None:
    assert SessionInput[what] not in SESSION_TRANSITIONS[SessionState[state]]


def test_the_tables_here_know_every_state_and_every_input_of_a_stream() -> None:
    assert {state for state, _, _ in STREAM_CELLS} == StreamState.__members__.keys()
    assert {what for _, what, _ in STREAM_CELLS} == StreamInput.__members__.keys()
    assert STREAM_TRANSITIONS.keys() == set(StreamState)


def test_the_tables_here_know_every_state_and_every_input_of_a_session() -> None:
    assert {state for state, _, _ in SESSION_CELLS} == SessionState.__members__.keys()
    assert {what for _, what, _ in SESSION_CELLS} == SessionInput.__members__.keys()
    assert SESSION_TRANSITIONS.keys() == set(SessionState)


@pytest.mark.parametrize("custody, what, after", CUSTODY_CELLS)
def test_a_stream_goes_from_hand_to_hand(custody: str, what: str, after: str) -> None:
    row = CUSTODY_TRANSITIONS[Custody[custody]]
    assert row.get(CustodyInput[what]) is (None if after == "-" else Custody[after])


@pytest.mark.parametrize("view, what, after", PEER_VIEW_CELLS)
def test_what_a_peer_shows_adds_to_what_is_known(view: str, what: str, after: str) -> None:
    assert PEER_VIEW_TRANSITIONS[PeerView[view]][PeerInput[what]] is PeerView[after]


def test_the_tables_here_know_every_custody_and_every_view() -> None:
    assert {custody for custody, _, _ in CUSTODY_CELLS} == Custody.__members__.keys()
    assert {what for _, what, _ in CUSTODY_CELLS} == CustodyInput.__members__.keys()
    assert CUSTODY_TRANSITIONS.keys() == set(Custody)
    assert {view for view, _, _ in PEER_VIEW_CELLS} == PeerView.__members__.keys()
    assert {what for _, what, _ in PEER_VIEW_CELLS} == PeerInput.__members__.keys()
    assert PEER_VIEW_TRANSITIONS.keys() == set(PeerView)


# What either end of a stream or a session does, in words: the tables above could be copied wrong.


def test_a_stream_ends_when_both_directions_have_ended_in_either_order() -> None:
    ours_first, theirs_first = stream_in("OPEN"), stream_in("OPEN")
    for stream, order in (ours_first, "SEND RECEIVE"), (theirs_first, "RECEIVE SEND"):
        for direction in order.split():
            assert stream.state is not StreamState.CLOSED
            stream.step(StreamInput[f"{direction}_END"])
        assert stream.state is StreamState.CLOSED


@pytest.mark.parametrize("how", ["SEND_RESET", "RECEIVE_RESET", "SESSION_END"])
@pytest.mark.parametrize("state", StreamState)
def test_a_reset_ends_both_directions_from_anywhere(state: StreamState, how: str) -> None:
    assert STREAM_TRANSITIONS[state][StreamInput[how]] is StreamState.CLOSED


def test_nothing_leads_out_of_gone_and_ended() -> None:
    assert set(STREAM_TRANSITIONS[StreamState.CLOSED].values()) == {StreamState.CLOSED}
    assert set(SESSION_TRANSITIONS[SessionState.ENDED].values()) == {SessionState.ENDED}


@pytest.mark.parametrize("state", StreamState)
def test_nothing_is_delivered_once_the_application_is_gone_or_the_peer_has_ended(
    state: StreamState,
) -> None:
    may_receive = StreamInput.RECEIVE_DATA in STREAM_TRANSITIONS[state]
    assert may_receive == (state in (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL))
