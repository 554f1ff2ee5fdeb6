"""What a session counts, and that it is back where it began."""

from trio_muxado import MuxadoSession
from trio_muxado._protocol.stream import Stream


def live_on(session: MuxadoSession) -> list[Stream]:
    """The streams of a session on which something can still happen, but for heartbeats."""
    connection = session._engine.connection
    heartbeat = None if connection.wire is None else connection.wire.heartbeat_type
    return [stream for stream in connection.streams.live.values() if stream.type != heartbeat]


def check_counts(session: MuxadoSession, *, over: bool = False) -> None:
    """No stream of an application lives: what they took is back, and nobody waits.

    Where the session is ``over``, there are no heartbeats either.
    """
    engine = session._engine
    connection = engine.connection
    streams = connection.streams
    live = list(streams.live.values())
    assert live_on(session) == []
    assert not (over and live)
    # What this side has closed before the peer answered: no answer comes once the session is over.
    unanswered = len(streams._unanswered) if over else 0
    used = streams.outbound.used, streams.inbound.used, streams.waiting.used
    assert used == (unanswered, 0, 0), (used, live, streams._unanswered)
    reserved = sum(stream.reserved for stream in live)
    assert streams.budget.left + reserved == session.config.receive_budget
    slots = engine.slots
    assert (slots._waiting, slots._promised, slots.waited_since) == (0, 0, None)
    waiting = len(slots._openers or ()), len(engine.room._senders), len(engine.breaks)
    assert waiting == (0, 0, 0)
    # One may be on its way just now.
    most = 0 if over or session.config.heartbeat is None else 1
    assert engine.heartbeats is None or len(engine.heartbeats._waiting) <= most
    assert not slots.idle
    assert len(engine.steps.receivers) <= len(live)
    assert engine.backlog._waiting == 0
    assert connection.unsent == 0
    if connection.wire is not None:
        outbox = connection._outbox
        assert not any((outbox._starved, outbox._deficit, outbox._unopened))
    statistics = session.statistics()
    assert (statistics.waiting, sum(statistics.streams.values())) == (0, len(live))
