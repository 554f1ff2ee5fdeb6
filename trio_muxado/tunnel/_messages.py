"""What relay and agent say to each other on the control stream: JSON behind its length.

Bytes in, messages out; nothing here does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from ._names import Tunnel, check_name, parse_address, shown, shown_address

VERSION = 1
"""Of this conversation.  A relay refuses what it doesn't know."""

LONGEST = 128 * 1024
"""Bytes of a message at most: as many tunnels as there may be, and nobody's memory."""

PREFIX = 4
"""Bytes of the length in front of a message, most significant first."""

LONGEST_TEXT = 1024
"""Characters of what a message has for people."""

MOST_TUNNELS = 256
"""That one agent can ask for."""

REASONS: Mapping[str, bool] = {
    "message": True,  # it makes no sense, or says what it must not
    "version": True,
    "token": True,
    "not-allowed": True,  # the token doesn't allow a name, a host, a port or a target
    "unsupported": True,  # this relay has no such ports
    "taken": False,  # another tunnel has the host or the port
    "busy": False,  # as many agents or tunnels as there may be, or no port is free
    "stopping": False,
    "unknown": False,  # there is no such tunnel
    "unreachable": False,  # there is no agent, or nothing answers at the target
}
"""Why a relay refuses, and whether asking again is pointless until something has changed."""


class MessageError(ValueError):
    """The other side sent something that is not a message."""


@dataclass(frozen=True)
class Hello:
    """The agent's first words."""

    token: str = field(repr=False)
    agent: str
    """What it calls itself, for logs."""
    tunnels: tuple[Tunnel, ...] = ()
    relay: str = ""
    """HOST:PORT where other relays reach it, where it is a relay itself."""


@dataclass(frozen=True)
class Granted:
    """A tunnel that the relay has granted to an agent.

    Attributes:
      name: the tunnel's name.
      number: the type of the streams that arrive for it.
      address: where visitors find it, as far as the relay knows; for people to read.
    """

    name: str
    number: int
    address: str


@dataclass(frozen=True)
class Accepted:
    """The relay's answer to :class:`Hello`: all tunnels that were asked for."""

    tunnels: tuple[Granted, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The relay's answer to :class:`Hello` or :class:`Target`."""

    reason: str
    """One of :data:`REASONS`; others count as ones that may pass with time."""
    text: str
    """For people."""

    @property
    def is_final(self) -> bool:
        """Whether asking again is pointless."""
        return REASONS.get(self.reason, False)


@dataclass(frozen=True)
class Target:
    """A client's first words on a stream of its own: where it is to go."""

    target: str
    """The name of a tunnel, or HOST:PORT."""


@dataclass(frozen=True)
class Opened:
    """The relay's answer to :class:`Target`: what follows is the target's."""


@dataclass(frozen=True)
class Visit:
    """Another relay's first words on a stream of its own: a visitor whose PROXY header follows."""

    tunnel: str
    """The name."""


Message: TypeAlias = "Hello | Accepted | Refused | Target | Opened | Visit"


# ---- to bytes


def encode(message: Message) -> bytes:
    """A message with its length in front."""
    body = json.dumps(_fields(message), separators=(",", ":")).encode()
    if len(body) > LONGEST:
        raise ValueError(f"a message of {len(body)} bytes is longer than {LONGEST}")
    return len(body).to_bytes(PREFIX, "big") + body


def _fields(message: Message) -> dict[str, Any]:
    match message:
        case Hello():
            tunnels = [_tunnel_fields(tunnel) for tunnel in message.tunnels]
            said: dict[str, Any] = {"token": message.token, "agent": message.agent}
            said["tunnels"] = tunnels
            if message.relay:
                said["relay"] = message.relay
            return {"type": "hello", "version": VERSION, **said}
        case Accepted():
            granted = [
                {"name": each.name, "number": each.number, "address": each.address}
                for each in message.tunnels
            ]
            return {"type": "accepted", "tunnels": granted}
        case Refused():
            text = message.text[:LONGEST_TEXT]
            return {"type": "refused", "reason": message.reason, "text": text}
        case Target():
            return {"type": "target", "target": message.target}
        case Opened():
            return {"type": "opened"}
        case Visit():
            return {"type": "visit", "tunnel": message.tunnel}


def _tunnel_fields(tunnel: Tunnel) -> dict[str, Any]:
    fields = {"name": tunnel.name, "port": tunnel.port, "host": tunnel.host}
    return {name: value for name, value in fields.items() if value is not None}


# ---- from bytes


def size_of(prefix: bytes) -> int:
    """How many bytes follow the length.

    Raises:
      MessageError: too many, or none.
    """
    size = int.from_bytes(prefix, "big")
    if not 0 < size <= LONGEST:
        raise MessageError(f"a message of {size} bytes: it must be 1 to {LONGEST}")
    return size


def decode(body: bytes) -> Message:
    """The message in ``body``.  Fields that nobody knows are skipped.

    Raises:
      MessageError: there is none, or one with a wrong field.
    """
    try:
        fields: Any = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MessageError("the message is not JSON") from None
    if not isinstance(fields, dict):
        raise MessageError("the message is not a JSON object")
    fields = cast("dict[str, Any]", fields)
    kind = _text(fields, "type")
    read = _READERS.get(kind)
    if read is None:
        raise MessageError(f"there is no message of type {shown(kind)}")
    return read(fields)


def _hello(fields: dict[str, Any]) -> Hello:
    version = fields.get("version")
    if version != VERSION:
        raise VersionError(f"this side speaks version {VERSION}, not {shown(version)}")
    tunnels = tuple(_tunnel(each) for each in _objects(fields, "tunnels"))
    names = {tunnel.name for tunnel in tunnels}
    if len(names) < len(tunnels):
        raise MessageError("tunnels: two of them have the same name")
    relay = _relay(fields) if "relay" in fields else ""
    return Hello(_text(fields, "token"), _text(fields, "agent"), tunnels, relay)


def _relay(fields: dict[str, Any]) -> str:
    try:
        return shown_address(*parse_address("relay", fields["relay"], least=1))
    except (TypeError, ValueError) as error:
        raise MessageError(str(error)) from None


class VersionError(MessageError):
    """A version of this conversation that this side does not know."""


def _tunnel(fields: dict[str, Any]) -> Tunnel:
    try:
        return Tunnel(name=fields.get("name", ""), port=fields.get("port"), host=fields.get("host"))
    except (TypeError, ValueError) as error:
        raise MessageError(f"tunnels: {error}") from None


def _accepted(fields: dict[str, Any]) -> Accepted:
    return Accepted(tuple(_granted(each) for each in _objects(fields, "tunnels")))


def _granted(fields: dict[str, Any]) -> Granted:
    number = fields.get("number")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 0xFFFFFF00:
        raise MessageError(f"tunnels: number must be the type of a stream, not {shown(number)}")
    try:
        check_name("name", fields.get("name"))
    except (TypeError, ValueError) as error:
        raise MessageError(f"tunnels: {error}") from None
    return Granted(fields["name"], number, _text(fields, "address"))


def _refused(fields: dict[str, Any]) -> Refused:
    return Refused(_text(fields, "reason"), _text(fields, "text"))


def _target(fields: dict[str, Any]) -> Target:
    return Target(_text(fields, "target"))


def _opened(fields: dict[str, Any]) -> Opened:
    return Opened()


def _visit(fields: dict[str, Any]) -> Visit:
    try:
        check_name("tunnel", fields.get("tunnel"))
    except (TypeError, ValueError) as error:
        raise MessageError(str(error)) from None
    return Visit(fields["tunnel"])


_READERS: Mapping[str, Callable[[dict[str, Any]], Message]] = {
    "hello": _hello,
    "accepted": _accepted,
    "refused": _refused,
    "target": _target,
    "opened": _opened,
    "visit": _visit,
}


def _text(fields: dict[str, Any], name: str) -> str:
    """A string of one line, that can't steer whoever reads a log."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise MessageError(f"{name} must be a string, not {shown(value)}")
    if len(value) > LONGEST_TEXT:
        raise MessageError(f"{name} must have at most {LONGEST_TEXT} characters")
    if not value.isprintable():
        raise MessageError(f"{name} must be printable")
    return value


def _objects(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    given: Any = fields.get(name, [])
    values: list[dict[str, Any]] = given
    if not isinstance(given, list) or not all(map(_is_object, values)):
        raise MessageError(f"{name} must be a list of objects")
    if len(values) > MOST_TUNNELS:
        raise MessageError(f"{name} must be at most {MOST_TUNNELS}, not {len(values)}")
    return values


def _is_object(value: object) -> bool:
    return isinstance(value, dict)
