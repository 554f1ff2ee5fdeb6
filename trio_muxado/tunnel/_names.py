"""What tunnels are called: names, hosts and ports, and the patterns that say which are allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_NAME_PATTERN = re.compile(r"[a-z0-9._*-]{1,63}")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

LONGEST_HOST = 253
"""Characters of a host's name in DNS."""


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """What an agent asks a relay for: a name, and how visitors get to it.

    With a ``port``, visitors connect to that port of the relay.  With a ``host``, they send HTTP
    requests for it to the relay's HTTP ports.  With neither, only the relay's own clients reach it,
    by its name, as ``trio-muxado forward`` does.

    Raises:
      TypeError, ValueError: a field is not what it should be; the message begins with its name.
    """

    name: str
    """Agents that ask for the same name share its visitors.  Lower case letters, digits, dots,
    underscores and hyphens."""
    port: int | None = None
    """The relay's TCP port; 0 for any that is free of those the relay hands out."""
    host: str | None = None
    """The name in the URL, such as ``"www.example.org"``."""

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.port is not None:
            check_port("port", self.port, least=0)
        if self.host is not None:
            object.__setattr__(self, "host", checked_host("host", self.host))
            if self.port is not None:
                raise ValueError("host must be None where port is given: a tunnel has one of them")


def check_name(name: str, value: object) -> None:
    """Refuse anything that is not the name of a tunnel."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {shown(value)}")
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{name} must be 1 to 63 lower case letters, digits, dots, underscores and hyphens, "
            f"with a letter or digit at either side, not {shown(value)}"
        )


def check_port(name: str, value: object, least: int = 1) -> None:
    """Refuse anything that is not a TCP port."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {shown(value)}")
    if not least <= value <= 0xFFFF:
        raise ValueError(f"{name} must be {least} to 65535, not {shown(value)}")


def check_address(name: str, value: object) -> None:
    """Refuse anything that is neither a host's name nor an address."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {shown(value)}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    if not _can_be_asked_for(value):
        raise ValueError(f"{name} must be a name or an address, not {shown(value)}")


def _can_be_asked_for(host: str) -> bool:
    try:
        host.encode("idna")  # as the system's resolver is asked
    except UnicodeError:
        return False
    return True


def checked_host(name: str, value: object) -> str:
    """A host's name, as it is compared: in lower case, without a dot behind it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {shown(value)}")
    host = value.lower().removesuffix(".")
    if len(host) > LONGEST_HOST or not _HOST.fullmatch(host):
        raise ValueError(f"{name} must be a host's name without a port, not {shown(value)}")
    return host


def host_of(authority: str) -> str | None:
    """The host that a request's ``Host`` or ``:authority`` names; None for what names none.

    An address is a host as well, and keeps its brackets.
    """
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host = authority
    elif port and not (port.isascii() and port.isdigit()):
        return None
    host = host.lower().removesuffix(".")
    if host.startswith("[") and host.endswith("]"):
        return host
    return host if len(host) <= LONGEST_HOST and _HOST.fullmatch(host) else None


# ---- patterns, of which a token has lists


def check_name_pattern(name: str, pattern: object) -> None:
    """Refuse what is neither a name nor one with ``*`` for any characters."""
    if not isinstance(pattern, str):
        raise TypeError(f"{name} must be strings, not {shown(pattern)}")
    if not _NAME_PATTERN.fullmatch(pattern):
        raise ValueError(f"{name}: {shown(pattern)} is neither a name nor a pattern such as 'db-*'")


def name_matches(name: str, pattern: str) -> bool:
    """Whether ``pattern`` allows a name: ``*`` stands for any characters."""
    return fnmatchcase(name, pattern)


def checked_host_pattern(name: str, pattern: object) -> str:
    """A host, ``*`` for all, or ``*.`` and a host for one more label, as in a certificate."""
    if not isinstance(pattern, str):
        raise TypeError(f"{name} must be strings, not {shown(pattern)}")
    if pattern == "*":
        return pattern
    wild, _, rest = pattern.partition("*.")
    try:
        if wild or not rest:
            return checked_host(name, pattern)
        return f"*.{checked_host(name, rest)}"
    except ValueError:
        raise ValueError(
            f"{name}: {shown(pattern)} is neither a host nor a pattern such as '*.example.org'"
        ) from None


def host_matches(host: str, pattern: str) -> bool:
    """Whether ``pattern`` allows a host."""
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        label, _, rest = host.partition(".")
        return bool(label) and rest == pattern[2:]
    return host == pattern


def parse_ports(name: str, value: Any) -> range:
    """Ports from a number, ``"8000"`` or ``"8000-8099"``."""
    if isinstance(value, range):
        first, last = value.start, value.stop - 1
    elif isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif isinstance(value, str):
        low, hyphen, high = value.partition("-")
        try:
            first, last = int(low), int(high if hyphen else low)
        except ValueError:
            raise ValueError(
                f"{name}: {shown(value)} is neither a port nor a range such as '8000-8099'"
            ) from None
    else:
        raise TypeError(f"{name} must be a port or a range of them, not {shown(value)}")
    if not 1 <= first <= last <= 0xFFFF:
        raise ValueError(f"{name} must be ports from 1 to 65535, not {shown(value)}")
    return range(first, last + 1)


def parse_address(name: str, text: object, *, least: int = 0) -> tuple[str, int]:
    """``"HOST:PORT"``, with an IPv6 address in brackets."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str such as '127.0.0.1:8000', not {shown(text)}")
    given, _, digits = text.rpartition(":")
    host = given[1:-1] if given.startswith("[") and given.endswith("]") else given
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else -1
    in_brackets = host != given
    is_host = host and not set("[]").intersection(host) and (in_brackets or ":" not in host)
    if not is_host or not _can_be_asked_for(host) or not least <= port <= 0xFFFF:
        raise ValueError(f"{name} must be HOST:PORT such as '127.0.0.1:8000', not {shown(text)}")
    return host, port


def checked_target(name: str, target: object, check: Callable[[str, object], None]) -> str:
    """HOST:PORT as the relay compares it, or what ``check``, which is given ``name`` too, takes."""
    if isinstance(target, str) and ":" in target:
        return shown_address(*parse_address(name, target, least=1))
    check(name, target)
    assert isinstance(target, str)
    return target


def shown_address(host: str, port: int) -> str:
    """``HOST:PORT``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown(value: object) -> str:
    """A short ``repr`` for a message."""
    try:
        text = repr(value)
    except Exception:  # such as of an int with more digits than Python shows
        return f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}..."
