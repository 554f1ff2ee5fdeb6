"""What happened to people with tunnels: each must leave relay and agent as they were."""

import socket
import sys
import threading
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import pytest
import trio

from trio_muxado import Heartbeat

from .support import (
    HOST,
    PATIENCE,
    TCP,
    ask,
    exposed,
    reset_on_close,
    reverse,
    running_relay,
    saying,
    service,
    until,
    visit,
)


async def test_visitors_that_leave_in_the_middle_of_a_download() -> None:
    async def pour(stream: trio.SocketStream) -> None:
        async def read() -> None:
            with suppress(trio.BrokenResourceError):
                async for _ in stream:
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(bytes(100_000))
            nursery.cancel_scope.cancel()

    async def leave(port: int, size: int) -> None:
        async with visit(port) as visitor:
            await visitor.send_all(b"?" * 1000)
            received = 0
            while received < size:
                received += len(await visitor.receive_some())
                await visitor.send_all(b"?" * 1000)
            reset_on_close(visitor)

    async with (
        service(pour) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
    ):
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for number in range(1, 6):
                    nursery.start_soon(leave, agent.port(), number * 300_000)
        await until(lambda: relay.relay.counts.running["tcp"] == 0)
        assert relay.relay.counts.visitors == {("tcp", "broken"): 50}
        assert [state for state, _ in agent.news] == ["connecting", "connected"]


async def test_a_service_that_resets_its_connection_under_an_upload() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        reset_on_close(stream)

    async def upload(port: int) -> None:
        async with visit(port) as visitor:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await visitor.send_all(bytes(100_000))

    async with (
        service(refuse) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
    ):
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(upload, agent.port())
        assert [state for state, _ in agent.news] == ["connecting", "connected"]
        assert not relay.ended.is_set()


async def test_a_frozen_agent_is_passed_over_and_given_up() -> None:
    """Its connection is there, and nobody reads it: a proxy in between keeps what is sent."""
    frozen = threading.Event()

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for chunk in source:
                while frozen.is_set():
                    await trio.sleep(0.01)
                await sink.send_all(chunk)

    async with AsyncExitStack() as stack:
        options: Any = {"heartbeat": Heartbeat(interval=1, tolerance=1), "agent_patience": 0.4}
        relay = await stack.enter_async_context(running_relay(**options))
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def between(tcp: trio.SocketStream) -> None:
            async with await trio.open_tcp_stream(*relay.ports.agents) as onward:
                async with trio.open_nursery() as pumps:
                    pumps.start_soon(pump, tcp, onward)
                    pumps.start_soon(pump, onward, tcp)

        (listener,) = await nursery.start(partial(trio.serve_tcp, between, 0, host=HOST))
        port = listener.socket.getsockname()[1]
        slow = await stack.enter_async_context(service(saying(b"slow")))
        quick = await stack.enter_async_context(service(saying(b"quick")))
        connect = partial(trio.open_tcp_stream, HOST, port)
        frozen_one = await stack.enter_async_context(exposed(relay, {TCP: slow}, connect=connect))
        await stack.enter_async_context(exposed(relay, {TCP: quick}))
        port = frozen_one.port()
        assert {await ask(port) for _ in range(2)} == {b"slow", b"quick"}
        frozen.set()
        assert {await ask(port) for _ in range(4)} == {b"quick"}
        await until(lambda: len(relay.relay.registry.agents) == 1)
        frozen.clear()
        nursery.cancel_scope.cancel()


async def test_a_hundred_visitors_while_the_relay_stops() -> None:
    async def visitor(port: int, results: list[bytes]) -> None:
        async with visit(port) as stream:
            await stream.send_all(b"first ")
            await trio.sleep(0.3)
            await stream.send_all(b"last")
            await stream.send_eof()
            results.append(b"".join([bytes(chunk) async for chunk in stream]))

    results: list[bytes] = []
    async with (
        service(reverse) as behind,
        running_relay(cancel=False) as relay,
        exposed(relay, {TCP: behind}) as agent,
        trio.open_nursery() as nursery,
    ):
        for _ in range(100):
            nursery.start_soon(visitor, agent.port(), results)
        await until(lambda: relay.relay.counts.running["tcp"] > 20)
        relay.stop.set()
        await relay.ended.wait()
        await until(lambda: len(results) == 100)
        assert set(results) == {b"tsal tsrif"}


@pytest.mark.skipif(sys.platform == "win32", reason="sockets are half-closed by other words there")
async def test_a_visitor_that_ends_his_direction_is_answered() -> None:
    """As `nc -N` does."""
    async with (
        service(reverse) as behind,
        running_relay() as relay,
        exposed(relay, {TCP: behind}) as agent,
    ):

        def netcat() -> bytes:
            with socket.create_connection((HOST, agent.port()), timeout=PATIENCE) as sock:
                sock.sendall(b"abc")
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while chunk := sock.recv(100):
                    answer += chunk
                return answer

        assert await trio.to_thread.run_sync(netcat) == b"cba"
