"""What tests of sessions share: pairs, peers that a test plays by hand, transports, tasks.

Everything here is deterministic: nothing sleeps, nothing polls, and what is random has a seed.
"""

from .calls import CALLS, SENDING, each_call, each_sender
from .kinds import SEND_BUFFER, STEADY, V1, V2, V2_TYPED, Kind, each_kind, each_wire, with_types
from .raw_peer import RawPeer, raw_session
from .reads import receive_on
from .sessions import (
    echo,
    fill,
    number_of,
    read_all,
    read_exactly,
    session_pair,
    stream_pair,
    waits_of,
)
from .tasks import CancelAtTurn, Turns, cancel_at_checkpoint, outcome_of, together
from .transports import (
    Deaf,
    DeafHalfCloseable,
    Failing,
    FailingWhenCancelled,
    Gated,
    HalfCloseable,
    MemoryListener,
    Pair,
    Recording,
    Splitting,
    Transport,
    socket_pair,
    tcp_pair,
    tls_pair,
)

__all__ = [
    "CALLS",
    "SENDING",
    "SEND_BUFFER",
    "STEADY",
    "V1",
    "V2",
    "V2_TYPED",
    "CancelAtTurn",
    "Deaf",
    "DeafHalfCloseable",
    "Failing",
    "FailingWhenCancelled",
    "Gated",
    "HalfCloseable",
    "Kind",
    "MemoryListener",
    "Pair",
    "RawPeer",
    "Recording",
    "Splitting",
    "Transport",
    "Turns",
    "cancel_at_checkpoint",
    "each_call",
    "each_kind",
    "each_sender",
    "each_wire",
    "echo",
    "fill",
    "number_of",
    "outcome_of",
    "raw_session",
    "read_all",
    "read_exactly",
    "receive_on",
    "session_pair",
    "socket_pair",
    "stream_pair",
    "tcp_pair",
    "tls_pair",
    "together",
    "waits_of",
    "with_types",
]
