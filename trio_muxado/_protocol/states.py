"""The states of a stream and of a session, as tables.

A missing cell is an error: of the peer where the input is the peer's, a bug of ours where it
is our own.  The tables know no role; both sides of a connection follow the same ones, and the
specification's pages show them, which a test holds them to.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class StreamState(enum.Enum):
    """Where a stream is in its life."""

    OPEN = "both sides may send"
    HALF_CLOSED_LOCAL = "we have ended our direction"
    HALF_CLOSED_REMOTE = "the peer has ended its direction"
    CLOSED_LOCAL = "the application is gone; the peer has not ended yet"
    CLOSED = "both directions have ended"


class StreamInput(enum.Enum):
    """What can happen to a stream."""

    SEND_END = "we end our direction (FIN)"
    CLOSE = "the application closes the stream (FIN, nothing more is read)"
    SEND_RESET = "we reset the stream (RST)"
    RECEIVE_DATA = "bytes come"
    RECEIVE_END = "the peer ends its direction (FIN)"
    RECEIVE_RESET = "the peer resets the stream (RST)"
    SESSION_END = "the session ends under the stream"


class SessionState(enum.Enum):
    """Where a session is in its life."""

    ACTIVE = "both sides may open streams"
    GOING_AWAY = "we take no new streams of the peer (we sent GOAWAY)"
    GONE_AWAY = "the peer accepts no new streams of ours (it sent GOAWAY)"
    DRAINING = "neither side opens streams; those that run go on"
    ENDED = "nothing is read or sent any more"


class SessionInput(enum.Enum):
    """What can happen to a session."""

    SEND_GOAWAY = "we send GOAWAY"
    RECEIVE_GOAWAY = "the peer sends GOAWAY"
    END = "the transport ends, or either side closes"


class Custody(enum.Enum):
    """Who has a stream of the peer.  Streams of this side are ACCEPTED until they are RELEASED."""

    UNTYPED = "nobody yet: its type has not come"
    WAITING = "nobody yet: it waits to be accepted, and is counted until it is taken"
    ACCEPTED = "the application, which may forget to let go of it"
    HELD = "a handler, which surely lets go of it"
    RELEASED = "nobody any more: what had it has closed or reset it, or it was refused"


class CustodyInput(enum.Enum):
    """What can happen to the custody of a stream."""

    OFFER = "its type is known, and it may wait to be accepted"
    ACCEPT = "the application accepts it, or it goes to an extension at once"
    HOLD = "a handler is started for it"
    RELEASE = "whoever has it lets go of it, or it is refused"


class PeerView(enum.Enum):
    """What a stream of this side is to the peer, as far as it shows.  Others are SEEN."""

    UNHEARD = "nothing shows that it knows of the stream"
    ANSWERED = "it has the stream: it has granted a larger window"
    SEEN = "its application has the stream: it has read or sent something"


class PeerInput(enum.Enum):
    """What a peer shows by its frames."""

    WIDEN = "it grants more than was sent to it, which its session does by itself"
    ACT = "it sends data, or grants again what was sent to it"


# Members are compared by identity.  Enum's own hash, of the name, is Python code, and each step
# of a stream looks two of them up.
for _kind in (
    StreamState,
    StreamInput,
    SessionState,
    SessionInput,
    Custody,
    CustodyInput,
    PeerView,
    PeerInput,
):
    type.__setattr__(_kind, "__hash__", object.__hash__)

# Up to Python 3.11 to find a member in its class takes as long as a call.
OFFER = CustodyInput.OFFER
ACCEPT = CustodyInput.ACCEPT
HOLD = CustodyInput.HOLD
RELEASE = CustodyInput.RELEASE
SEND_END = StreamInput.SEND_END
CLOSE = StreamInput.CLOSE
SEND_RESET = StreamInput.SEND_RESET
RECEIVE_DATA = StreamInput.RECEIVE_DATA
RECEIVE_END = StreamInput.RECEIVE_END
RECEIVE_RESET = StreamInput.RECEIVE_RESET
SESSION_END = StreamInput.SESSION_END
OPEN = StreamState.OPEN
CLOSED_LOCAL = StreamState.CLOSED_LOCAL
UNTYPED = Custody.UNTYPED
WAITING = Custody.WAITING
ACCEPTED = Custody.ACCEPTED
HELD = Custody.HELD
UNHEARD = PeerView.UNHEARD
SEEN = PeerView.SEEN
ACT = PeerInput.ACT
OVER = frozenset((StreamState.CLOSED, StreamState.CLOSED_LOCAL))
"""The application is done with the stream: once all that is due has gone out, so is the session."""

_S = StreamState
_I = StreamInput

STREAM_TRANSITIONS: Mapping[StreamState, Mapping[StreamInput, StreamState]] = {
    _S.OPEN: {
        _I.SEND_END: _S.HALF_CLOSED_LOCAL,
        _I.CLOSE: _S.CLOSED_LOCAL,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_DATA: _S.OPEN,
        _I.RECEIVE_END: _S.HALF_CLOSED_REMOTE,
        _I.RECEIVE_RESET: _S.CLOSED,
        _I.SESSION_END: _S.CLOSED,
    },
    _S.HALF_CLOSED_LOCAL: {
        _I.CLOSE: _S.CLOSED_LOCAL,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_DATA: _S.HALF_CLOSED_LOCAL,
        _I.RECEIVE_END: _S.CLOSED,
        _I.RECEIVE_RESET: _S.CLOSED,
        _I.SESSION_END: _S.CLOSED,
    },
    _S.HALF_CLOSED_REMOTE: {
        _I.SEND_END: _S.CLOSED,
        _I.CLOSE: _S.CLOSED,
        _I.SEND_RESET: _S.CLOSED,
        # The Go peers send an empty DATA+FIN for each of HalfClose and Close.
        _I.RECEIVE_END: _S.HALF_CLOSED_REMOTE,
        _I.RECEIVE_RESET: _S.CLOSED,
        _I.SESSION_END: _S.CLOSED,
    },
    _S.CLOSED_LOCAL: {
        _I.CLOSE: _S.CLOSED_LOCAL,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_END: _S.CLOSED,
        _I.RECEIVE_RESET: _S.CLOSED,
        _I.SESSION_END: _S.CLOSED,
    },
    # What is left to send of a stream that is gone (its last data, its FIN) still goes out,
    # and until it has, the peer can reset it and we can.
    _S.CLOSED: {
        _I.CLOSE: _S.CLOSED,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_END: _S.CLOSED,
        _I.RECEIVE_RESET: _S.CLOSED,
        _I.SESSION_END: _S.CLOSED,
    },
}
"""Data for the application that is gone, or after the peer's end: answered with RST."""

_SS = SessionState
_SI = SessionInput

SESSION_TRANSITIONS: Mapping[SessionState, Mapping[SessionInput, SessionState]] = {
    _SS.ACTIVE: {
        _SI.SEND_GOAWAY: _SS.GOING_AWAY,
        _SI.RECEIVE_GOAWAY: _SS.GONE_AWAY,
        _SI.END: _SS.ENDED,
    },
    _SS.GOING_AWAY: {
        _SI.SEND_GOAWAY: _SS.GOING_AWAY,
        _SI.RECEIVE_GOAWAY: _SS.DRAINING,
        _SI.END: _SS.ENDED,
    },
    _SS.GONE_AWAY: {
        _SI.SEND_GOAWAY: _SS.DRAINING,
        _SI.RECEIVE_GOAWAY: _SS.GONE_AWAY,
        _SI.END: _SS.ENDED,
    },
    _SS.DRAINING: {
        _SI.SEND_GOAWAY: _SS.DRAINING,
        _SI.RECEIVE_GOAWAY: _SS.DRAINING,
        _SI.END: _SS.ENDED,
    },
    _SS.ENDED: {_SI.END: _SS.ENDED},
}

_C = Custody
_CI = CustodyInput

CUSTODY_TRANSITIONS: Mapping[Custody, Mapping[CustodyInput, Custody]] = {
    _C.UNTYPED: {
        _CI.OFFER: _C.WAITING,
        _CI.ACCEPT: _C.ACCEPTED,
        _CI.RELEASE: _C.RELEASED,
    },
    # Whoever accepts or holds a stream that waits no more has come too late: it was refused.
    _C.WAITING: {
        _CI.ACCEPT: _C.ACCEPTED,
        _CI.HOLD: _C.HELD,
        _CI.RELEASE: _C.RELEASED,
    },
    _C.ACCEPTED: {_CI.HOLD: _C.HELD, _CI.RELEASE: _C.RELEASED},
    _C.HELD: {_CI.RELEASE: _C.RELEASED},
    _C.RELEASED: {_CI.RELEASE: _C.RELEASED},
}

_PV = PeerView
_PI = PeerInput

PEER_VIEW_TRANSITIONS: Mapping[PeerView, Mapping[PeerInput, PeerView]] = {
    _PV.UNHEARD: {_PI.WIDEN: _PV.ANSWERED, _PI.ACT: _PV.SEEN},
    _PV.ANSWERED: {_PI.WIDEN: _PV.ANSWERED, _PI.ACT: _PV.SEEN},
    _PV.SEEN: {_PI.WIDEN: _PV.SEEN, _PI.ACT: _PV.SEEN},
}
