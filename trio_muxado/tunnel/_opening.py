"""Opening a stream to an agent whose service answers, whichever agent that is."""

from __future__ import annotations

import logging
from contextlib import suppress

import trio

from .. import ErrorCode, MuxadoError, MuxadoStream, StreamResetError, proxy_header
from ._control import READY
from ._registry import Agent, LiveTunnel
from ._visitors import Visitor

logger = logging.getLogger("trio_muxado.tunnel")

ATTEMPTS = 5
"""Agents that are tried for one visitor, at most: where one has gone, others may have as well."""


class NoAgentError(Exception):
    """No agent's service has taken the visitor.

    Attributes:
      reason: ``"agent"`` where there is none, ``"service"`` where its service refused, and
        ``"silent"`` where nothing came in time.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


async def open_to_agent(
    live: LiveTunnel, visitor: Visitor, patience: float, first: bytes = b""
) -> tuple[MuxadoStream, Agent]:
    """Open a stream to one of the tunnel's agents, in turn, whose service is there.

    Nothing of the visitor's is lost when an agent has gone: it is asked for nothing before it
    answers, but for ``first``, which another agent gets again.

    Raises:
      NoAgentError: none is there within ``patience`` seconds, or each service refused.
    """
    head = proxy_header("v2", visitor.source, visitor.destination) + first
    failure = NoAgentError("agent", f"no agent of {live.name!r} is connected")
    deadline = trio.current_time() + patience
    for _ in range(ATTEMPTS):
        agent: Agent | None = None
        others = False
        with trio.move_on_at(deadline) as waiting:
            try:
                stream = await _open(live)
            except trio.ClosedResourceError:
                raise failure from None
            agent = live.agents[stream.session]
            others = any(each is not stream.session for each in live.pool.sessions)
            share = patience / 2 if others else patience
            failure = NoAgentError("silent", f"nothing came from the agent for {share:g} s")
            if others:
                waiting.deadline = min(deadline, trio.current_time() + share)
            why = await begin(stream, head)
            if why is None:
                return stream, agent
            failure = why
        if agent is None or trio.current_time() >= deadline:  # the visitor's patience has ended
            break
        if waiting.cancelled_caught:
            live.suspect(agent)
        logger.info("%s: %s: %s", live.name, agent, failure, extra={"visitor": str(visitor)})
        if failure.reason == "service" and not others:
            break
    raise failure


async def _open(live: LiveTunnel) -> MuxadoStream:
    """Open a stream to the agent that is due; it is no checkpoint where that has a slot."""
    with suppress(trio.WouldBlock):
        return live.pool.open_stream_nowait(type=live.number)
    return await live.pool.open_stream(type=live.number)


async def begin(stream: MuxadoStream, head: bytes) -> NoAgentError | None:
    """Send a stream's head, and wait until the other side's service is there; gives why not."""
    try:
        await stream.send_all(head)
        ready = await stream.receive_some(len(READY))
    except StreamResetError as error:
        await stream.aclose()
        if error.code is ErrorCode.STREAM_REFUSED:
            return NoAgentError("service", "the agent's service refused the connection")
        return NoAgentError("agent", f"the agent reset the stream: {error}")
    except MuxadoError as error:
        await stream.aclose()
        return NoAgentError("agent", f"the agent has gone: {error}")
    except BaseException:
        await stream.reset()
        raise
    if ready == READY:
        return None
    await stream.reset()
    return NoAgentError("agent", "the agent ended the stream at once")
