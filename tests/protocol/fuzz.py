"""Throws broken sessions at the core, for as long as you like.

    python -m tests.protocol.fuzz --rounds 20000

Each round takes bytes that make sense (the golden vectors, and frames made up on the spot), spoils
them, cuts them, and feeds them to a connection whose application does something in between.
Nothing but events may come out, and little may be held.  A round is made from its number alone: the
one that fails is printed, and ``--seed NUMBER --rounds 1`` plays it again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from trio_muxado._protocol import events
from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.errors import ErrorCode, OpenRefused
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.states import SessionState, StreamInput
from trio_muxado._protocol.stream import Stream
from trio_muxado._protocol.streams import MAX_HEARTBEAT_STREAMS

from .driver import BOTH, weight

VECTORS = Path(__file__).parents[2] / "trio_muxado" / "vectors"
CORPUS = {
    wire: [
        bytes.fromhex(entry["hex"])
        for kind, entries in json.loads((VECTORS / f"{wire.name}.json").read_text("utf-8")).items()
        if isinstance(entries, list)
        for entry in entries
        if "hex" in entry
    ]
    for wire in BOTH
}

HELD_AT_MOST = 3_000_000
"""Bytes: a window or two that the application of a round has filled, and the tables."""


class Peer:
    """Says what makes sense, nearly always."""

    def __init__(self, rng: random.Random, wire: Wire, *, client: bool, typed: bool) -> None:
        self.rng = rng
        self.wire = wire
        self.typed = typed
        self.nonsense = rng.choice((0, 0, 0.01, 0.1))
        self.next_id = 3 if client else 2
        self.ids: list[int] = []

    def number(self) -> int:
        return self.rng.choice((1, 7, 1000, 65536) * 5 + (2**31 - 1, self.rng.randrange(2**31)))

    def stream_id(self) -> int:
        if self.rng.random() < self.nonsense:
            return self.rng.choice((0, 1, 2, 3, 4, 5, self.next_id, self.rng.randrange(2**31)))
        return self.rng.choice(self.ids[-8:])

    def payload(self) -> bytes:
        return self.rng.randbytes(self.rng.choice((0, 1, 4, 5, self.rng.randrange(3000))))

    def opening(self) -> bytes:
        rng, wire = self.rng, self.wire
        stream_id = self.next_id
        self.ids.append(stream_id)
        self.next_id += 2
        stream_type = rng.choice((0, 7, wire.heartbeat_type, 0xFFFFFFFF))
        if wire.has_syn_frame:
            return wire.syn(stream_id, rng.choice((0, 5)), stream_type)
        payload = self.payload()
        if self.typed:
            payload = (stream_type.to_bytes(4, "big") + payload)[: rng.choice((0, 3, 5000))]
        fin = rng.random() < 0.1
        return wire.data_header(stream_id, len(payload), fin=fin, syn=True) + payload

    def data(self) -> bytes:
        payload = self.payload()
        fin = self.rng.random() < 0.2
        return self.wire.data_header(self.stream_id(), len(payload), fin=fin) + payload

    def frame(self) -> bytes:
        rng, wire = self.rng, self.wire
        if rng.random() < self.nonsense:
            return rng.choice((rng.randbytes(rng.randrange(20)), rng.choice(CORPUS[wire])))
        what = rng.random()
        if what < 0.3 or not self.ids:
            return self.opening()
        if what < 0.7:
            return self.data()
        if what < 0.75:
            return wire.rst(self.stream_id(), rng.choice((0, 5, 6, 9, 2**32 - 1)))
        if what < 0.97:
            return wire.wndinc(self.stream_id(), self.number())
        if what < 0.99:
            return wire.goaway(self.number(), rng.randrange(16), rng.randbytes(rng.randrange(40)))
        return wire.header("GOAWAY", rng.randrange(8, 64), 0, 0) + bytes(8)


def spoil(rng: random.Random, data: bytearray) -> None:
    """Change, lose, double or insert a few bytes."""
    for _ in range(rng.choice((0, 0, 0, 0, 1, 5))):
        at = rng.randrange(len(data) + 1)
        size = rng.randrange(1, 16)
        match rng.randrange(4):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case _:
                data[at:at] = rng.randbytes(size)


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """One read, many, or a byte at a time."""
    most = rng.choice((1, 7, 100, 4096, 1 << 20))
    pieces, start = [], 0
    while start < len(data):
        size = rng.randrange(1, most + 1)
        pieces.append(data[start : start + size])
        start += size
    return pieces


class Application:
    """Does what applications do, at random, and never what they must not."""

    def __init__(self, rng: random.Random, core: Connection) -> None:
        self.rng = rng
        self.core = core
        self.streams: list[Stream] = []

    def notice(self, told: list[events.Event]) -> None:
        for event in told:
            if isinstance(event, events.StreamOpened):
                self.streams.append(event.stream)
                if self.rng.random() < 0.8:
                    self.core.accept(event.stream)

    def act(self) -> None:
        rng, core = self.rng, self.core
        if core.wire is None or core.state is SessionState.ENDED:
            return
        if rng.random() < 0.2:
            try:
                self.streams.append(core.open_stream(priority=rng.randrange(3)))
            except OpenRefused:
                assert not core.can_open
        if rng.random() < 0.02:
            core.goaway(ErrorCode.NO_ERROR, b"bye", last=rng.random() < 0.5)
        if self.streams and rng.random() < 0.8:
            self.act_on(rng.choice(self.streams))
        if core.wants_to_send and rng.random() < 0.5:
            batch, _ = core.data_to_send(rng.choice((1, 1000, 1 << 20)))
            assert b"".join(batch)

    def act_on(self, stream: Stream) -> None:
        rng, core = self.rng, self.core
        match rng.randrange(6):
            case 0 | 1 if stream.receive_window.unconsumed:
                core.consume(stream, rng.randrange(1, stream.receive_window.unconsumed + 1))
            case 2 if StreamInput.SEND_END in stream.allowed:
                core.send(stream, rng.randbytes(rng.choice((1, 10, 5000))))
            case 3 if StreamInput.SEND_END in stream.allowed:
                core.end_sending(stream)
            case 4:
                self.streams.remove(stream)
                core.close(stream)
            case 5:
                self.streams.remove(stream)
                core.reset(stream, ErrorCode.STREAM_CANCELLED)

    def meet(self, pieces: Iterable[bytes]) -> Counter[str]:
        """Read these, act between two reads, and check the core; what was told, by kind."""
        core = self.core
        kinds: Counter[str] = Counter()
        for number, piece in enumerate(pieces):
            # What is told must not lie in it: the next read may overwrite it.
            buffer = bytearray(piece)
            told = core.receive_data(memoryview(buffer), float(number))
            buffer[:] = bytes(len(buffer))
            while True:
                kinds.update(type(event).__name__ for event in told)
                self.notice(told)
                self.act()
                if not core.has_more:
                    break
                told = core.receive_data(b"", float(number))
        check(core)
        return kinds

    def leave(self) -> None:
        """Close every stream; then what was promised is what lives, and all else is back."""
        core = self.core
        for stream in self.streams:
            core.close(stream)
        if core.wire is not None:
            promised = sum(stream.reserved for stream in core.streams.live.values())
            assert promised + core.streams.spare_window == core._limits.receive_budget


def check(core: Connection) -> None:
    """What must hold, whatever came."""
    streams, limits = core.streams, core._limits
    assert streams.inbound.used <= limits.max_inbound_streams + limits.max_extension_streams
    assert streams.waiting.used <= limits.accept_backlog
    assert streams.extensions.used <= limits.max_extension_streams
    assert streams.heartbeats.used <= MAX_HEARTBEAT_STREAMS
    assert streams.spare_window <= limits.receive_budget
    for stream in streams.live.values():
        window = stream.receive_window
        assert window.ungranted >= 0
        assert stream.outgoing.size == sum(map(len, stream.outgoing.chunks or ()))
        assert stream.scheduled == stream.can_send
        starved = stream.outgoing.size > 0 and not stream.scheduled
        assert starved == (stream in core._outbox._starved)


def play(seed: int) -> Counter[str]:
    """One round; what was told in it, by kind."""
    rng = random.Random(seed)
    wire = rng.choice(BOTH)
    client = rng.random() < 0.4
    core = Connection(
        client=client,
        wire=wire if client or rng.random() < 0.5 else None,
        limits=Limits(
            accept_backlog=rng.choice((1, 128)), max_inbound_streams=rng.choice((2, 256))
        ),
        typed=rng.random() < 0.4,
    )
    application = Application(rng, core)
    peer = Peer(rng, wire, client=not client, typed=core._typed)
    if core.wire is not None:
        application.streams += [core.open_stream() for _ in range(rng.choice((0, 3)))]
        peer.ids += [stream.id for stream in application.streams]
    data = bytearray().join(peer.frame() for _ in range(rng.choice((1, 10, 100))))
    if peer.ids and rng.random() < 0.2:  # more than a turn of the reader handles
        at = rng.randrange(len(data) + 1)
        data[at:at] = peer.wire.wndinc(peer.stream_id(), 1) * 300
    spoil(rng, data)
    kinds = application.meet(cut(rng, bytes(data)))
    assert weight(core) < HELD_AT_MOST
    application.leave()
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first round")
    chosen = parser.parse_args()
    kinds: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(chosen.seed, chosen.seed + chosen.rounds):
        try:
            kinds += play(seed)
        except BaseException:
            sys.stderr.write(f"round {seed} failed: --seed {seed} --rounds 1\n")
            raise
    lines = [f"{chosen.rounds} rounds in {time.monotonic() - began:.0f} s; what was told:"]
    lines += [f"{count:10,} {kind}" for kind, count in kinds.most_common()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
