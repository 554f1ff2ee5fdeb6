"""What a connection has seen, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Counters since the session began; extensions and their streams included."""

    opened: int = 0
    """Streams that this side has opened."""
    offered: int = 0
    """Streams that the peer has opened and that were taken."""
    refused: int = 0
    """Streams that the peer has opened and that were refused."""
    resets_sent: int = 0
    resets_received: int = 0
    frames_sent: int = 0
    frames_received: int = 0
