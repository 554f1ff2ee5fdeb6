"""The files of ``trio_muxado/vectors``, as far as a whole session plays them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias

Version: TypeAlias = Literal["v1", "v2"]
Role: TypeAlias = Literal["client", "server"]
Frame: TypeAlias = Mapping[str, Any]
"""A frame in the words of ``vectors/README.md``."""

VERSIONS: tuple[Version, ...] = ("v1", "v2")

# What a step may ask of an application that an echo peer does by itself.
_ECHO_DOES = {"read", "end"}


@dataclass(frozen=True)
class Step:
    """What happens, and which answers are right."""

    sent: bytes
    """What the test sends."""
    do: Mapping[str, Any] | None
    """What the application does; None where it does nothing."""
    eof: bool
    """The transport ends."""
    over: bool
    """The session is over after this step, without a GOAWAY in answer."""
    answers: tuple[tuple[Frame, ...], ...]
    """Every list of frames that is right, the usual one first."""


@dataclass(frozen=True)
class Shown:
    """A stream that the application has opened or was shown, and what it reads there."""

    stream_id: int
    type: int
    received: bytes | None
    """None where it isn't looked at."""
    end: str | None
    """``open``, ``fin``, ``error`` or ``closed``; None where it isn't looked at."""
    optional: bool
    """The application need not be shown the stream."""


@dataclass(frozen=True)
class Vector:
    """One session: what is sent, what must be answered, and the rule that says so."""

    name: str
    version: Version
    role: Role
    """The role of the endpoint under test."""
    typed: bool
    max_streams: int | None
    """The streams of the peer that the endpoint lets live at once; None is its usual number."""
    echo: bool
    """An echo peer can be tried with it."""
    rule: str
    """The section of ``docs/specification`` that it belongs to: ``v2.md#irregular-input``."""
    note: str
    steps: tuple[Step, ...]
    shown: tuple[Shown, ...] | None
    """None where the application echoes: then ``steps`` say all that it sends."""


@cache
def read(version: Version) -> Mapping[str, Any]:
    """The file of a version, as it is."""
    text = (files("trio_muxado") / "vectors" / f"{version}.json").read_text("utf-8")
    data: Mapping[str, Any] = json.loads(text)
    return data


@cache
def error_names(version: Version) -> Mapping[int, str]:
    """The names of the error codes of a version."""
    return {code: name for name, code in read(version)["error_codes"].items()}


@cache
def load(version: Version) -> tuple[Vector, ...]:
    """All sessions of a version: those of every list of its file that has some."""
    data = read(version)
    return (
        *(_session(version, entry) for entry in data["sessions"]),
        *(_echo_session(version, entry) for entry in data["echo_sessions"]),
        *(_invalid(version, entry, data["error_codes"]) for entry in data["invalid"]),
    )


def bytes_of(entry: Mapping[str, Any], key: str) -> bytes:
    """The bytes under ``key``, and as many zeros after them as ``zeros`` says."""
    return bytes.fromhex(entry.get(key, "")) + bytes(entry.get("zeros", 0))


def _session(version: Version, entry: Mapping[str, Any]) -> Vector:
    return _vector(
        version,
        entry,
        echo=entry.get("echo", False),
        shown=tuple(
            Shown(
                stream_id=told["stream_id"],
                type=told.get("type", 0),
                received=bytes_of(told, "received") if "received" in told else None,
                end=told.get("end"),
                optional=told.get("optional", False),
            )
            for told in entry["streams"]
        ),
    )


def _echo_session(version: Version, entry: Mapping[str, Any]) -> Vector:
    return _vector(version, entry, echo=True, shown=None)


def _invalid(version: Version, entry: Mapping[str, Any], codes: Mapping[str, int]) -> Vector:
    """A frame that ends the session, as the first one that a server gets."""
    code = codes[entry["error"]]
    goaway = {"frame": "GOAWAY", "last_stream_id": 0, "error_code": code}
    entry = {
        **entry,
        "name": f"invalid/{entry['name']}",
        "role": "server",
        "rule": f"{version}.md#irregular-input",
        "steps": [{"in": entry["hex"], "out": [goaway]}],
    }
    return _vector(version, entry, echo=True, shown=())


def _vector(
    version: Version, entry: Mapping[str, Any], *, echo: bool, shown: tuple[Shown, ...] | None
) -> Vector:
    return Vector(
        name=entry["name"],
        version=version,
        role=entry["role"],
        typed=entry.get("typed", False),
        max_streams=entry.get("max_streams"),
        echo=echo,
        rule=entry["rule"],
        note=entry.get("note", ""),
        steps=tuple(_steps(entry, echo=echo)),
        shown=shown,
    )


def _steps(entry: Mapping[str, Any], *, echo: bool) -> Iterator[Step]:
    for step in entry["steps"]:
        assert not (echo and step.get("do", "read") not in _ECHO_DOES), entry["name"]
        yield Step(
            sent=bytes_of(step, "in") if "in" in step else b"",
            do=step if "do" in step else None,
            eof=step.get("eof", False),
            over=step.get("over", False),
            answers=(tuple(step.get("out", ())), *(tuple(frames) for frames in step.get("or", ()))),
        )
