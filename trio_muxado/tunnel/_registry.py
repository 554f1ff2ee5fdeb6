"""Which tunnels a relay has, and which agents serve each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import trio

from .. import MuxadoError, MuxadoSession, SessionPool
from ._config import RelayConfig
from ._errors import TunnelRefusedError
from ._listeners import close_listeners
from ._messages import Granted
from ._names import Tunnel, shown_address
from ._tokens import Token

logger = logging.getLogger("trio_muxado.tunnel")


class Agent:
    """A session whose peer has shown a token."""

    def __init__(self, session: MuxadoSession, name: str, token: Token, *, relay: str = "") -> None:
        self.session = session
        self.name = name
        self.token = token
        self.relay = relay
        """HOST:PORT, where it is another relay."""
        self.tunnels: list[LiveTunnel] = []

    def __str__(self) -> str:
        return f"{self.name} at {shown_peer(self.session.peer_address)}"

    @property
    def extra(self) -> dict[str, str]:
        """For records of a log."""
        return {"agent": str(self)}


def shown_peer(address: Any) -> str:
    """A socket's address, for a log."""
    match address:
        case (str() as host, int() as port, *_):
            return shown_address(host, port)
        case _:
            return str(address) if address else "an unknown address"


class LiveTunnel:
    """A tunnel that agents have asked for, and the sessions to them."""

    def __init__(
        self, tunnel: Tunnel, number: int, suspect: Callable[[LiveTunnel, Agent], None]
    ) -> None:
        self._suspect = suspect
        self.name: str = tunnel.name
        self.host: str | None = tunnel.host
        self.port: int | None = None
        self.number = number
        """The type of its streams."""
        self.pool: SessionPool = SessionPool()
        self.agents: dict[MuxadoSession, Agent] = {}
        self.listening: trio.CancelScope = trio.CancelScope()
        self.expiry: trio.CancelScope = trio.CancelScope()

    def suspect(self, agent: Agent) -> None:
        """An agent says nothing: no more visitors for it, until its session answers."""
        self._suspect(self, agent)

    def is_like(self, tunnel: Tunnel) -> bool:
        """Whether another agent that asks for ``tunnel`` means this one."""
        if tunnel.host != self.host or (tunnel.port is None) != (self.port is None):
            return False
        return not tunnel.port or tunnel.port == self.port


StartListening = Callable[["LiveTunnel", "list[trio.SocketListener]"], None]


class Registry:
    """All tunnels of a relay.

    A tunnel begins with the first agent that asks for its name, and ends ``keep_tunnel`` seconds
    after its last agent has gone: until then visitors can wait for one to come back.
    """

    _nursery: trio.Nursery
    _start_listening: StartListening

    def __init__(self, config: RelayConfig, on_removed: Callable[[str], None]) -> None:
        self._config = config
        self._on_removed = on_removed
        self._by_name: dict[str, LiveTunnel] = {}
        self._by_host: dict[str, LiveTunnel] = {}
        self._ports: dict[int, LiveTunnel] = {}
        self._last_number = 0
        self._claiming = trio.Lock()  # to bind a port takes passes of the loop
        self.agents: set[Agent] = set()
        self.binds_ports = True
        """Ports are bound with their tunnels, and not all of them from the start."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a tunnel's first agent has come, or its last has gone."""

    def start(self, nursery: trio.Nursery, start_listening: StartListening) -> None:
        """Have tunnels end in ``nursery``, and their ports served by ``start_listening``."""
        self._nursery = nursery
        self._start_listening = start_listening

    @property
    def tunnels(self) -> Iterable[LiveTunnel]:
        """All that there are."""
        return self._by_name.values()

    def find(self, name: str) -> LiveTunnel | None:
        """The tunnel of that name."""
        return self._by_name.get(name)

    def find_host(self, host: str) -> LiveTunnel | None:
        """The tunnel of that host."""
        return self._by_host.get(host)

    def find_port(self, port: int) -> LiveTunnel | None:
        """The tunnel of that port."""
        return self._ports.get(port)

    def free_ports(self, token: Token) -> list[int]:
        """The ports that no tunnel here has, of those that the token allows."""
        ports = self._config.port_range
        return [port for port in ports if port not in self._ports and token.allows_port(port)]

    async def claim(self, agent: Agent, wanted: Iterable[Tunnel]) -> list[Granted]:
        """Give an agent all tunnels that it asks for, or none.

        Raises:
          TunnelRefusedError: why not.
        """
        async with self._claiming:
            new: list[tuple[LiveTunnel, list[trio.SocketListener]]] = []
            had: list[LiveTunnel] = []
            try:
                for tunnel in wanted:
                    known = self._known(tunnel, agent.token)
                    if known is None:
                        others = [live for live, _ in new]
                        self._check_new(tunnel, others)
                        self._last_number += 1
                        live = LiveTunnel(tunnel, self._last_number, self._suspect)
                        ports = {*self._ports, *(other.port for other in others)}
                        listeners = await self._bind(live, tunnel, agent.token, ports)
                        new.append((live, listeners))
                    else:
                        had.append(known)
            except BaseException:
                for _, listeners in new:
                    close_listeners(listeners)
                raise
        for live, listeners in new:
            self._add(live, listeners)
        for live in [*had, *(live for live, _ in new)]:
            live.expiry.cancel()
            live.agents[agent.session] = agent
            live.pool.add(agent.session)
            agent.tunnels.append(live)
        self.agents.add(agent)
        self.on_change()
        by_name = {live.name: live for live in agent.tunnels}
        return [
            Granted(tunnel.name, by_name[tunnel.name].number, self._shown(by_name[tunnel.name]))
            for tunnel in wanted
        ]

    def release(self, agent: Agent) -> None:
        """An agent is going, or has gone: it gets no more visitors."""
        self.agents.discard(agent)
        for live in agent.tunnels:
            live.pool.discard(agent.session)
            live.agents.pop(agent.session, None)
            if not live.agents:
                live.expiry = trio.CancelScope()
                self._nursery.start_soon(self._expire, live, live.expiry)
        if agent.tunnels:
            agent.tunnels = []
            self.on_change()

    def _suspect(self, live: LiveTunnel, agent: Agent) -> None:
        if agent.session in live.pool.sessions:
            live.pool.discard(agent.session)
            self._nursery.start_soon(self._wait_for_answer, live, agent)

    async def _wait_for_answer(self, live: LiveTunnel, agent: Agent) -> None:
        with suppress(MuxadoError):  # or until its session is given up
            await agent.session.ping()
            if agent.session in live.agents:
                live.pool.add(agent.session)

    # ---- the parts of a claim

    def _known(self, tunnel: Tunnel, token: Token) -> LiveTunnel | None:
        """The tunnel of that name, where the agent may have it."""
        why = token.why_not(tunnel)
        if why is not None:
            raise TunnelRefusedError("not-allowed", why)
        known = self._by_name.get(tunnel.name)
        if known is None or known.is_like(tunnel):
            return known
        if not known.agents:  # the same name, and other plans for it
            self._remove(known)
            return None
        raise TunnelRefusedError(
            "taken", f"another agent has {tunnel.name!r} at {self._shown(known)}"
        )

    def _check_new(self, tunnel: Tunnel, new: list[LiveTunnel]) -> None:
        """Refuse what can't be had, also as others of the same agent are about to get it."""
        config = self._config
        if len(self._by_name) + len(new) >= config.max_tunnels:
            raise TunnelRefusedError("busy", "this relay has as many tunnels as it may")
        if tunnel.host is not None:
            if config.http is None and config.https is None:
                raise TunnelRefusedError("unsupported", "this relay serves no HTTP by host name")
            if tunnel.host in self._by_host or any(live.host == tunnel.host for live in new):
                raise TunnelRefusedError("taken", f"another tunnel has the host {tunnel.host!r}")
        if tunnel.port is not None:
            if not config.port_range:
                raise TunnelRefusedError("unsupported", "this relay hands out no TCP ports")
            if tunnel.port and tunnel.port not in config.port_range:
                first, last = config.port_range[0], config.port_range[-1]
                its = f"port {first}" if first == last else f"ports {first}-{last}"
                text = f"this relay has {its} for tunnels, not {tunnel.port}"
                raise TunnelRefusedError("not-allowed", text)
            has_port = any(tunnel.port and live.port == tunnel.port for live in new)
            if tunnel.port in self._ports or has_port:
                raise TunnelRefusedError("taken", f"another tunnel has port {tunnel.port}")

    async def _bind(
        self, live: LiveTunnel, tunnel: Tunnel, token: Token, taken: Collection[int | None]
    ) -> list[trio.SocketListener]:
        if tunnel.port is None:
            return []
        wanted = [tunnel.port] if tunnel.port else self._config.port_range
        for port in wanted:
            if port in taken or not token.allows_port(port):
                continue
            listeners: list[trio.SocketListener] = []
            if self.binds_ports:
                try:
                    listeners = await trio.open_tcp_listeners(port, host=self._config.host)
                except OSError:  # another program has it
                    continue
            live.port = port
            return listeners
        if tunnel.port:
            raise TunnelRefusedError("taken", f"another program has port {tunnel.port}")
        raise TunnelRefusedError("busy", "no port is free of those that the token allows")

    def _add(self, live: LiveTunnel, listeners: list[trio.SocketListener]) -> None:
        self._by_name[live.name] = live
        if live.host is not None:
            self._by_host[live.host] = live
        if live.port is not None:
            self._ports[live.port] = live
            self._start_listening(live, listeners)

    def _shown(self, live: LiveTunnel) -> str:
        if live.host is not None:
            scheme = "http" if self._config.https is None else "https"
            return f"{scheme}://{live.host}"
        if live.port is not None:
            return f"tcp://{shown_address(self._config.host, live.port)}"
        return live.name

    # ---- the end of a tunnel

    async def _expire(self, live: LiveTunnel, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(self._config.keep_tunnel)
            async with self._claiming:  # an agent may be about to have it again
                if not live.agents and self._by_name.get(live.name) is live:
                    logger.info("the tunnel %s is over: no agent came back", live.name)
                    self._remove(live)

    def _remove(self, live: LiveTunnel) -> None:
        live.expiry.cancel()
        del self._by_name[live.name]
        if live.host is not None:
            del self._by_host[live.host]
        if live.port is not None:
            del self._ports[live.port]
        live.listening.cancel()
        live.pool.close()
        self._on_removed(live.name)
