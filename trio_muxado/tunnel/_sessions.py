"""The agents' port of a relay: who is admitted, and for how long."""

from __future__ import annotations

import logging
from functools import partial

import trio

from .. import CloseReason, ErrorCode, MuxadoError, MuxadoSession, MuxadoStream
from ._cluster import Cluster
from ._control import HELLO_TIMEOUT, receive_message
from ._counts import RelayCounts
from ._errors import TunnelRefusedError
from ._messages import Accepted, Granted, Hello, MessageError, Refused, VersionError, encode
from ._newcomers import Newcomers
from ._nursery import open_nursery
from ._registry import Agent, Registry, shown_peer
from ._targets import Targets
from ._tokens import Tokens

logger = logging.getLogger("trio_muxado.tunnel")


class Sessions:
    """The sessions of agents and clients."""

    def __init__(
        self,
        registry: Registry,
        tokens: Tokens,
        counts: RelayCounts,
        targets: Targets,
        most: int,
    ) -> None:
        self.tokens = tokens
        self.newcomers = Newcomers(counts)
        self.stopping = False
        """Nobody is admitted any more."""
        self.leaving = trio.Event()
        """Control streams end, so that sessions can."""
        self._registry = registry
        self._counts = counts
        self._targets = targets
        self.cluster: Cluster | None = None
        self._most = most
        self._admitted = 0
        self._agents: dict[MuxadoSession, Agent | None] = {}  # None before they are admitted
        self._greeting: set[MuxadoSession] = set()  # whose control stream is open

    def __len__(self) -> int:
        return len(self._agents)

    def on_session(self, session: MuxadoSession, reason: CloseReason | None) -> None:
        if reason is None:
            self._agents[session] = None
            return
        self.newcomers.discard(session)
        agent = self._agents.pop(session, None)
        if agent is not None:
            self._admitted -= 1
            self._registry.release(agent)
            if agent.relay and self.cluster is not None:
                self.cluster.others.let_go(agent.relay, session)
            logger.info("%s has gone: %s", agent, reason.message, extra=agent.extra)

    async def handle(self, session: MuxadoSession) -> None:
        """What a peer opens besides its control stream: a client's streams to targets."""
        async with open_nursery() as nursery:
            nursery.start_soon(self._expect_token, session)
            await session.serve_streams(
                partial(self._targets.handle, lambda: self._agents.get(session))
            )
            nursery.cancel_scope.cancel()

    async def _expect_token(self, session: MuxadoSession) -> None:
        """Nobody stays without a token; its message has a timeout of its own."""
        await trio.sleep(2 * HELLO_TIMEOUT)
        if self._agents.get(session) is None:
            self._counts.refused["no-token"] += 1
            logger.warning("%s has shown no token", shown_peer(session.peer_address))
            await session.aclose()

    async def handle_control(self, stream: MuxadoStream) -> None:
        """An agent's first words, and then its presence: on one stream of its session."""
        session = stream.session
        if session in self._greeting:
            await stream.reset(ErrorCode.STREAM_REFUSED)
            return
        self._greeting.add(session)
        try:
            await self._serve_control(stream)
        except MuxadoError:
            raise  # the stream's end, which is not ours
        except Exception:  # it would end the relay
            logger.exception("the control stream of %s failed", shown_peer(session.peer_address))
            await stream.reset(ErrorCode.INTERNAL_ERROR)
            await session.aclose()
        finally:
            self._greeting.discard(session)

    async def _serve_control(self, stream: MuxadoStream) -> None:
        session = stream.session
        peer = shown_peer(session.peer_address)
        try:
            agent, granted = await self._admit(stream)
        except TunnelRefusedError as refusal:
            self._counts.refused[refusal.reason] += 1
            logger.warning("%s is refused: %s", peer, refusal, extra={"agent": peer})
            await stream.send_all(encode(Refused(refusal.reason, str(refusal))))
            await stream.aclose()
            await session.aclose()  # what was sent still arrives
            return
        try:
            for each in granted.tunnels:
                logger.info("%s serves %s at %s", agent, each.name, each.address, extra=agent.extra)
            await stream.send_all(encode(granted))
            await self._wait_until_leaving(stream)
        finally:
            self._registry.release(agent)

    async def _wait_until_leaving(self, stream: MuxadoStream) -> None:
        """Until the agent ends its control stream, or the relay is to end all of them."""
        async with open_nursery() as nursery:

            async def watch() -> None:
                await self.leaving.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            while await stream.receive_some(1024):
                pass
            nursery.cancel_scope.cancel()

    async def _admit(self, stream: MuxadoStream) -> tuple[Agent, Accepted]:
        session = stream.session
        hello = await self._receive_hello(stream)
        token = self.tokens.find(hello.token)
        if token is None:
            raise TunnelRefusedError("token", "the relay does not know this token")
        if hello.relay and (self.cluster is None or not token.relay or hello.tunnels):
            raise TunnelRefusedError("not-allowed", "this token, or this relay, is not for relays")
        if self.stopping and not hello.relay:  # whose visitors still have agents here
            raise TunnelRefusedError("stopping", "the relay is stopping")
        if self._agents.get(session) is not None:
            raise TunnelRefusedError("message", "a session has one control stream")
        if self._admitted >= self._most:
            raise TunnelRefusedError("busy", "this relay has as many agents as it may")
        name = hello.agent or token.label or "an agent"
        agent = Agent(session, name, token, relay=hello.relay)
        self._admitted += 1
        try:
            granted = await self._claim(agent, hello)
            if session not in self._agents:  # it has gone meanwhile
                self._registry.release(agent)
                raise TunnelRefusedError("message", "the session is over")
        except BaseException:
            self._admitted -= 1
            raise
        self._agents[session] = agent
        self.newcomers.discard(session)
        if agent.relay and self.cluster is not None:
            self.cluster.others.adopt(agent.relay, session)
        return agent, Accepted(tuple(granted))

    async def _claim(self, agent: Agent, hello: Hello) -> list[Granted]:
        if self.cluster is None:
            return await self._registry.claim(agent, hello.tunnels)
        async with self.cluster.reserved(agent, hello.tunnels) as wanted:
            return await self._registry.claim(agent, wanted)

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
