"""A mixed exchange over a transport that ends, breaks or stalls behind each of its bytes.

Every call comes to an end, with what it should or with a typed error, in bounded time of a mocked
clock; and nothing that was cut looks whole.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    StreamResetError,
    client_session,
    server_session,
)

from ..helpers import V1, V2, V2_TYPED, HalfCloseable, Kind, read_all
from .counts import check_counts, live_on

pytestmark = pytest.mark.proofs

POSITIONS = 2_000
STEP = 1 if os.environ.get("LONG") else 10

PATIENCE = 60.0
"""Seconds after which an application ends a session that does not get on."""

BOUND = 200.0
"""Seconds in which all must be over: patience, and the deadline of closing, for both sides."""

How = Literal["ends", "breaks", "stalls"]
Name = Literal["client", "server"]

REQUESTS = {number: bytes([number]) * size for number, size in enumerate((1, 30, 300, 700))}
RESET, LATE = 100, 101  # the client resets one request; another answer comes in pieces


def answer_to(request: bytes) -> bytes:
    """The whole answer, which tells whether the request was whole."""
    return len(request).to_bytes(2, "big") + request[::-1]


class Fault:
    """What happens to the direction to one side, behind so many bytes."""

    def __init__(self, to: Name, how: How, position: int) -> None:
        self.to = to
        self.how = how
        self.left = position
        self.happened = False
        self.waiting: list[trio.CancelScope] = []  # where it breaks, those that wait hear of it

    async def happen(self) -> bytes:
        self.happened = True
        if self.how == "breaks":
            for scope in self.waiting:
                scope.cancel()
            raise trio.BrokenResourceError("the transport broke")
        if self.how == "stalls":
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return b""

    @property
    def broke(self) -> bool:
        return self.happened and self.how == "breaks"


class Faulty(HalfCloseable):
    """One side's transport."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, fault: Fault, name: Name) -> None:
        super().__init__(inner)
        self.fault = fault
        self.name = name
        self.received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        fault, most = self.fault, max_bytes or 65_536
        if self.name == fault.to:
            if not fault.left:
                return await fault.happen()
            most = min(most, fault.left)
        with trio.CancelScope() as scope:
            fault.waiting.append(scope)
            try:
                if not fault.broke:
                    data = await self.inner.receive_some(most)
                    self.received += len(data)
                    if self.name == fault.to:
                        fault.left -= len(data)
                    return data
            finally:
                fault.waiting.remove(scope)
        raise trio.BrokenResourceError("the transport broke")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.fault.broke:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the transport broke")
        await self.inner.send_all(data)


class Side:
    """A user, who notes what each call came to."""

    def __init__(self, session: MuxadoSession) -> None:
        self.session = session
        self.whole: list[Any] = []
        """What was whole,"""
        self.broken: list[MuxadoError] = []
        """and what was not."""
        self.codes: list[ErrorCode | int] = []
        """Of streams that the peer has reset."""
        self.drained = False
        self.lost_patience = False

    async def make(self, call: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Any error but one of ours leaves the test."""
        try:
            self.whole.append(await call(self, *args))
        except MuxadoError as error:
            self.broken.append(error)

    async def run(self, *calls: tuple[Any, ...]) -> None:
        """Make the calls at once; a session that does not get on is closed."""
        async with trio.open_nursery() as outer:
            outer.start_soon(self.lose_patience)
            async with trio.open_nursery() as nursery:
                for call, *args in calls:
                    nursery.start_soon(self.make, call, *args)
            outer.cancel_scope.cancel()

    async def lose_patience(self) -> None:
        await trio.sleep(PATIENCE)
        self.lost_patience = True
        await self.session.aclose()


# ---- what the client does


async def ask(side: Side, number: int) -> tuple[str, int]:
    async with await side.session.open_stream(priority=number) as stream:
        request = REQUESTS[number]
        await stream.send_all(request[:7])
        await stream.send_all(request[7:])
        await stream.send_eof()
        assert await read_all(stream) == answer_to(request), "an answer was cut and looks whole"
    return "asked", number


async def ask_and_reset(side: Side) -> tuple[str, int]:
    stream = await side.session.open_stream()
    await stream.send_all(bytes([RESET]) * 60)
    await stream.reset(77)
    return "reset", RESET


async def take_push(side: Side) -> tuple[str, int]:
    """The server opens a stream, and the client answers."""
    async with await side.session.accept_stream() as stream:
        pushed = await read_all(stream)
        assert pushed == b"push" * 30, "a push was cut and looks whole"
        await stream.send_all(answer_to(pushed))
    return "pushed", len(pushed)


async def ping(side: Side) -> tuple[str, int]:
    await side.session.ping()
    return "pinged", 0


async def drain(side: Side, *calls: tuple[Any, ...]) -> tuple[str, int]:
    """After those calls."""
    async with trio.open_nursery() as nursery:
        for call, *args in calls:
            nursery.start_soon(side.make, call, *args)
    await side.session.goaway(debug=b"that was all")
    await side.session.drain()
    assert not live_on(side.session), "drained, and not empty"
    side.drained = True
    return "drained", 0


# ---- what the server does


async def serve(side: Side) -> tuple[str, int]:
    async def handle(stream: MuxadoStream) -> None:
        try:
            request = await read_all(stream)
        except StreamResetError as error:
            side.codes.append(error.code)
            raise
        assert request in REQUESTS.values(), "a request was cut and looks whole"
        answer = answer_to(request)
        for start in range(0, len(answer), 97):
            await stream.send_all(answer[start : start + 97])
        side.whole.append(("answered", request[0]))

    await side.session.serve_streams(handle)
    return "served", 0


async def push(side: Side) -> tuple[str, int]:
    async with await side.session.open_stream() as stream:
        await stream.send_all(b"push" * 30)
        await stream.send_eof()
        assert await read_all(stream) == answer_to(b"push" * 30)
    return "pushed", 120


# ---- one exchange


async def exchange(kind: Kind, fault: Fault) -> tuple[Side, Side, int, int]:
    """Both users, and the bytes that each side has received."""
    near, far = memory_stream_pair()
    transports = Faulty(near, fault, "client"), Faulty(far, fault, "server")
    pings = [] if kind is V2 else [(ping,)]
    # Larger windows than usual are granted with WNDINC.
    config = kind.config(receive_window=300_000)
    sides: dict[str, Side] = {}

    async def be_client() -> None:
        async with client_session(transports[0], config=config) as session:
            sides["client"] = side = Side(session)
            asking = [(ask, number) for number in REQUESTS]
            await side.run((drain, *asking, *asking, (ask_and_reset,), (take_push,), *pings))

    async def be_server() -> None:
        async with server_session(transports[1], config=config) as session:
            sides["server"] = side = Side(session)
            await side.run((serve,), (push,), *pings)

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_client)
            nursery.start_soon(be_server)
    client, server = sides["client"], sides["server"]
    for side in (client, server):
        check_counts(side.session, over=True)
    return client, server, transports[0].received, transports[1].received


def run(kind: Kind, fault: Fault) -> tuple[Side, Side, int, int]:
    return trio.run(exchange, kind, fault, clock=MockClock(autojump_threshold=0))


CLIENT_DOES = 2 * len(REQUESTS) + 3
EVERYTHING = 10**9


@pytest.mark.parametrize("kind", [V1, V2, V2_TYPED], ids=lambda kind: kind.name)
def test_without_a_fault_all_of_it_is_whole(kind: Kind) -> None:
    client, server, to_client, to_server = run(kind, Fault("client", "ends", EVERYTHING))
    assert client.drained
    assert not client.broken
    assert len(client.whole) == CLIENT_DOES + (kind is not V2)
    assert sum(what == "answered" for what, _ in server.whole) == 2 * len(REQUESTS)
    assert min(to_client, to_server) >= POSITIONS


@pytest.mark.parametrize("to", ["client", "server"])
@pytest.mark.parametrize("how", ["ends", "breaks", "stalls"])
@pytest.mark.parametrize("kind", [V1, V2, V2_TYPED], ids=lambda kind: kind.name)
def test_a_transport_that_fails_at_any_byte(kind: Kind, how: How, to: Name) -> None:
    for position in range(0, POSITIONS, STEP):
        try:
            fault = Fault(to, how, position)
            client, server, *_ = run(kind, fault)
            assert fault.happened
            check(kind, client, server)
        except Exception as error:
            raise AssertionError(f"behind {position} bytes to the {to}") from error


def check(kind: Kind, client: Side, server: Side) -> None:
    """What one side takes for whole, the other one has sent whole."""
    asked = sorted(number for what, number in client.whole if what == "asked")
    answered = sorted(number for what, number in server.whole if what == "answered")
    for number in REQUESTS:
        assert asked.count(number) <= answered.count(number)
    if client.drained:
        assert len(client.whole) == CLIENT_DOES + (kind is not V2)
    assert set(server.codes) <= {77, ErrorCode.STREAM_CANCELLED}
    for side in (client, server):
        # With heartbeats a session notices by itself that the transport stands still.
        assert not side.lost_patience or kind is V2
        assert side.session.close_reason is not None
        if not side.session.close_reason.clean:
            assert side.broken, "a session broke, and every call was fine"
