"""Reach a TCP service behind NAT: the agent dials out, and the relay opens streams back to it.

    python reverse_tunnel.py relay PUBLIC_PORT AGENT_PORT
    python reverse_tunnel.py agent RELAY_HOST AGENT_PORT SERVICE_HOST SERVICE_PORT

Whoever connects to PUBLIC_PORT of the relay talks to SERVICE_HOST:SERVICE_PORT as the agent sees
it. Everything runs over the one connection that the agent has made. Without TLS and a client
certificate (see the documentation) anybody can be the agent, so the relay listens on 127.0.0.1.
"""

import sys
from functools import partial

import trio

from trio_muxado import (
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    open_muxado_session,
    serve_muxado,
)

LOCAL = "127.0.0.1"


async def join(tcp: trio.SocketStream, stream: MuxadoStream) -> None:
    """Copy both ways until both directions have ended. What breaks one breaks the other."""
    async with tcp, stream, trio.open_nursery() as nursery:

        async def copy(
            source: trio.abc.HalfCloseableStream, sink: trio.abc.HalfCloseableStream
        ) -> None:
            try:
                async for chunk in source:
                    await sink.send_all(chunk)
                await sink.send_eof()
            except trio.BrokenResourceError:
                # An end of the stream would say that all was well.
                nursery.cancel_scope.cancel()
                await stream.reset()

        nursery.start_soon(copy, tcp, stream)
        nursery.start_soon(copy, stream, tcp)


class Relay:
    """Hands visitors to the agent that has connected last."""

    def __init__(self) -> None:
        self.agent: MuxadoSession | None = None

    async def handle_agent(self, session: MuxadoSession) -> None:
        """Keep a session with an agent for as long as it lives."""
        self.agent = session
        print("an agent has connected", flush=True)
        reason = await session.wait_closed()
        print("an agent has gone:", reason.message, flush=True)

    async def handle_visitor(self, tcp: trio.SocketStream) -> None:
        """Open a stream to the agent for one connection."""
        if self.agent is None:
            return
        try:
            stream = await self.agent.open_stream()
        except MuxadoError as error:
            print("no way to the agent:", error, flush=True)
        else:
            await join(tcp, stream)

    async def run(self, public_port: int, agent_port: int) -> None:
        """Listen on both ports."""
        async with trio.open_nursery() as nursery:
            serve = partial(serve_muxado, self.handle_agent, agent_port, host=LOCAL)
            agents = await nursery.start(serve)
            serve = partial(trio.serve_tcp, self.handle_visitor, public_port, host=LOCAL)
            visitors = await nursery.start(serve)
            public_port = visitors[0].socket.getsockname()[1]
            agent_port = agents[0].socket.getsockname()[1]
            print(f"public port {public_port}, agent port {agent_port}", flush=True)


async def agent(relay_host: str, relay_port: int, host: str, port: int) -> None:
    """Serve the relay's streams, and come back when the relay has been away."""

    async def handle_stream(stream: MuxadoStream) -> None:
        try:
            tcp = await trio.open_tcp_stream(host, port)
        except OSError as error:
            print("no way to the service:", error, flush=True)
            await stream.reset()
        else:
            await join(tcp, stream)

    while True:
        try:
            async with open_muxado_session(relay_host, relay_port) as session:
                print("connected", flush=True)
                await session.serve_streams(handle_stream)
        except (OSError, MuxadoError) as error:
            print("the relay is away:", error, flush=True)
        await trio.sleep(1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["relay", public_port, agent_port]:
            trio.run(Relay().run, int(public_port), int(agent_port))
        case ["agent", relay_host, relay_port, host, port]:
            trio.run(agent, relay_host, int(relay_port), host, int(port))
        case _:
            sys.exit(__doc__)
