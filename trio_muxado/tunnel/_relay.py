"""The relay: agents connect to it from behind NAT, and visitors reach their services through it."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import trio

from .. import (
    Heartbeat,
    forward,
    serve_muxado_listeners,
)
from ._checks import check_heartbeat, check_is_for_client, check_stop, check_task_status
from ._cluster import Cluster
from ._config import RelayConfig, session_config
from ._control import CONTROL_TYPE, HELLO_TIMEOUT
from ._counts import RelayCounts
from ._http import HttpFront
from ._listeners import close_listeners, listen
from ._names import shown, shown_address
from ._newcomers import NewcomerListener
from ._nursery import open_nursery
from ._opening import NoAgentError
from ._registry import LiveTunnel, Registry
from ._relays import OtherRelays
from ._routes import Route, Routes
from ._sessions import Sessions
from ._shared import SharedRegistry
from ._targets import Targets
from ._tls import ClientTls, FilesTls, ServerTls, TlsListener
from ._tokens import Token, Tokens
from ._visitors import GONE, Arrivals, Porter, Slots, Visitor, visitor_of
from ._visits import Visits

logger = logging.getLogger("trio_muxado.tunnel")

HandleHttp: TypeAlias = Callable[
    [HttpFront, "ServerTls | None", trio.SocketStream], Awaitable[None]
]

CLOSE_TIMEOUT = 5.0
"""Seconds for sessions to end, once the last visitor has gone."""


@dataclass(frozen=True)
class RelayPorts:
    """Where a relay listens.

    Attributes:
      agents: host and port for agents and clients.
      http: host and port for visitors of HTTP tunnels; None if it listens on none.
      https: the same over TLS.
    """

    agents: tuple[str, int]
    http: tuple[str, int] | None = None
    https: tuple[str, int] | None = None


class Relay:
    """Brings visitors to services that only their agents can reach.

    ``await relay.run()`` serves until it is cancelled, or stopped gracefully by ``stop``.

    Args:
      config: where it listens, and its limits.
      tokens: who may be an agent or a client, and for what.
      agents_tls: the certificate for agents and clients; None for no TLS.
      https_tls: the certificate for visitors of ``config.https``.
      heartbeat: how a session notices that its agent, or another relay, has disappeared.
      shared_registry: where several relays enter which agents they have.  It needs
        ``config.relay_address``, and a token with ``relay=True``.
      relays_tls: speak TLS with other relays, as a client of their ``agents_tls``.
        :meth:`reload_certificates` reads the files of a :class:`ClientTls` again; a context stays
        as it is.

    Raises:
      TypeError, ValueError: a wrong argument.
      ModuleNotFoundError: there are to be HTTP tunnels, and the extra ``http`` is missing.
    """

    def __init__(
        self,
        config: RelayConfig,
        tokens: Iterable[Token],
        *,
        agents_tls: ServerTls | None = None,
        https_tls: ServerTls | None = None,
        heartbeat: Heartbeat | None = None,
        shared_registry: SharedRegistry | None = None,
        relays_tls: ssl.SSLContext | ClientTls | None = None,
    ) -> None:
        if not isinstance(config, RelayConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"config must be a RelayConfig, not {shown(config)}")
        for name, tls in (("agents_tls", agents_tls), ("https_tls", https_tls)):
            if tls is not None and not isinstance(tls, ServerTls):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"{name} must be a ServerTls or None, not {shown(tls)}")
        if not isinstance(relays_tls, ssl.SSLContext | ClientTls | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"relays_tls must be a ClientTls, an SSLContext or None, not {shown(relays_tls)}"
            )
        if isinstance(relays_tls, ssl.SSLContext):
            check_is_for_client("relays_tls", relays_tls)
        if (config.https is None) != (https_tls is None):
            raise ValueError("https_tls must be given where config.https is, and only there")
        if shared_registry is not None and not isinstance(shared_registry, SharedRegistry):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"shared_registry must be a SharedRegistry, not {shown(shared_registry)}"
            )
        if (config.relay_address is None) != (shared_registry is None):
            raise ValueError("relay_address must be given where shared_registry is, and only there")
        check_heartbeat(heartbeat)
        known = Tokens(_checked_tokens(tokens))
        if shared_registry is not None and known.of_relays is None:
            raise ValueError("tokens must have one that is for relays")
        self._handle_http = handler_of_http() if config.http or config.https else None
        self.config = config
        self.counts: RelayCounts = RelayCounts()
        self.registry: Registry = Registry(config, self.counts.forget)
        self._agents_tls = agents_tls
        self._https_tls = https_tls
        self._of_files = [
            tls for tls in (agents_tls, https_tls, relays_tls) if isinstance(tls, FilesTls)
        ]
        self._heartbeat = heartbeat
        self._slots = Slots(config, self.counts)
        self._routes = Routes(config, self.registry, self.counts)
        self.counts.is_known = self._routes.is_known
        self._arrivals = Arrivals()
        self._front = HttpFront(config, self._routes, self.counts, self._slots, self._arrivals)
        visits = Visits(config, self.registry, self.counts, self._slots)
        targets = Targets(config, self._routes, self.counts, self._slots, visits)
        self._sessions = Sessions(self.registry, known, self.counts, targets, config.max_agents)
        self.cluster: Cluster | None = None
        if shared_registry is not None and config.relay_address is not None:
            others = OtherRelays(
                config.relay_address,
                lambda: self._sessions.tokens.of_relays,
                lambda: relays_tls.context if isinstance(relays_tls, ClientTls) else relays_tls,
                heartbeat,
                visits.handle,
            )
            self.cluster = Cluster(
                shared_registry,
                config.relay_address,
                config,
                self.registry,
                others,
                self._routes.forget_unused,
            )
            self.registry.binds_ports = False
        self._routes.cluster = self._sessions.cluster = self.cluster
        self._porter = Porter()

    def set_tokens(self, tokens: Iterable[Token]) -> None:
        """Replace the tokens, for new connections; connected agents and clients stay.

        Raises:
          TypeError: ``tokens`` are not tokens.
        """
        self._sessions.tokens = Tokens(_checked_tokens(tokens))

    def reload_certificates(self) -> None:
        """Read the files of certificates again, for new connections.

        Raises:
          OSError: one cannot be read, or does not fit.  Then all certificates stay as they are.
        """
        for tls, context in [(tls, tls.load()) for tls in self._of_files]:
            tls.use(context)

    @property
    def is_stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return self._porter.stop.is_set()

    async def run(
        self,
        *,
        stop: trio.Event | None = None,
        task_status: trio.TaskStatus[RelayPorts] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled or stopped.

        Args:
          stop: once it is set, no more visitors are accepted.  The current ones have
            ``config.drain_timeout`` seconds to finish.  Then their connections are broken, so that
            no partial answer looks complete.  Agents are told to go elsewhere, and the function
            returns.
          task_status: ``await nursery.start(relay.run)`` returns the :class:`RelayPorts`.

        Raises:
          OSError: a port could not be bound; nothing listens then.
          TypeError: a wrong argument; nothing listens then.
        """
        check_stop(stop)
        check_task_status(task_status)
        config = self.config
        addresses = {"agents": config.agents, "http": config.http, "https": config.https}
        if self.cluster is not None:  # agents of other relays have ports as well
            for port in config.port_range:
                addresses[f"port {port}"] = shown_address(config.host, port)
        listeners = await listen(addresses)
        agents_stop, agents_gone = trio.Event(), trio.Event()
        async with open_nursery() as nursery:
            if self.cluster is not None:
                self.cluster.others.start(nursery)
                try:
                    await nursery.start(self.cluster.run)
                except BaseException:
                    for opened in listeners.values():
                        close_listeners(opened)
                    raise
            async with open_nursery() as visitors:
                self.registry.start(nursery, partial(self._listen_for_visitors, visitors))
                serve_agents = partial(self._serve_agents, listeners["agents"], agents_stop)
                nursery.start_soon(_run_and_set, serve_agents, agents_gone)
                if self._handle_http is not None:
                    for name, tls in (("http", None), ("https", self._https_tls)):
                        handler = partial(self._handle_http, self._front, tls)
                        serve = partial(self._porter.serve, listeners.get(name, []), handler)
                        visitors.start_soon(serve, visitors)
                if self.cluster is not None:
                    for port in config.port_range:
                        opened = listeners.pop(f"port {port}")
                        visit = partial(self._handle_visitor, port)
                        visitors.start_soon(self._porter.serve, opened, visit, visitors)
                ports = {name: _address(opened) for name, opened in listeners.items()}
                task_status.started(RelayPorts(**ports))
                await (trio.Event() if stop is None else stop).wait()
                logger.info("stopping: visitors have %g s to finish", self.config.drain_timeout)
                self._porter.stop.set()
                self._arrivals.stop()
                self._front.stop()
                self._sessions.stopping = True
                with trio.move_on_after(self.config.drain_timeout):
                    await self._porter.wait_until_empty()
                visitors.cancel_scope.cancel()
            self._sessions.leaving.set()
            agents_stop.set()
            await agents_gone.wait()
            nursery.cancel_scope.cancel()

    # ---- agents and clients

    async def _serve_agents(self, listeners: list[trio.SocketListener], stop: trio.Event) -> None:
        config = session_config(self._heartbeat)
        tls = self._agents_tls
        accepting = [
            NewcomerListener(
                listener if tls is None else TlsListener(listener, tls), self._sessions.newcomers
            )
            for listener in listeners
        ]
        await serve_muxado_listeners(
            self._sessions.handle,
            accepting,
            config=replace(config, extensions={CONTROL_TYPE: self._sessions.handle_control}),
            stop=stop,
            stop_timeout=CLOSE_TIMEOUT,
            on_session=self._sessions.on_session,
            first_stream_timeout=HELLO_TIMEOUT,
        )

    # ---- visitors of ports

    def _listen_for_visitors(
        self, nursery: trio.Nursery, live: LiveTunnel, listeners: list[trio.SocketListener]
    ) -> None:
        assert live.port is not None
        handler = partial(self._handle_visitor, live.port)
        nursery.start_soon(self._porter.serve, listeners, handler, nursery, live.listening)

    async def _handle_visitor(self, port: int, tcp: trio.SocketStream) -> None:
        try:
            has_header = self.config.accept_proxy_protocol
            visitor = await visitor_of(tcp, self._arrivals, has_header=has_header)
        except GONE as error:
            logger.info("port %d: a connection without a visitor: %s", port, error)
            return
        route = await self._routes.by_port(port)
        if route is None:
            logger.info("port %d: %s is turned away: no tunnel has it", port, visitor)
            return
        with self._slots.slot(visitor) as has_slot:
            if has_slot:
                await self._forward(route, visitor, tcp)

    async def _forward(self, route: Route, visitor: Visitor, stream: trio.abc.Stream) -> None:
        """Connect a visitor to an agent's service, however it has arrived."""
        counts, name = self.counts, route.name
        with counts.visit(name):
            try:
                inner, agent = await route.open(visitor, self.config.agent_patience)
            except NoAgentError as error:
                counts.visitors[name, "no-agent"] += 1
                extra = {"visitor": str(visitor), "tunnel": name}
                logger.info("%s: %s is turned away: %s", name, visitor, error, extra=extra)
                return
            done = await forward(stream, inner, idle_timeout=self.config.idle_timeout)
            counts.moved[name, "in"] += done.a_to_b.bytes
            counts.moved[name, "out"] += done.b_to_a.bytes
            ends = {done.a_to_b.end, done.b_to_a.end}
            end = "clean" if done.clean else "idle" if "idle" in ends else "broken"
            counts.visitors[name, end] += 1
            if logger.isEnabledFor(logging.DEBUG):
                extra = {"visitor": str(visitor), "tunnel": name, **agent.extra}
                logger.debug("%s: %s by %s: %s", name, visitor, agent, end, extra=extra)


def handler_of_http() -> HandleHttp:
    """What serves HTTP, where its libraries are there.

    Raises:
      ModuleNotFoundError: it says what to install.
    """
    try:
        from ._web import handle_http
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"HTTP tunnels need {error.name}: python -m pip install 'trio_muxado[http]'",
            name=error.name,
        ) from error
    return handle_http


def _checked_tokens(tokens: object) -> list[Token]:
    if not isinstance(tokens, Iterable):
        raise TypeError(f"tokens must be Tokens, not {shown(tokens)}")
    checked: list[Token] = []
    for token in tokens:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(token, Token):
            raise TypeError(f"tokens must be Tokens, not a {type(token).__name__}")  # pyright: ignore[reportUnknownArgumentType]
        checked.append(token)
    return checked


async def _run_and_set(work: Callable[[], Awaitable[Any]], done: trio.Event) -> None:
    await work()
    done.set()


def _address(listeners: list[trio.SocketListener]) -> tuple[str, int]:
    host, port, *_ = listeners[0].socket.getsockname()
    return host, port
