"""What has been done, and what must not be left of it."""

from __future__ import annotations

import gc
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from trio_muxado import MuxadoStream

if TYPE_CHECKING:
    from trio_muxado import MuxadoSession

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024
MOST_FAULTS = 50
"""That are kept: where one thing is wrong, a thousand lines say no more than fifty."""

# Names, so that no class of the library has to be imported from a private module.
KEPT_TYPES = ("Engine", "MuxadoSession", "MuxadoStream", "Stream", "ReceiveChannel")


def resident() -> int:
    """Bytes of this process' memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def left_of(session: MuxadoSession) -> dict[str, int]:
    """What a session that is over still counts: nothing of this may be there."""
    engine = session._engine
    streams = engine.connection.streams
    # What waits to be accepted when a session breaks can still be had, and so it is counted.
    waiting = streams.waiting.used
    counts = {
        "live": len(streams.live),
        "inbound": streams.inbound.used - waiting,
        "extensions": streams.extensions.used,
        "heartbeats": streams.heartbeats.used,
        # Streams that were closed before the peer answered keep their slots until it does.
        "outbound": streams.outbound.used - len(streams._unanswered),
        "reserved": 0 if waiting else engine.config.receive_budget - streams.budget.left,
        "receivers": len(engine.steps.receivers),
        "senders": len(engine.room._senders),
        "breaks": len(engine.breaks),
        "pings": len(engine.heartbeats._waiting) if engine.heartbeats else 0,
    }
    return {name: count for name, count in counts.items() if count}


@dataclass
class Account:
    """Everything that is counted, over all lanes."""

    streams: int = 0
    """That our sides have opened or were offered, in sessions that are over."""
    sessions: int = 0
    peers: int = 0
    """Processes of other implementations that were started."""
    outcomes: Counter[str] = field(default_factory=Counter)
    by_lane: Counter[str] = field(default_factory=Counter)
    running: int = 0
    """Uses of streams that have begun and not ended."""
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Note what must not be."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(text)

    def over(self, session: MuxadoSession, lane: str, opened: int | None = None) -> None:
        """A session is over, and whoever used it opened that many streams on it."""
        statistics = session.statistics()
        self.sessions += 1
        self.streams += statistics.opened + statistics.offered
        self.by_lane[lane] += statistics.opened + statistics.offered
        if left := left_of(session):
            self.fault(f"{lane}: {session!r} is over, and has left {left}")
        # Beside them there is at most the heartbeats' stream.
        if opened is not None and not 0 <= statistics.opened - opened <= 1:
            self.fault(f"{lane}: opened {opened}, counted {statistics.opened} in {session!r}")

    def figures(self) -> dict[str, Any]:
        """The counts so far, for a line of JSON."""
        return {
            "streams": self.streams,
            "sessions": self.sessions,
            "peers": self.peers,
            "outcomes": dict(sorted(self.outcomes.items())),
            "by_lane": dict(sorted(self.by_lane.items())),
        }


@dataclass(frozen=True)
class Holdings:
    """What the process holds while no session lives."""

    tasks: int
    files: int
    objects: int
    """Sessions, streams and what belongs to them, which nobody uses any more."""
    resident: int

    @classmethod
    def look(cls) -> Holdings:
        """Collect what is garbage, and look at the rest."""
        gc.collect()
        kept = Counter(type(it).__name__ for it in gc.get_objects() if is_ours(it))
        return cls(
            tasks=trio.lowlevel.current_statistics().tasks_living,
            files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            objects=kept.total(),
            resident=resident(),
        )


def is_ours(thing: object) -> bool:
    """It belongs to a session."""
    kind = type(thing)
    return kind.__name__ in KEPT_TYPES and kind.__module__.startswith(MuxadoStream.__module__[:11])
