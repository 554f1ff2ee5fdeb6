"""Where a relay listens, and its limits."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .. import Heartbeat, MuxadoConfig
from ._names import check_address, parse_address, parse_ports, shown, shown_address

MOST_STREAMS = 100_000
"""That one agent takes at once; relay and agent bound their visitors by themselves."""


HEARTBEAT = Heartbeat(interval=5, tolerance=10)
"""Shorter than elsewhere: visitors wait for an agent that has disappeared."""


def session_config(heartbeat: Heartbeat | None = None) -> MuxadoConfig:
    """The configuration of sessions between relays and agents.

    A visitor who has read everything may keep the connection open, which must not lock out others:
    so the number of streams is bounded by the relay's limits on visitors, and not here.
    """
    return MuxadoConfig(
        wire="v2",
        typed=True,
        heartbeat=HEARTBEAT if heartbeat is None else heartbeat,
        max_outbound_streams=None,
        max_inbound_streams=MOST_STREAMS,
        accept_backlog=1024,
        # Whoever has a token may let visitors go as fast as they come.
        unread_resets=MOST_STREAMS,
        provoked_resets=MOST_STREAMS,
        resets_per_second=10_000.0,
    )


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """Where a relay listens, and its limits.  The reference describes each field.

    Addresses are HOST:PORT; port 0 takes a free one.

    Raises:
      TypeError, ValueError: a field is not what it should be; the message begins with its name.
    """

    agents: str = "127.0.0.1:4440"
    """Where agents and clients connect."""
    http: str | None = None
    """Where visitors of HTTP tunnels connect; None listens nowhere."""
    https: str | None = None
    """The same with TLS."""
    host: str = "127.0.0.1"
    """The address that the ports of TCP tunnels are bound to."""
    ports: str | range | None = None
    """The ports that TCP tunnels may have, such as ``"20000-20099"``; None for no TCP tunnels."""
    allow_targets: tuple[str, ...] = ()
    """HOST:PORT of each target that clients may connect to, besides tunnels by their name."""
    accept_proxy_protocol: bool = False
    """Every visitor's connection begins with a header of the PROXY protocol, from a load balancer.
    Use it only if nobody else can reach the ports."""
    max_agents: int = 1000
    """Agents and clients that may be connected at once.  Connections that have not shown a token
    yet don't count: of those there are 200 at most, and one more ends the oldest."""
    max_tunnels: int = 1000
    """Tunnels of all agents together."""
    max_visitors: int = 10_000
    """Visitors' connections that may be open at once."""
    max_visitors_per_address: int = 1000
    """The same for each IPv4 address, and for each /64 network of IPv6, which one customer has."""
    idle_timeout: float = 600.0
    """Seconds without data after which a visitor's connection is broken."""
    agent_patience: float = 10.0
    """Seconds that a visitor waits for an agent to connect, and for its service to answer."""
    keep_tunnel: float = 60.0
    """Seconds that a tunnel keeps its name, host and port after its last agent has gone."""
    drain_timeout: float = 30.0
    """Seconds that visitors have to finish when the relay stops; then their connections break."""

    relay_address: str | None = None
    """HOST:PORT at which other relays reach this one's ``agents``, with a shared registry."""
    registry_expiry: float = 15.0
    """Seconds after which the entries of a relay that has died expire."""

    def __post_init__(self) -> None:
        if self.relay_address is not None:
            address = parse_address("relay_address", self.relay_address, least=1)
            object.__setattr__(self, "relay_address", shown_address(*address))
        for name in ("agents", "http", "https"):
            if getattr(self, name) is not None or name == "agents":
                parse_address(name, getattr(self, name))
        check_address("host", self.host)
        if self.ports is not None:
            object.__setattr__(self, "ports", parse_ports("ports", self.ports))
        if not isinstance(self.allow_targets, tuple | list):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"allow_targets must be a list, not {shown(self.allow_targets)}")
        targets = [parse_address("allow_targets", each, least=1) for each in self.allow_targets]
        object.__setattr__(self, "allow_targets", tuple(shown_address(*each) for each in targets))
        if not isinstance(self.accept_proxy_protocol, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"accept_proxy_protocol must be a bool, not {shown(self.accept_proxy_protocol)}"
            )
        for name in ("max_agents", "max_tunnels", "max_visitors", "max_visitors_per_address"):
            check_count(name, getattr(self, name))
        for name in (
            *("idle_timeout", "agent_patience", "keep_tunnel", "drain_timeout"),
            "registry_expiry",
        ):
            check_seconds(name, getattr(self, name))

    @property
    def port_range(self) -> range:
        """The ports of TCP tunnels."""
        return range(0) if self.ports is None else parse_ports("ports", self.ports)


def check_count(name: str, value: object) -> None:
    """Refuse anything that is not a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {shown(value)}")
    if value < 1:
        raise ValueError(f"{name} must be positive, not {shown(value)}")


def check_seconds(name: str, value: object) -> None:
    """Refuse anything that is not a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}")
    if not 0 < value <= sys.float_info.max:  # an int can be larger
        raise ValueError(f"{name} must be positive and finite, not {shown(value)}")
