"""Peers that break off, or speak another protocol: of a relay, an agent and a client."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_muxado import (
    ErrorCode,
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    proxy_header,
    serve_muxado,
)
from trio_muxado.tunnel import AddressService, RelayPorts, forward_port
from trio_muxado.tunnel._control import CONTROL_TYPE, READY, receive_message
from trio_muxado.tunnel._counts import RelayCounts
from trio_muxado.tunnel._messages import (
    LONGEST,
    PREFIX,
    Accepted,
    Granted,
    Hello,
    MessageError,
    Refused,
    Target,
    encode,
)
from trio_muxado.tunnel._services import Service
from trio_muxado.tunnel._visitors import Visitor, slot_key
from trio_muxado.tunnel._visits import Visits

from ..helpers import V1, session_pair
from .support import HOST, PATIENCE, SECRET, TCP, SlowBinding, ask, exposed, running_relay, until
from .test_agents import HELLO, by_hand, say

Handle = Callable[[MuxadoStream], Awaitable[Any]]


# ---- agents that break off


async def close_at_once(stream: MuxadoStream) -> None:
    await stream.receive_some()


async def reset(stream: MuxadoStream) -> None:
    await stream.reset(ErrorCode.INTERNAL_ERROR)


async def answer_nonsense(stream: MuxadoStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    await trio.sleep_forever()


async def stay_silent(stream: MuxadoStream) -> None:
    await trio.sleep_forever()


async def go(stream: MuxadoStream) -> None:
    await stream.session.aclose()


@pytest.mark.parametrize(
    "handle, why",
    [
        (close_at_once, "ended the stream at once"),
        (reset, "the agent reset the stream"),
        (answer_nonsense, "ended the stream at once"),
        (stay_silent, "nothing came from the agent"),
        (go, "the agent has gone"),
    ],
)
async def test_an_agent_that_takes_no_visitor(
    handle: Handle, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    patience = 0.1 if handle is stay_silent else PATIENCE
    # Nobody waits for another agent where the last one leaves no tunnel.
    relaying = running_relay(agent_patience=patience, keep_tunnel=0.01)
    async with relaying as relay, by_hand(relay) as session:
        answer = await receive_message(await say(session, HELLO))
        assert isinstance(answer, Accepted)
        port = int(answer.tunnels[0].address.rpartition(":")[2])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.serve_streams, handle)
            with caplog.at_level(logging.INFO, "trio_muxado.tunnel"):
                with pytest.raises(trio.BrokenResourceError):
                    await ask(port)
            nursery.cancel_scope.cancel()
        assert [line for line in caplog.messages if why in line]


async def test_who_says_no_hello_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_relay() as relay, by_hand(relay) as session:
        refused = await session.open_stream(type=1)
        with pytest.raises(trio.BrokenResourceError, match="REFUSED"):
            await refused.receive_some()
        # How long this session may be without an agent is settled, and is longer.
        monkeypatch.setattr("trio_muxado.tunnel._sessions.HELLO_TIMEOUT", 0.05)
        control = await session.open_stream(type=CONTROL_TYPE)
        await control.send_all(b"\0")
        assert await receive_message(control) == Refused("message", "no message came in time")
    async with running_relay() as relay, by_hand(relay) as session:
        await session.wait_closed()


async def test_the_first_message_is_a_hello() -> None:
    async with running_relay() as relay, by_hand(relay) as session:
        answer = await receive_message(await say(session, Target("db")))
        assert answer == Refused("message", "the first message must be a hello")


async def test_nobody_is_admitted_by_a_relay_that_stops() -> None:
    async with running_relay() as relay, by_hand(relay) as session, by_hand(relay) as visitor:
        answer = await receive_message(await say(session, HELLO))
        assert isinstance(answer, Accepted)
        port = int(answer.tunnels[0].address.rpartition(":")[2])
        async with await trio.open_tcp_stream(HOST, port):  # what runs keeps the relay
            await session.accept_stream()
            relay.stop.set()
            await until(lambda: relay.relay.is_stopping)
            answer = await receive_message(await say(visitor, Hello(SECRET, "late")))
            assert answer == Refused("stopping", "the relay is stopping")


async def test_an_agent_that_goes_while_its_ports_are_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_relay(keep_tunnel=0.05) as relay:
        slow = SlowBinding(monkeypatch)
        async with by_hand(relay) as session:
            await say(session, HELLO)
            await slow.has_begun.wait()
        await until(lambda: not len(relay.relay._sessions))
        slow.go_on.set()
        await until(lambda: not relay.relay.registry.agents)
        await until(lambda: not list(relay.relay.registry.tunnels))
        assert not len(relay.relay._sessions)


# ---- relays that are none, to an agent that they have accepted


class Failing(Service):
    """A service whose handler has a bug."""

    @asynccontextmanager
    async def handler(
        self, idle_timeout: float, stop: trio.Event | None
    ) -> AsyncGenerator[Handle, None]:
        async def fail(stream: MuxadoStream) -> None:
            raise ZeroDivisionError

        yield fail


@asynccontextmanager
async def accepting(
    accepted: Accepted, handle: Callable[[MuxadoSession], Awaitable[Any]]
) -> AsyncGenerator[RelayPorts, None]:
    """A relay by hand."""

    async def answer(stream: MuxadoStream) -> None:
        await receive_message(stream)
        await stream.send_all(encode(accepted))
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass

    config = MuxadoConfig(wire="v2", typed=True, heartbeat=None, extensions={CONTROL_TYPE: answer})

    async with trio.open_nursery() as nursery:
        run = partial(serve_muxado, handle, 0, host=HOST, config=config)
        (listener,) = await nursery.start(run)
        yield RelayPorts(agents=listener.socket.getsockname())
        nursery.cancel_scope.cancel()


UNKNOWN = proxy_header("v2", None, None)


@pytest.mark.parametrize(
    "number, sent, service, code",
    [
        (9, UNKNOWN, AddressService(HOST, 1), ErrorCode.STREAM_REFUSED),
        (1, b"no header of the PROXY protocol", AddressService(HOST, 1), ErrorCode.PROTOCOL_ERROR),
        (1, UNKNOWN, Failing(), ErrorCode.INTERNAL_ERROR),
    ],
)
async def test_a_stream_that_an_agent_cannot_serve(
    number: int, sent: bytes, service: Service, code: ErrorCode
) -> None:
    codes: list[ErrorCode | int] = []

    async def open_one(session: MuxadoSession) -> None:
        stream = await session.open_stream(type=number)
        await stream.send_all(sent)
        try:
            await stream.receive_some()
        except trio.BrokenResourceError as error:
            codes.append(getattr(error, "code", -1))
        await session.wait_closed()

    granted = Accepted((Granted(TCP.name, 1, "somewhere"),))
    async with accepting(granted, open_one) as ports, exposed(ports, {TCP: service}):
        await until(lambda: codes)
    assert codes == [code]


@pytest.mark.parametrize(
    "answer, words",
    [
        (encode(HELLO), "something else"),
        (b"\0\0\0\1x", "not JSON"),
        (encode(Refused("unknown", "there is none")), "there is none"),
        (READY, "the stream ended"),
    ],
)
async def test_what_a_client_takes_for_no_answer(
    answer: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def say_it(stream: MuxadoStream) -> None:
        await receive_message(stream)
        await stream.send_all(answer)

    async def serve(session: MuxadoSession) -> None:
        await session.serve_streams(say_it)

    async with accepting(Accepted(), serve) as ports, trio.open_nursery() as nursery:
        run = partial(forward_port, "db", *ports.agents, token=SECRET)
        _, port = await nursery.start(run)
        with pytest.raises(trio.BrokenResourceError):
            await ask(port)
        nursery.cancel_scope.cancel()
    assert [line for line in caplog.messages if "no connection to db" in line and words in line]


# ---- whose slot it is


@pytest.mark.parametrize(
    "source, key",
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8::1:2:3:4", 5, 0, 0), "2001:db8::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("/run/socket", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_slots_of_an_address_are_those_of_its_network(source: Any, key: str) -> None:
    assert slot_key(source) == key


async def test_a_stream_that_no_agent_answers_is_reset_when_the_visitor_has_waited() -> None:
    async with running_relay(agent_patience=0.1) as relay, by_hand(relay) as session:
        answer = await receive_message(await say(session, HELLO))
        assert isinstance(answer, Accepted)
        port = int(answer.tunnels[0].address.rpartition(":")[2])

        async def ask_in_vain() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await ask(port)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_in_vain)
            # Accepted before it is reset: else it is never seen.
            stream = await session.accept_stream()
            error = await stream.wait_broken()
        assert error.code is ErrorCode.STREAM_CANCELLED


@pytest.mark.parametrize("size", [0, LONGEST + 1])
async def test_no_message_of_a_length_out_of_bounds_is_waited_for(size: int) -> None:
    near, far = memory_stream_pair()
    await near.send_all(size.to_bytes(PREFIX, "big"))
    await near.send_eof()
    with pytest.raises(MessageError, match=f"a message of {size} bytes"):
        await receive_message(far)


async def test_a_visit_that_breaks_off_leaves_the_agent_no_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another relay's visitor leaves while the agent is asked."""
    async with session_pair(V1) as (client, server):
        visit, inner = [await client.open_stream() for _ in range(2)]
        far_visit, far_inner = [await server.accept_stream() for _ in range(2)]

        async def open_to_agent(*_: object) -> tuple[MuxadoStream, None]:
            await far_visit.reset()
            await visit.wait_broken()
            return inner, None

        monkeypatch.setattr("trio_muxado.tunnel._visits.open_to_agent", open_to_agent)
        counts = RelayCounts()
        parts: Any = SimpleNamespace(
            agent_patience=1,
            idle_timeout=1,
            extra={},
            agents=["an agent"],
            find=lambda name: parts,
        )
        visits = Visits(parts, parts, counts, parts)
        await visits._serve("web", Visitor(None, None), parts, visit)
        with trio.fail_after(PATIENCE):
            error = await far_inner.wait_broken()
        assert error.code is ErrorCode.STREAM_CANCELLED
        assert not counts.running["web"]
