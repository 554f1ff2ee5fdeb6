"""The relay: agents connect to it from behind NAT, and visitors reach their services through it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from .. import (
    CloseReason,
    ErrorCode,
    Heartbeat,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    connect_tcp,
    forward,
    serve_muxado_listeners,
)
from ._config import RelayConfig, session_config
from ._control import CONTROL_TYPE, HELLO_TIMEOUT, receive_message
from ._counts import RelayCounts
from ._errors import TunnelRefusedError
from ._messages import (
    Accepted,
    Hello,
    MessageError,
    Opened,
    Refused,
    Target,
    VersionError,
    encode,
)
from ._names import parse_address, shown, shown_address
from ._nursery import open_nursery
from ._opening import NoAgentError, open_to_agent
from ._registry import Agent, LiveTunnel, Registry, shown_peer
from ._tokens import Token, Tokens
from ._visitors import GONE, Porter, Slots, Visitor, visitor_of

logger = logging.getLogger("trio_muxado.tunnel")

CLOSE_TIMEOUT = 5.0
"""Seconds for sessions to end, once the last visitor has gone."""


@dataclass(frozen=True)
class RelayPorts:
    """Where a relay listens, once it does: host and port each."""

    agents: tuple[str, int]
    http: tuple[str, int] | None = None
    https: tuple[str, int] | None = None


class Relay:
    """Lets visitors in to services that are reached by nothing but their agents' connections.

    ``await relay.run()`` serves until it is cancelled, or stopped gently by ``stop``.

    Args:
      config: where it listens, and its limits.
      tokens: who may be an agent or a client, and for what.

    Raises:
      TypeError: a wrong argument.
    """

    def __init__(
        self,
        config: RelayConfig,
        tokens: Iterable[Token],
        *,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        if not isinstance(config, RelayConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"config must be a RelayConfig, not {shown(config)}")
        self.config = config
        self.counts = RelayCounts()
        self._tokens = Tokens(_checked_tokens(tokens))
        self._heartbeat = heartbeat
        self._slots = Slots(config, self.counts)
        self._porter = Porter()
        self._agents: dict[MuxadoSession, Agent | None] = {}  # None before they are accepted
        self._leaving = trio.Event()  # agents' control streams end
        self._registry: Registry | None = None

    def set_tokens(self, tokens: Iterable[Token]) -> None:
        """Take other tokens for whoever connects from now on; those that are connected stay.

        Raises:
          TypeError: they are no tokens.
        """
        self._tokens = Tokens(_checked_tokens(tokens))

    @property
    def is_stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return self._porter.stop.is_set()

    @property
    def registry(self) -> Registry:
        """Its tunnels and agents, while it runs."""
        if self._registry is None:
            raise RuntimeError("the relay does not run")
        return self._registry

    async def run(
        self,
        *,
        stop: trio.Event | None = None,
        task_status: trio.TaskStatus[RelayPorts] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled or stopped.

        Args:
          stop: once it is set, no more visitors are accepted.  Those that are there have
            ``config.drain_timeout`` seconds to finish, and are broken then: none takes what it got
            for the whole.  Agents are told to go elsewhere, and the function returns.
          task_status: ``await nursery.start(relay.run)`` returns the :class:`RelayPorts`.

        Raises:
          OSError: a port could not be bound; nothing listens then.
        """
        listeners = await _listen({"agents": self.config.agents})
        agents_stop, agents_gone = trio.Event(), trio.Event()
        async with open_nursery() as nursery:
            async with open_nursery() as visitors:
                self._registry = Registry(
                    self.config,
                    nursery,
                    partial(self._listen_for_visitors, visitors),
                )
                config = session_config(self._heartbeat)
                serve_agents = partial(
                    serve_muxado_listeners,
                    self._handle_session,
                    listeners["agents"],
                    config=replace(config, extensions={CONTROL_TYPE: self._handle_control}),
                    stop=agents_stop,
                    stop_timeout=CLOSE_TIMEOUT,
                    on_session=self._on_session,
                    max_sessions=self.config.max_agents,
                    first_stream_timeout=HELLO_TIMEOUT,
                )
                nursery.start_soon(_run_and_set, serve_agents, agents_gone)
                task_status.started(RelayPorts(agents=_address(listeners["agents"])))
                await (trio.Event() if stop is None else stop).wait()
                logger.info("stopping: visitors have %g s to finish", self.config.drain_timeout)
                self._porter.stop.set()
                with trio.move_on_after(self.config.drain_timeout):
                    await self._porter.wait_until_empty()
                visitors.cancel_scope.cancel()
            self._leaving.set()
            agents_stop.set()
            await agents_gone.wait()
            nursery.cancel_scope.cancel()

    # ---- agents and clients

    def _on_session(self, session: MuxadoSession, reason: CloseReason | None) -> None:
        if reason is None:
            self._agents[session] = None
            return
        agent = self._agents.pop(session, None)
        if agent is not None:
            self.registry.release(agent)
            logger.info("%s has gone: %s", agent, reason.message, extra=_extra(agent))

    async def _handle_session(self, session: MuxadoSession) -> None:
        """What a peer opens besides its control stream: a client's streams to targets."""
        async with open_nursery() as nursery:
            nursery.start_soon(self._expect_token, session)
            await session.serve_streams(self._guard_client_stream)
            nursery.cancel_scope.cancel()

    async def _expect_token(self, session: MuxadoSession) -> None:
        """Nobody stays without a token; its message has a timeout of its own."""
        await trio.sleep(2 * HELLO_TIMEOUT)
        if self._agents.get(session) is None:
            logger.warning("%s has shown no token", shown_peer(session.peer_address))
            await session.aclose()

    async def _handle_control(self, stream: MuxadoStream) -> None:
        """An agent's first words, and then its presence."""
        session = stream.session
        peer = shown_peer(session.peer_address)
        try:
            agent, granted = await self._admit(stream)
        except TunnelRefusedError as refusal:
            self.counts.refused[refusal.reason] += 1
            logger.warning("%s is refused: %s", peer, refusal, extra={"agent": peer})
            await stream.send_all(encode(Refused(refusal.reason, str(refusal))))
            await stream.aclose()
            await session.aclose()  # what was sent still arrives
            return
        try:
            for each in granted.tunnels:
                logger.info(
                    "%s serves %s at %s", agent, each.name, each.address, extra=_extra(agent)
                )
            await stream.send_all(encode(granted))
            await self._wait_until_leaving(stream)
        finally:
            self.registry.release(agent)

    async def _wait_until_leaving(self, stream: MuxadoStream) -> None:
        """Until the agent ends its control stream, or the relay is to end all of them."""
        async with open_nursery() as nursery:

            async def watch() -> None:
                await self._leaving.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            while await stream.receive_some(1024):
                pass
            nursery.cancel_scope.cancel()

    async def _admit(self, stream: MuxadoStream) -> tuple[Agent, Accepted]:
        session = stream.session
        hello = await self._receive_hello(stream)
        token = self._tokens.find(hello.token)
        if token is None:
            raise TunnelRefusedError("token", "the relay does not know this token")
        if self.is_stopping:
            raise TunnelRefusedError("stopping", "the relay is stopping")
        if session not in self._agents or self._agents[session] is not None:
            raise TunnelRefusedError("message", "a session has one control stream")
        name = hello.agent or token.label or "an agent"
        agent = Agent(session, name, token)
        granted = await self.registry.claim(agent, hello.tunnels)
        if session not in self._agents:  # it has gone meanwhile
            self.registry.release(agent)
            raise TunnelRefusedError("message", "the session is over")
        self._agents[session] = agent
        return agent, Accepted(tuple(granted))

    async def _receive_hello(self, stream: MuxadoStream) -> Hello:
        try:
            with trio.fail_after(HELLO_TIMEOUT):
                hello = await receive_message(stream)
        except VersionError as error:
            raise TunnelRefusedError("version", str(error)) from None
        except MessageError as error:
            raise TunnelRefusedError("message", str(error)) from None
        except trio.TooSlowError:
            raise TunnelRefusedError("message", "no message came in time") from None
        if not isinstance(hello, Hello):
            raise TunnelRefusedError("message", "the first message must be a hello")
        return hello

    # ---- visitors of ports

    def _listen_for_visitors(
        self, nursery: trio.Nursery, live: LiveTunnel, listeners: list[trio.SocketListener]
    ) -> None:
        handler = partial(self._handle_visitor, live)
        nursery.start_soon(self._porter.serve, listeners, handler, nursery, live.listening)

    async def _handle_visitor(self, live: LiveTunnel, tcp: trio.SocketStream) -> None:
        try:
            visitor = await visitor_of(tcp, has_header=self.config.accept_proxy_protocol)
        except GONE as error:
            logger.info("%s: a connection without a visitor: %s", live.name, error)
            return
        with self._slots.slot(visitor) as has_slot:
            if has_slot:
                await self._forward(live, visitor, tcp)

    async def _forward(self, live: LiveTunnel, visitor: Visitor, stream: trio.abc.Stream) -> None:
        """Join a visitor to an agent's service, whichever way he has come."""
        counts, name = self.counts, live.name
        extra = {"visitor": str(visitor), "tunnel": name}
        counts.running[name] += 1
        try:
            try:
                inner, agent = await open_to_agent(live, visitor, self.config.agent_patience)
            except NoAgentError as error:
                counts.visitors[name, "no-agent"] += 1
                logger.info("%s: %s is turned away: %s", name, visitor, error, extra=extra)
                return
            done = await forward(stream, inner, idle_timeout=self.config.idle_timeout)
            counts.moved[name, "in"] += done.a_to_b.bytes
            counts.moved[name, "out"] += done.b_to_a.bytes
            ends = {done.a_to_b.end, done.b_to_a.end}
            end = "clean" if done.clean else "idle" if "idle" in ends else "broken"
            counts.visitors[name, end] += 1
            logger.debug("%s: %s by %s: %s", name, visitor, agent, end, extra=extra | _extra(agent))
        finally:
            counts.running[name] -= 1

    # ---- clients' streams, to a tunnel or a target of the relay's own

    async def _guard_client_stream(self, stream: MuxadoStream) -> None:
        try:
            await self._handle_client_stream(stream)
        except MuxadoError:
            raise  # the stream's end, which is not ours
        except Exception:
            logger.exception("a client's stream failed")
            await stream.reset(ErrorCode.INTERNAL_ERROR)

    async def _handle_client_stream(self, stream: MuxadoStream) -> None:
        agent = self._agents.get(stream.session)
        if agent is None:
            await stream.reset(ErrorCode.STREAM_REFUSED)
            return
        visitor = Visitor(stream.session.peer_address, _own_address(stream.session))
        with self._slots.slot(visitor) as has_slot:
            try:
                if not has_slot:
                    raise TunnelRefusedError("busy", "too many visitors")
                target = await self._receive_target(stream, agent)
                await self._to_target(stream, target, visitor)
            except TunnelRefusedError as refusal:
                self.counts.refused[refusal.reason] += 1
                logger.info("a stream of %s is refused: %s", agent, refusal, extra=_extra(agent))
                await stream.send_all(encode(Refused(refusal.reason, str(refusal))))

    async def _receive_target(self, stream: MuxadoStream, agent: Agent) -> str:
        try:
            with trio.fail_after(HELLO_TIMEOUT):
                message = await receive_message(stream)
        except MessageError as error:
            raise TunnelRefusedError("message", str(error)) from None
        except trio.TooSlowError:
            raise TunnelRefusedError("message", "no message came in time") from None
        if not isinstance(message, Target):
            raise TunnelRefusedError("message", "the first message must be a target")
        if not agent.token.allows_target(message.target):
            text = f"the token does not allow the target {message.target!r}"
            raise TunnelRefusedError("not-allowed", text)
        return message.target

    async def _to_target(self, stream: MuxadoStream, target: str, visitor: Visitor) -> None:
        opened = encode(Opened())
        if ":" not in target:
            live = self.registry.find(target)
            if live is None:
                raise TunnelRefusedError("unknown", f"there is no tunnel {target!r}")
            try:
                inner, _ = await open_to_agent(live, visitor, self.config.agent_patience)
            except NoAgentError as error:
                raise TunnelRefusedError("unreachable", str(error)) from None
            name = live.name
        else:
            if target not in self.config.allow_targets:
                raise TunnelRefusedError("not-allowed", f"this relay does not allow {target!r}")
            name = target
            inner = await self._connect(*parse_address("target", target))
        self.counts.running[name] += 1
        try:
            try:
                await stream.send_all(opened)
            except BaseException:
                await trio.aclose_forcefully(inner)
                raise
            await forward(stream, inner, idle_timeout=self.config.idle_timeout)
        finally:
            self.counts.running[name] -= 1

    async def _connect(self, host: str, port: int) -> Any:
        try:
            with trio.fail_after(self.config.agent_patience):
                return await connect_tcp(host, port)
        except (OSError, trio.TooSlowError) as error:
            text = f"no connection to {shown_address(host, port)}: {error}"
            raise TunnelRefusedError("unreachable", text) from None


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


async def _listen(addresses: Mapping[str, str | None]) -> dict[str, list[trio.SocketListener]]:
    """Listen at all of them, or at none."""
    opened: dict[str, list[trio.SocketListener]] = {}
    try:
        for name, address in addresses.items():
            if address is not None:
                host, port = parse_address(name, address)
                opened[name] = await trio.open_tcp_listeners(port, host=host)
    except BaseException:
        for listeners in opened.values():
            for listener in listeners:
                await trio.aclose_forcefully(listener)
        raise
    return opened


def _address(listeners: list[trio.SocketListener]) -> tuple[str, int]:
    host, port, *_ = listeners[0].socket.getsockname()
    return host, port


def _own_address(session: MuxadoSession) -> Any:
    stream: Any = session.transport_stream
    while (below := getattr(stream, "transport_stream", None)) is not None:
        stream = below
    return stream.socket.getsockname() if isinstance(stream, trio.SocketStream) else None


def _extra(agent: Agent) -> dict[str, str]:
    return {"agent": str(agent)}
