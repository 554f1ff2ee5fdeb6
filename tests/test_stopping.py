"""A server that is asked to stop gently loses no request."""

import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    OpenStreamError,
    client_session,
    open_muxado_session,
    serve_muxado,
    serve_muxado_listeners,
)
from trio_muxado._server import GRACE
from trio_muxado.testing import Link

from .helpers import Kind, MemoryListener, RawPeer, each_wire, read_all, with_types


async def echo_at_the_end(stream: MuxadoStream) -> None:
    received = b"".join([chunk async for chunk in stream])
    await stream.send_all(received)


async def serve_echo(session: MuxadoSession) -> None:
    await session.serve_streams(echo_at_the_end)


@each_wire
async def test_running_requests_end_well_and_new_ones_are_safe_to_retry(kind: Kind) -> None:
    """Over TCP, where the end of one direction is not that of the other."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve_muxado, serve_echo, 0, host="127.0.0.1", stop=stop)
        )
        address = listeners[0].socket.getsockname()
        async with open_muxado_session(*address, config=kind.config()) as session:
            stream = await session.open_stream()
            await stream.send_all(b"half of it, ")
            # A second one is answered, so that the server has surely seen the first.
            async with await session.open_stream() as other:
                await other.send_eof()
                assert await other.receive_some() == b""
            stop.set()
            with pytest.raises(OpenStreamError) as refused:
                while True:  # those that are opened before the news has come are taken
                    await (await session.open_stream()).aclose()
            assert refused.value.safe_to_retry
            await stream.send_all(b"and the rest")
            await stream.send_eof()
            assert await read_all(stream) == b"half of it, and the rest"
            await stream.aclose()
            reason = await session.wait_closed()
            assert (reason.code, reason.initiator) == (ErrorCode.NO_ERROR, "remote")
    # serve_muxado has returned, or the nursery would still wait.
    with pytest.raises(OSError, match=r"connect"):
        await trio.open_tcp_stream(*address)


async def test_without_connections_it_returns_at_once(autojump_clock: MockClock) -> None:
    stop = trio.Event()
    stop.set()
    await serve_muxado_listeners(serve_echo, [MemoryListener()], stop=stop)
    assert trio.current_time() == 0


# ---- clients that have said nothing yet


async def test_a_client_that_says_nothing_holds_the_server_up_for_a_moment(
    autojump_clock: MockClock,
) -> None:
    stop = trio.Event()
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_muxado_listeners, serve_echo, [listener], stop=stop))
        silent = await listener.connect()
        await trio.sleep(1000)
        stop.set()
        assert await silent.receive_some() == b""
        assert trio.current_time() == 1000 + GRACE
        await silent.aclose()


@each_wire
@pytest.mark.parametrize("waiting", [1, 20])
async def test_requests_in_connections_that_nobody_has_accepted_are_answered(
    kind: Kind, waiting: int
) -> None:
    """Over TCP: the system accepts connections and their first bytes without us."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(serve_muxado, serve_echo, 0, host="127.0.0.1", stop=stop)
        )
        peer = RawPeer(kind)  # for its frames only
        request = peer.syn(3) + peer.data(3, b"the request", fin=True)
        clients: list[trio.SocketStream] = []
        for _ in range(waiting):
            # Not one turn of trio's loop is made in between.
            client = socket.create_connection(listener.socket.getsockname())
            client.sendall(request)
            clients.append(trio.SocketStream(trio.socket.from_stdlib_socket(client)))
        stop.set()
        for stream in clients:
            async with stream:
                assert b"the request" in await read_all(stream)


# ---- a rolling restart


class Restart:
    """Two servers that do the same work, one of which is stopped; and clients with requests.

    A client goes on to the other server with what is safe to retry, and with nothing else.
    With ``extension`` the requests go to the handler of that type.
    """

    def __init__(
        self,
        kind: Kind,
        latency: float,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        extension: int = 0,
    ) -> None:
        self.config = kind.config()
        self.extension = extension
        extensions = {extension: self.execute} if extension else {}
        self.server_config = kind.config(wire="auto", extensions=extensions)
        self.latency = latency
        self.contexts = contexts
        self.listeners = MemoryListener(), MemoryListener()
        self.stops = trio.Event(), trio.Event()
        self.executed: Counter[bytes] = Counter()
        self.answered: Counter[bytes] = Counter()

    async def run(self, moment: int) -> bool:
        """Stop the first server at a turn of trio's loop; whether the clients were still at it."""
        stopper = Stopper(moment, self.stops[0])
        async with trio.open_nursery() as servers:
            for listener, stop in zip(self.listeners, self.stops, strict=True):
                served: trio.abc.Listener[Any] = listener
                if self.contexts is not None:
                    served = trio.SSLListener(listener, self.contexts[1])
                await servers.start(
                    partial(
                        serve_muxado_listeners,
                        self.handle,
                        [served],
                        config=self.server_config,
                        stop=stop,
                    )
                )
            trio.lowlevel.add_instrument(stopper)
            async with trio.open_nursery() as clients:
                for number in range(3):
                    clients.start_soon(self.client, number)
            trio.lowlevel.remove_instrument(stopper)
            in_time = self.stops[0].is_set()
            for stop in self.stops:
                stop.set()
        return in_time

    async def handle(self, session: MuxadoSession) -> None:
        await session.serve_streams(self.execute)

    async def execute(self, stream: MuxadoStream) -> None:
        request = await read_all(stream)
        self.executed[request] += 1
        await trio.sleep(0.01)
        await stream.send_all(b"done: " + request)

    async def client(self, number: int) -> None:
        await trio.sleep(0.01 * number)
        requests = [b"%d of client %d" % (i, number) for i in range(3)]
        for server in range(2):
            try:
                transport = await self.connect(server)
            except OSError:
                continue
            async with client_session(transport, config=self.config) as session:
                again: list[bytes] = []
                async with trio.open_nursery() as nursery:
                    for request in requests:
                        nursery.start_soon(self.ask, session, request, again)
                requests = again
        assert not requests, "lost"

    async def connect(self, server: int) -> trio.abc.Stream:
        if self.stops[server].is_set():
            raise OSError("out of rotation")
        link = Link(self.latency)
        near: trio.abc.Stream = await self.listeners[server].connect(
            over=(link.client, link.server)
        )
        if self.contexts is not None:
            near = trio.SSLStream(near, self.contexts[0], server_hostname="localhost")
        return near

    async def ask(self, session: MuxadoSession, request: bytes, again: list[bytes]) -> None:
        await trio.sleep(0.02 * (request[0] - ord("0")))
        try:
            async with await session.open_stream(type=self.extension) as stream:
                await stream.send_all(request[:3])
                await trio.sleep(0.005)
                await stream.send_all(request[3:])
                await stream.send_eof()
                assert await read_all(stream) == b"done: " + request
        except MuxadoError as error:
            if not error.safe_to_retry:
                raise
            again.append(request)
        else:
            self.answered[request] += 1


class Stopper(trio.abc.Instrument):
    """Sets an event in the given turn of trio's loop, between the tasks' steps."""

    def __init__(self, turns: int, stop: trio.Event) -> None:
        self._left = turns
        self._stop = stop

    def after_io_wait(self, timeout: float) -> None:
        self._left -= 1
        if self._left < 0:
            self._stop.set()


STRIDE = 44
"""Turns of trio's loop between the moments that are tried: each one takes ten times as long, and
which of the tasks' steps a moment falls between is random anyway.  The two wires, which are alike
in all of this, have theirs between each other's, and so have the two latencies."""


@pytest.mark.parametrize("latency", [0.0, 0.05])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@each_wire
async def test_a_rolling_restart_loses_no_request_and_repeats_none(
    kind: Kind,
    tls: bool,
    latency: float,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    autojump_clock: MockClock,
) -> None:
    """Whenever it comes: before a connection is accepted, in its handshake, while the first bytes
    of a client are on their way, between two requests and within one."""
    contexts = (client_context, server_context) if tls else None
    await restart_at_every_moment(kind, lambda: Restart(kind, latency, contexts))


@pytest.mark.parametrize("latency", [0.0, 0.05])
@with_types
async def test_a_rolling_restart_loses_no_request_of_an_extension_either(
    kind: Kind, latency: float, autojump_clock: MockClock
) -> None:
    await restart_at_every_moment(kind, lambda: Restart(kind, latency, extension=7))


async def restart_at_every_moment(kind: Kind, make: Callable[[], Restart]) -> None:
    moment = STRIDE // 2 * (kind.wire == "v2") + STRIDE // 4 * (make().latency > 0)
    in_time = True
    while in_time:
        restart = make()
        in_time = await restart.run(moment)
        assert len(restart.executed) == 9
        assert set(restart.executed.values()) == {1}
        assert restart.answered == restart.executed
        moment += STRIDE
    assert moment > 220
