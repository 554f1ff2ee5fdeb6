"""Streams that clients open through a relay: to a tunnel by its name, or to a target of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio

from .. import ErrorCode, MuxadoError, MuxadoSession, MuxadoStream, connect_tcp, forward
from ._config import RelayConfig
from ._control import HELLO_TIMEOUT, receive_message
from ._counts import RelayCounts
from ._errors import TunnelRefusedError
from ._messages import MessageError, Opened, Refused, Target, encode
from ._names import parse_address, shown_address
from ._opening import NoAgentError
from ._registry import Agent
from ._routes import Route, Routes
from ._tls import tcp_below
from ._visitors import Slots, Visitor
from ._visits import Visits

logger = logging.getLogger("trio_muxado.tunnel")


class Targets:
    """Where clients may go, and how they get there."""

    def __init__(
        self,
        config: RelayConfig,
        routes: Routes,
        counts: RelayCounts,
        slots: Slots,
        visits: Visits,
    ) -> None:
        self._config = config
        self._routes = routes
        self._counts = counts
        self._slots = slots
        self._visits = visits

    async def handle(self, agent_of: Callable[[], Agent | None], stream: MuxadoStream) -> None:
        try:
            await self._handle(agent_of(), stream)
        except MuxadoError:
            raise  # the stream's end, which is not ours
        except Exception:
            logger.exception("a client's stream failed")
            await stream.reset(ErrorCode.INTERNAL_ERROR)

    async def _handle(self, agent: Agent | None, stream: MuxadoStream) -> None:
        if agent is None:
            await stream.reset(ErrorCode.STREAM_REFUSED)
            return
        if agent.relay:
            await self._visits.handle(agent, stream)
            return
        visitor = Visitor(stream.session.peer_address, _own_address(stream.session))
        with self._slots.slot(visitor) as has_slot:
            try:
                if not has_slot:
                    raise TunnelRefusedError("busy", "too many visitors")
                target = await self._receive_target(stream, agent)
                await self._to_target(stream, target, visitor)
            except TunnelRefusedError as refusal:
                self._counts.refused[refusal.reason] += 1
                logger.info("a stream of %s is refused: %s", agent, refusal, extra=agent.extra)
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
        route: Route | None = None
        if ":" not in target:
            route = await self._routes.by_name(target)
            if route is None:
                raise TunnelRefusedError("unknown", f"there is no tunnel {target!r}")
        elif target not in self._config.allow_targets:
            raise TunnelRefusedError("not-allowed", f"this relay does not allow {target!r}")
        with self._counts.visit(target if route is None else route.name):
            if route is None:
                inner = await self._connect(*parse_address("target", target))
            else:
                inner = await self._open(route, visitor)
            try:
                await stream.send_all(encode(Opened()))
            except BaseException:
                await trio.aclose_forcefully(inner)
                raise
            await forward(stream, inner, idle_timeout=self._config.idle_timeout)

    async def _open(self, route: Route, visitor: Visitor) -> Any:
        try:
            inner, _ = await route.open(visitor, self._config.agent_patience)
        except NoAgentError as error:
            raise TunnelRefusedError("unreachable", str(error)) from None
        return inner

    async def _connect(self, host: str, port: int) -> Any:
        try:
            with trio.fail_after(self._config.agent_patience):
                return await connect_tcp(host, port)
        except (OSError, trio.TooSlowError) as error:
            text = f"no connection to {shown_address(host, port)}: {error}"
            raise TunnelRefusedError("unreachable", text) from None


def _own_address(session: MuxadoSession) -> Any:
    try:
        return tcp_below(session.transport_stream).socket.getsockname()
    except OSError:  # it is closed: the client has gone
        return None
