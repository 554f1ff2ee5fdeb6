"""Vectors for both roles: what holds for a server holds for a client whose ids are exchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .frames import HEADER, Header
from .vectors import Frame, Role, Shown, Step, Vector, Version, load

_RESERVED = 0x80000000
_GOAWAY = {"v1": 6, "v2": 3}


def echo_vectors(version: Version, *, role: Role, typed: bool) -> Sequence[Vector]:
    """What can be played to an echo peer of this role, in a session of this kind.

    A v1 session is never typed: its streams have types by themselves.
    """
    return [v for v in _for_role(version, role) if v.echo and v.typed == typed]


def _for_role(version: Version, role: Role) -> Iterator[Vector]:
    names: set[str] = set()
    for vector in load(version):
        if vector.role == role:
            names.add(vector.name)
            yield vector
    for vector in load(version):
        if vector.role != role and (other := mirrored(vector)) and other.name not in names:
            yield other


def mirrored(vector: Vector) -> Vector | None:
    """The same vector for the other role.

    None where it can't be: about id 1, which neither role has, or about bytes that are no frames.
    """
    if vector.name.startswith("invalid/") or any(_has_id_one(vector, s.sent) for s in vector.steps):
        return None
    shown = vector.shown
    return replace(
        vector,
        role="client" if vector.role == "server" else "server",
        steps=tuple(_step(vector, step) for step in vector.steps),
        shown=None if shown is None else tuple(_shown(told) for told in shown),
    )


def _exchanged(stream_id: int) -> int:
    """The id of the other side: 3 is 2, and 2 is 3."""
    if stream_id < 2:
        return stream_id
    return stream_id - 1 if stream_id % 2 else stream_id + 1


def _last_id(last: int, owner: Role) -> int:
    """A last stream id, which may be any number: only what is above it counts."""
    if last < 2:
        return last
    return last - 1 if owner == "client" else last + 1


def _step(vector: Vector, step: Step) -> Step:
    do = step.do
    if do is not None and "stream_id" in do:
        do = {**do, "stream_id": _exchanged(do["stream_id"])}
    peer: Role = "client" if vector.role == "server" else "server"
    answers = tuple(tuple(_frame(frame, peer) for frame in answer) for answer in step.answers)
    sent = b"".join(_sent(vector, step.sent))
    return replace(step, sent=sent, do=do, answers=answers)


def _frame(frame: Frame, peer: Role) -> Frame:
    ids: dict[str, Any] = {}
    if "stream_id" in frame:
        ids["stream_id"] = _exchanged(frame["stream_id"])
    if "last_stream_id" in frame:
        ids["last_stream_id"] = _last_id(frame["last_stream_id"], peer)
    return {**frame, **ids}


def _shown(told: Shown) -> Shown:
    return replace(told, stream_id=_exchanged(told.stream_id))


def _frames(vector: Vector, data: bytes) -> Iterator[tuple[Header, bytes, bytes]]:
    """Each frame's header, as it is read and as it is written, and what comes of its body."""
    while len(data) >= HEADER:
        header = Header.parse(vector.version, data)
        end = HEADER + header.length
        yield header, data[:HEADER], data[HEADER:end]
        data = data[end:]


def _sent(vector: Vector, data: bytes) -> Iterator[bytes]:
    for header, raw, body in _frames(vector, data):
        word = int.from_bytes(raw[4:], "big")
        word = word & _RESERVED | _exchanged(header.stream_id)
        yield raw[:4] + word.to_bytes(4, "big")
        if header.type == _GOAWAY[vector.version] and len(body) >= 4:
            last = int.from_bytes(body[:4], "big")
            last = last & _RESERVED | _last_id(last & ~_RESERVED, vector.role)
            body = last.to_bytes(4, "big") + body[4:]
        yield body


def _has_id_one(vector: Vector, data: bytes) -> bool:
    return any(header.stream_id == 1 for header, _, _ in _frames(vector, data))
