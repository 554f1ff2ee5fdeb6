"""TLS inside a stream: a relay passes bytes on and can't read them.

    python tls_inside.py

A service and a visitor are connected to a relay. The visitor speaks TLS to the service, and the
relay between them sees only what TLS lets out. All three run here. trustme, which
`trio_muxado[demo]` brings, makes the certificates on the spot.
"""

import ssl
from functools import partial

import trio
import trustme

from trio_muxado import (
    MuxadoSession,
    MuxadoStream,
    SessionPool,
    forward,
    open_muxado_session,
    serve_muxado,
)

HOST = "127.0.0.1"
SERVICE_NAME = "service.example"
SECRET = b"for your eyes only"


class Listening(trio.abc.HalfCloseableStream):
    """A stream that keeps everything that passes, as a curious relay could."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.heard = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read, and remember."""
        data = bytes(await self.stream.receive_some(max_bytes))
        self.heard += data
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Remember, and send."""
        self.heard += data
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await self.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """End this direction."""
        await self.stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()


class Relay:
    """Joins the streams of visitors to streams of the service, as they are."""

    def __init__(self) -> None:
        self.service = SessionPool()
        self.heard = bytearray()

    async def handle_visitor(self, stream: MuxadoStream) -> None:
        """Forward one stream."""
        listening = Listening(stream)
        await forward(listening, await self.service.open_stream())
        self.heard += listening.heard

    async def handle_session(self, session: MuxadoSession) -> None:
        """Serve visitors; a service opens no streams, and only waits for them."""
        await session.serve_streams(self.handle_visitor)


async def serve_privately(context: ssl.SSLContext, stream: MuxadoStream) -> None:
    """Answer one visitor, inside TLS."""
    private = trio.SSLStream(stream, context, server_side=True)
    try:
        question = await private.receive_some()
        await private.send_all(bytes(question).upper())
        await private.aclose()
    except trio.BrokenResourceError as error:  # such as a handshake that failed
        print("a visitor has gone:", error)
        await stream.reset()


async def visit(port: int, context: ssl.SSLContext) -> None:
    """Ask the service, through the relay, and check that it is the service that answers."""
    async with open_muxado_session(HOST, port) as session:
        stream = await session.open_stream()
        private = trio.SSLStream(stream, context, server_hostname=SERVICE_NAME)
        await private.send_all(SECRET)
        print("the service answers", await private.receive_some())
        await private.aclose()


async def main() -> None:
    """Run all three."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(SERVICE_NAME).configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    relay = Relay()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            # Services and visitors have a port each, so that neither can take the other's place.
            serve = partial(serve_muxado, relay.service.hold, 0, host=HOST)
            services = await nursery.start(serve)
            serve = partial(serve_muxado, relay.handle_session, 0, host=HOST)
            visitors = await nursery.start(serve)
            service_port, visitor_port = (
                listeners[0].socket.getsockname()[1] for listeners in (services, visitors)
            )
            async with open_muxado_session(HOST, service_port) as session:
                handle_stream = partial(serve_privately, server_context)
                nursery.start_soon(session.serve_streams, handle_stream)
                await visit(visitor_port, client_context)
            nursery.cancel_scope.cancel()
    where = "among" if SECRET in relay.heard or SECRET.upper() in relay.heard else "not in"
    print(f"the relay passed on {len(relay.heard)} bytes, the secret {where} them")


if __name__ == "__main__":
    trio.run(main)
