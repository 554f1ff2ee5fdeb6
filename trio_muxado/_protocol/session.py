"""Where a session is in its life: what all parts of a connection go by."""

from __future__ import annotations

from .states import SESSION_TRANSITIONS, SessionInput, SessionState

_GOAWAY_SENT = frozenset((SessionState.GOING_AWAY, SessionState.DRAINING))
_GOAWAY_RECEIVED = frozenset((SessionState.GONE_AWAY, SessionState.DRAINING))
_OPENING = frozenset((SessionState.ACTIVE, SessionState.GOING_AWAY))

# What a state is asked for with each stream, so that to ask is no call.
_FACTS = {
    state: (state in _GOAWAY_SENT, state in _GOAWAY_RECEIVED, state in _OPENING)
    for state in SessionState
}


class Session:
    """The state of a session."""

    __slots__ = ("can_open", "goaway_received", "goaway_sent", "state")

    goaway_sent: bool
    """This side has sent GOAWAY."""
    goaway_received: bool
    """The peer has sent GOAWAY."""
    can_open: bool
    """The peer takes streams of this side."""

    def __init__(self) -> None:
        self._be_in(SessionState.ACTIVE)

    def step(self, what: SessionInput) -> None:
        """Follow the state table; KeyError where it has no cell."""
        self._be_in(SESSION_TRANSITIONS[self.state][what])

    def _be_in(self, state: SessionState) -> None:
        self.state: SessionState = state
        self.goaway_sent, self.goaway_received, self.can_open = _FACTS[state]
