"""Visitors that another relay passes on, because an agent of their tunnel is here."""

from __future__ import annotations

import logging

import trio

from .. import (
    ErrorCode,
    MuxadoError,
    MuxadoStream,
    ProxyHeaderError,
    forward,
    receive_proxy_header,
)
from ._config import RelayConfig
from ._control import HELLO_TIMEOUT, READY, receive_message
from ._counts import RelayCounts
from ._messages import MessageError, Visit
from ._opening import NoAgentError, open_to_agent
from ._registry import Agent, Registry
from ._visitors import Slots, Visitor

logger = logging.getLogger("trio_muxado.tunnel")


class Visits:
    """Lets them in to the agents of this relay, and to no further relay: nothing goes round."""

    def __init__(
        self, config: RelayConfig, registry: Registry, counts: RelayCounts, slots: Slots
    ) -> None:
        self._config = config
        self._registry = registry
        self._counts = counts
        self._slots = slots

    async def handle(self, relay: Agent, stream: MuxadoStream) -> None:
        """Serve a stream of another relay's, as an agent serves one of ours."""
        try:
            with trio.fail_after(HELLO_TIMEOUT):
                message = await receive_message(stream)
                addresses = await receive_proxy_header(stream)
            if not isinstance(message, Visit):
                raise MessageError("the first message must be a visit")
        except (MessageError, ProxyHeaderError, trio.TooSlowError) as error:
            logger.warning("%s: a stream without a visitor: %s", relay, error, extra=relay.extra)
            await stream.reset(ErrorCode.PROTOCOL_ERROR)
            return
        visitor = Visitor(*(addresses or (None, None)))
        with self._slots.slot(visitor) as has_slot:
            if has_slot:
                await self._serve(message.tunnel, visitor, relay, stream)
            else:
                await stream.reset(ErrorCode.REMOTE_GONE_AWAY)

    async def _serve(self, name: str, visitor: Visitor, relay: Agent, stream: MuxadoStream) -> None:
        live = self._registry.find(name)
        if live is None or not live.agents:
            await stream.reset(ErrorCode.REMOTE_GONE_AWAY)
            return
        counts, extra = self._counts, {"visitor": str(visitor), "tunnel": name, **relay.extra}
        with counts.visit(name):
            try:
                inner, _ = await open_to_agent(live, visitor, self._config.agent_patience)
            except NoAgentError as error:
                logger.info("%s: %s of %s: %s", name, visitor, relay, error, extra=extra)
                refused = error.reason == "service"
                await stream.reset(
                    ErrorCode.STREAM_REFUSED if refused else ErrorCode.REMOTE_GONE_AWAY
                )
                return
            try:
                await stream.send_all(READY)
            except BaseException as error:
                await inner.reset()
                if isinstance(error, MuxadoError):
                    return
                raise
            counts.passed[name, "in"] += 1
            await forward(stream, inner, idle_timeout=self._config.idle_timeout)
            logger.debug("%s: %s of %s has gone", name, visitor, relay, extra=extra)
