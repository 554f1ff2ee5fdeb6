"""Tokens: who may be an agent or a client of a relay, and what each may claim."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ._names import (
    Tunnel,
    check_name_pattern,
    checked_host_pattern,
    checked_target,
    host_matches,
    name_matches,
    parse_ports,
    shown,
)

SHORTEST_SECRET = 16
"""Characters of a secret at least: nothing keeps a peer from trying several a second."""

LONGEST_SECRET = 1024
"""Characters that an agent or a client may show at most."""

FIELDS = ("secret", "label", "names", "hosts", "ports", "targets", "relay")


@dataclass(frozen=True, kw_only=True)
class Token:
    """A secret, and what its holder may use.  Each list is empty by default, and allows nothing.

    Attributes:
      secret: at least 16 characters, such as ``secrets.token_urlsafe()`` makes.
      label: the name of the token in logs.
      names: names of tunnels; ``*`` stands for any characters: ``("web", "db-*")``.
      hosts: hosts of HTTP tunnels; ``"*.example.org"`` is all with one more label, ``"*"`` all.
      ports: TCP ports of the relay: numbers, and ranges such as ``"8000-8099"``.
      targets: what a client may connect to: names of tunnels as in ``names``, and HOST:PORT, which
        the relay itself has to allow as well.
      relay: the holder is another relay of the same owner.  It may pass on visitors of any tunnel,
        and is trusted to report their addresses.  Relays with a shared registry have one such token
        in common.

    Raises:
      TypeError, ValueError: a field is not what it should be; the message begins with its name,
        and never contains the secret.
    """

    secret: str
    label: str = ""
    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    ports: tuple[range | int | str, ...] = ()
    targets: tuple[str, ...] = ()
    relay: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.secret, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"secret must be a str, not a {type(self.secret).__name__}")
        if len(self.secret) < SHORTEST_SECRET:
            raise ValueError(f"secret must have at least {SHORTEST_SECRET} characters")
        if len(self.secret) > LONGEST_SECRET or not self.secret.isprintable():
            raise ValueError(f"secret must be at most {LONGEST_SECRET} printable characters")
        if not isinstance(self.label, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"label must be a str, not {shown(self.label)}")
        if not isinstance(self.relay, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"relay must be a bool, not {shown(self.relay)}")
        for name in ("names", "hosts", "ports", "targets"):
            values: Any = getattr(self, name)
            if not isinstance(values, tuple | list):
                raise TypeError(f"{name} must be a list, not {shown(values)}")
            object.__setattr__(self, name, tuple(cast("list[Any]", values)))
        for pattern in self.names:
            check_name_pattern("names", pattern)
        hosts = tuple(checked_host_pattern("hosts", pattern) for pattern in self.hosts)
        object.__setattr__(self, "hosts", hosts)
        object.__setattr__(self, "ports", tuple(parse_ports("ports", each) for each in self.ports))
        targets = (checked_target("targets", each, check_name_pattern) for each in self.targets)
        object.__setattr__(self, "targets", tuple(targets))

    def __repr__(self) -> str:
        allowed = ", ".join(
            f"{name}={value!r}"
            for name in ("label", "names", "hosts", "ports", "targets", "relay")
            if (value := getattr(self, name))
        )
        return f"Token({allowed})"

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Token:
        """Make a token from its fields, as a TOML or JSON file has them.

        Raises:
          TypeError, ValueError: a field is wrong, or there is no such field.
        """
        unknown = sorted(set(fields) - set(FIELDS))
        if unknown:
            raise ValueError(f"a token has no {shown(unknown[0])}; it has {', '.join(FIELDS)}")
        if "secret" not in fields:
            raise ValueError("secret is missing")
        return cls(**fields)

    def why_not(self, tunnel: Tunnel) -> str | None:
        """Why the token does not allow ``tunnel``, in a few words; None if it does."""
        if not any(name_matches(tunnel.name, pattern) for pattern in self.names):
            return f"the token does not allow the name {tunnel.name!r}"
        if tunnel.host is not None:
            if not any(host_matches(tunnel.host, pattern) for pattern in self.hosts):
                return f"the token does not allow the host {tunnel.host!r}"
        elif tunnel.port is not None and not self.ports:
            return "the token allows no ports"
        elif tunnel.port and not self.allows_port(tunnel.port):
            return f"the token does not allow port {tunnel.port}"
        return None

    def allows_port(self, port: int) -> bool:
        """Whether a tunnel may have that port of the relay."""
        return any(port in parse_ports("ports", ports) for ports in self.ports)

    def allows_target(self, target: str) -> bool:
        """Whether a client's stream may go to ``target``, a name or HOST:PORT."""
        if ":" in target:
            return target in self.targets
        return any(":" not in each and name_matches(target, each) for each in self.targets)


class Tokens:
    """The tokens of a relay."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)
        self._digests = [_digest(token.secret) for token in self._tokens]

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def of_relays(self) -> Token | None:
        """The token that this relay shows to others: the first that is for it."""
        return next((token for token in self._tokens if token.relay), None)

    def find(self, secret: str) -> Token | None:
        """The token with that secret.

        All are compared, and each in a time that does not depend on what is equal: so the time
        says nothing.
        """
        digest = _digest(secret)
        found: Token | None = None
        for token, known in zip(self._tokens, self._digests, strict=True):
            if hmac.compare_digest(digest, known):
                found = token
        return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
