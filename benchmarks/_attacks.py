"""What an attacker sends: each attack as bytes, and how its connections are used."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trio_muxado import ErrorCode
from trio_muxado._protocol.wire import Wire

Chunks = Callable[[Wire], Iterator[bytes]]
"""What one connection sends, in pieces; the next connection begins anew."""

PIECE = 64 * 1024
LAST_ID = 2**31 - 1

# The first byte of a stream says what the server does with it.
ECHO, HOLD, SOURCE = b"e", b"h", b"s"


def syn(wire: Wire, stream_id: int, payload: bytes = b"", *, type: int = 0) -> bytes:
    """Open a stream."""
    if wire.has_syn_frame:
        opening = wire.syn(stream_id, 0, type)
        return opening + (data(wire, stream_id, payload) if payload else b"")
    return wire.data_header(stream_id, len(payload), syn=True) + payload


def data(wire: Wire, stream_id: int, payload: bytes = b"", *, fin: bool = False) -> bytes:
    return wire.data_header(stream_id, len(payload), fin=fin) + payload


def repeated(frames: bytes) -> Iterator[bytes]:
    """The same again and again."""
    piece = frames * max(1, PIECE // len(frames))
    return itertools.repeat(piece)


def for_each_id(frames_of: Callable[[int], bytes]) -> Iterator[bytes]:
    """Frames for one new id after the other."""
    ids = range(3, LAST_ID, 2)
    for first in range(0, len(ids), 1000):
        yield b"".join(map(frames_of, ids[first : first + 1000]))


def after(beginning: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    return itertools.chain([beginning], rest)


def fill(wire: Wire) -> Iterator[bytes]:
    """Fill the windows of as many streams as there may be."""
    size = min(wire.initial_window - 1, 16_000)
    frames = wire.initial_window // (size + 1)
    for stream_id in range(3, 2 * 256 + 3, 2):
        yield syn(wire, stream_id, HOLD)
        yield data(wire, stream_id, bytes(size)) * frames


def answers(wire: Wire) -> Iterator[bytes]:
    """Each frame has to be answered."""
    if wire.has_syn_frame:
        heartbeat = data(wire, 3, b"ping")
        return after(syn(wire, 3, type=wire.heartbeat_type), repeated(heartbeat))
    return for_each_id(lambda stream_id: data(wire, stream_id, b"x"))


def falling_goaways(wire: Wire) -> Iterator[bytes]:
    for last in range(LAST_ID, 0, -1000):
        lasts = range(last, max(last - 1000, 0), -1)
        yield b"".join(wire.goaway(it, ErrorCode.NO_ERROR, b"") for it in lasts)


def garbage(wire: Wire) -> Iterator[bytes]:
    return iter(lambda: os.urandom(PIECE), b"")


def one_by_one(frames: bytes) -> Iterator[bytes]:
    return (frames[i : i + 1] for i in range(len(frames)))


@dataclass(frozen=True)
class Attack:
    """A row of the table."""

    name: str
    says: str
    limit: str
    """What bounds it, in the words of docs/security.md."""
    chunks: Chunks
    connections: int = 1
    reads: bool = True
    pause: float = 0
    """Seconds between two pieces: slow attacks."""
    tls: bool = False
    memory: int = 64
    """MiB by which the server may grow."""
    wires: tuple[str, ...] = ("v1", "v2")


ATTACKS = (
    Attack(
        "streams",
        "streams without end",
        "max_inbound_streams",
        lambda wire: for_each_id(lambda i: syn(wire, i, HOLD)),
    ),
    Attack(
        "extensions",
        "streams of unknown extensions without end",
        "provoked_resets",
        lambda wire: for_each_id(lambda i: syn(wire, i, type=wire.first_extension_type)),
        wires=("v1",),
    ),
    Attack(
        "rapid-reset",
        "SYN and RST (CVE-2023-44487)",
        "unread_resets",
        lambda wire: for_each_id(lambda i: syn(wire, i) + wire.rst(i, ErrorCode.STREAM_CANCELLED)),
    ),
    Attack(
        "made-you-reset",
        "data after FIN (CVE-2025-8671)",
        "provoked_resets",
        lambda wire: for_each_id(
            lambda i: syn(wire, i, HOLD) + data(wire, i, fin=True) + data(wire, i, b"x")
        ),
    ),
    Attack(
        "no-reading", "answers that are never read", "waiting_control_frames", answers, reads=False
    ),
    Attack(
        "empty-data",
        "empty DATA",
        "empty_frames",
        lambda wire: after(syn(wire, 3, HOLD), repeated(data(wire, 3))),
    ),
    Attack(
        "one-byte-data",
        "DATA of one byte, which is read and echoed",
        "256 frames in a pass",
        lambda wire: after(syn(wire, 3, ECHO), repeated(data(wire, 3, b"x"))),
    ),
    Attack(
        "one-byte-unread",
        "DATA of one byte, which nobody reads",
        "receive_window",
        lambda wire: after(syn(wire, 3, HOLD), repeated(data(wire, 3, b"x"))),
    ),
    Attack(
        "wndinc",
        "WNDINC",
        "256 frames in a pass",
        lambda wire: after(syn(wire, 3, HOLD), repeated(wire.wndinc(3, 1))),
    ),
    Attack(
        "rst",
        "RST of streams that are gone",
        "256 frames in a pass",
        lambda wire: after(
            syn(wire, 3) + wire.rst(3, ErrorCode.STREAM_CANCELLED),
            repeated(wire.rst(3, ErrorCode.STREAM_CANCELLED)),
        ),
    ),
    Attack("goaway", "GOAWAY with falling ids", "256 frames in a pass", falling_goaways),
    Attack(
        "heartbeats",
        "heartbeats",
        "256 frames in a pass",
        answers,
        wires=("v1",),
    ),
    Attack(
        "unread",
        "windows that nobody reads, in 40 sessions",
        "receive_budget",
        fill,
        connections=40,
        memory=256,
    ),
    Attack(
        "deaf",
        "answers without end to a client that doesn't read",
        "send_buffer",
        lambda wire: iter([b"".join(syn(wire, i, SOURCE) for i in range(3, 203, 2))]),
        reads=False,
        memory=128,
    ),
    Attack(
        "half-open",
        "streams that only one side ends",
        "max_inbound_streams",
        lambda wire: for_each_id(lambda i: syn(wire, i, HOLD) + data(wire, i, fin=True)),
    ),
    Attack(
        "silent",
        "200 connections that say nothing",
        "first_stream_timeout",
        lambda _: iter([]),
        200,
    ),
    Attack(
        "slow",
        "200 connections that send a byte now and then",
        "first_stream_timeout",
        lambda wire: one_by_one(syn(wire, 3, HOLD) + data(wire, 3, bytes(1000))),
        connections=200,
        pause=0.2,
    ),
    Attack(
        "slow-tls",
        "200 TLS handshakes, a byte now and then",
        "handshake_timeout",
        lambda _: one_by_one(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        connections=200,
        pause=0.2,
        tls=True,
        wires=("v2",),
    ),
    Attack("garbage", "random bytes", "PROTOCOL_ERROR", garbage, wires=("v2",)),
    Attack(
        "connects",
        "connections that end at once",
        "one task each",
        lambda _: iter([b"\0"]),
        50,
        wires=("v2",),
    ),
    Attack(
        "huge",
        "DATA that announces more than any window",
        "FRAME_SIZE_ERROR",
        lambda wire: after(
            syn(wire, 3, HOLD) + wire.data_header(3, min(2**24 - 1, wire.max_payload)),
            repeated(bytes(PIECE)),
        ),
    ),
    Attack(
        "debug",
        "GOAWAY with as much text as fits",
        "4 KiB are kept",
        lambda wire: repeated(wire.goaway(0, ErrorCode.NO_ERROR, b"x" * 16_000)),
    ),
)
