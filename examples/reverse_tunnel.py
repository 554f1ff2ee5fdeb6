"""Reach a TCP service behind NAT: the agent dials out, and the relay opens streams back to it.

    python reverse_tunnel.py relay PUBLIC_PORT AGENT_PORT
    python reverse_tunnel.py agent RELAY_HOST AGENT_PORT SERVICE_HOST SERVICE_PORT

A visitor who connects to PUBLIC_PORT of the relay reaches SERVICE_HOST:SERVICE_PORT as the agent
sees it. Everything runs over the one connection that the agent has made. With several agents, the
relay spreads visitors over them. Without TLS and a client certificate (see the documentation)
anybody can be the agent, so the relay listens on 127.0.0.1.
"""

import sys
from functools import partial

import trio

from trio_muxado import (
    CloseReason,
    DialLoss,
    MuxadoConfig,
    MuxadoSession,
    SessionPool,
    dial_muxado,
    forward,
    forward_streams,
    serve_muxado,
)

LOCAL = "127.0.0.1"
PATIENCE = 10  # seconds that a visitor waits for an agent
IDLE = 600  # seconds that a connection may be silent
# A visitor who has read everything may keep the connection open, which must not lock out others.
CONFIG = MuxadoConfig(max_outbound_streams=None, max_inbound_streams=10_000)


class Relay:
    """Hands each visitor to one of the connected agents."""

    def __init__(self) -> None:
        self.agent = SessionPool()

    def on_session(self, session: MuxadoSession, reason: CloseReason | None) -> None:
        """Report that an agent has come or gone, and keep the pool up to date."""
        self.agent.on_session(session, reason)
        news = "connected" if reason is None else f"gone: {reason.message}"
        print("an agent has", news, flush=True)

    async def handle_visitor(self, visitor: trio.SocketStream) -> None:
        """Forward one connection to an agent. It is closed when this returns."""
        with trio.move_on_after(PATIENCE) as waiting:
            stream = await self.agent.open_stream()
        if not waiting.cancelled_caught:
            await forward(visitor, stream, idle_timeout=IDLE)

    async def run(self, public_port: int, agent_port: int) -> None:
        """Listen on both ports."""
        async with trio.open_nursery() as nursery:
            hook = self.on_session
            wait = MuxadoSession.wait_closed
            serve = partial(serve_muxado, wait, host=LOCAL, config=CONFIG, on_session=hook)
            agents = await nursery.start(serve, agent_port)
            serve = partial(trio.serve_tcp, self.handle_visitor, host=LOCAL)
            visitors = await nursery.start(serve, public_port)
            public_port = visitors[0].socket.getsockname()[1]
            agent_port = agents[0].socket.getsockname()[1]
            print(f"public port {public_port}, agent port {agent_port}", flush=True)


async def agent(relay_host: str, relay_port: int, host: str, port: int) -> None:
    """Serve the relay's streams, and reconnect whenever the connection is lost."""

    def on_state(state: str, loss: DialLoss | None) -> None:
        print(state if loss is None else f"the relay is away: {loss.message}", flush=True)

    serve = partial(forward_streams, host=host, port=port, idle_timeout=IDLE)
    await dial_muxado(serve, relay_host, relay_port, config=CONFIG, on_state=on_state)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["relay", public_port, agent_port]:
            trio.run(Relay().run, int(public_port), int(agent_port))
        case ["agent", relay_host, relay_port, host, port]:
            trio.run(agent, relay_host, int(relay_port), host, int(port))
        case _:
            sys.exit(__doc__)
