"""Every argument of every public call is checked, by type and by range, before anything changes.

The tests walk over what is public. A new call, or a new argument of one, fails them until it has a
kind in ``KINDS``, which says what is wrong for it, and a right value in ``RIGHT``.
"""

import dataclasses
import inspect
import io
import math
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_muxado
import trio_muxado.http
import trio_muxado.testing
from trio_muxado import (
    Backoff,
    ErrorCode,
    Heartbeat,
    MuxadoConfig,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionPool,
    SessionStatistics,
    client_session,
    dial_muxado,
    serve_muxado,
    server_session,
)
from trio_muxado._nursery import leaves
from trio_muxado.testing import Link, open_session_pair

from .helpers import MemoryListener, fill, outcome_of

QUIET = MuxadoConfig(heartbeat=None)

# ---- what is wrong, for each kind of argument

HUGE = 10**5000
"""Python shows no number with so many digits: its ``repr`` raises."""


class Shy:
    """Has no repr."""

    def __repr__(self) -> str:
        raise RuntimeError("not shown")


async def is_async(*args: object) -> None:
    """What a hook must not be."""


NO_NUMBER: list[Any] = ["1", b"1", [1], True, 1j, Shy()]
NO_INT = [*NO_NUMBER, 1.0, 1.5, 1e6, math.nan, math.inf]
NO_OBJECT: list[Any] = [0, 1.5, "x", b"x", [], {}, object(), Shy(), True]
NO_FUNCTION = [*NO_OBJECT, b""]
SECONDS = {
    TypeError: [*NO_NUMBER, {}],
    ValueError: [0, 0.0, -1, -0.5, math.nan, -math.inf, HUGE, -HUGE],
}
Wrong = dict[type[Exception], list[Any]]


def ints(least: int, most: int | None = None) -> Wrong:
    too_large = [] if most is None else [most + 1, HUGE]
    return {TypeError: NO_INT, ValueError: [least - 1, -HUGE, *too_large]}


def no_none(wrong: Wrong) -> Wrong:
    return {**wrong, TypeError: [*wrong[TypeError], None]}


def finite(wrong: Wrong) -> Wrong:
    return {**wrong, ValueError: [*wrong[ValueError], math.inf]}


COUNT = no_none(ints(1))
WINDOW = ints(1, 2**31 - 1)
BYTES: Wrong = {TypeError: ["text", 5, None, [1, 2], 1.5, memoryview(b"abcd")[::2], Shy()]}
HOST: Wrong = {
    TypeError: [5, 1.5, ["localhost"], Shy(), bytearray(b"x")],
    ValueError: ["", b"\xff", "ex..ample", "x" * 64, "ex\udcffample"],
}
PORT = no_none(ints(0, 65535))
BOOL: Wrong = {TypeError: [0, 1, None, "yes", [], Shy()]}
CONFIG: Wrong = {TypeError: [*NO_OBJECT, Heartbeat(), MuxadoConfig]}
SSL: Wrong = {
    TypeError: [*NO_OBJECT, ssl.SSLContext],
    ValueError: [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)],
}
SSL_OF_SERVER: Wrong = {**SSL, ValueError: [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)]}
STREAM: Wrong = {TypeError: [*NO_OBJECT, None, trio.Event, io.BytesIO()]}
HANDLER: Wrong = {TypeError: [*NO_FUNCTION, None]}
HOOK: Wrong = {TypeError: [*NO_FUNCTION, is_async, partial(is_async, 1)]}
OBJECT: Wrong = {TypeError: [*NO_OBJECT, None]}
OPTIONAL: Wrong = {TypeError: NO_OBJECT}
CODE: Wrong = {
    TypeError: [*NO_INT, None],
    ValueError: [-1, 2**32, HUGE, *range(1, 16)],
}
WORD: Wrong = {TypeError: [1, b"v1", True, ["v1"], Shy()], ValueError: ["", "v3", "V1"]}
FILE: Wrong = {TypeError: [5, "name", b"name", io.BytesIO(), Shy()]}

KINDS: dict[str, Wrong] = {
    "a": STREAM,
    "app": HANDLER,
    "attempts": COUNT,
    "b": STREAM,
    "backlog": ints(0),
    "backoff": OBJECT,
    "bandwidth": no_none(SECONDS),
    "buffer": ints(1),
    "code": CODE,
    "config": no_none(CONFIG),
    "connect": {TypeError: NO_FUNCTION},
    "data": BYTES,
    "debug": {**BYTES, ValueError: [bytes(4097)]},
    "destination": {ValueError: [5, ("localhost", 5), ("192.0.2.1", 65536), ("192.0.2.1", True)]},
    "error": {TypeError: [5, "broken", object(), ValueError]},
    "factor": {**no_none(SECONDS), ValueError: [0.5, math.nan, math.inf, HUGE]},
    "failures": COUNT,
    "file": FILE,
    "first": finite(no_none(SECONDS)),
    "first_stream_timeout": finite(SECONDS),
    "handle_session": HANDLER,
    "handler": HANDLER,
    "host": HOST,
    "http2": BOOL,
    "idle": BOOL,
    "idle_timeout": SECONDS,
    "jitter": {**no_none(SECONDS), ValueError: [-0.1, 1.1, math.nan, math.inf]},
    "latency": {**no_none(SECONDS), ValueError: [-1, math.nan, math.inf, HUGE]},
    "limits": OPTIONAL,
    "link": {TypeError: [5, "ab", (1, 2), [], memory_stream_pair, Shy()]},
    "listeners": {TypeError: [5, None, [5], [None], "ab"], ValueError: [[]]},
    "longest": {**no_none(SECONDS), ValueError: [0.1, math.nan, math.inf, HUGE]},
    "max_bytes": {TypeError: [1.5, "1", True, [], Shy()], ValueError: [0, -1, -HUGE]},
    "max_sessions": ints(1),
    "max_streams": ints(1),
    "on_session": HOOK,
    "on_state": HOOK,
    "port": PORT,
    "priority": no_none(ints(0, 2**31 - 1)),
    "reason": OPTIONAL,
    "receive_budget": ints(1),
    "retries": no_none(ints(0)),
    "scheme": {ValueError: [5, "ftp", b"http"]},
    "server_config": CONFIG,
    "session": OBJECT,
    "source": {ValueError: [5, ("localhost", 5), ("192.0.2.1", -1), ("192.0.2.1", 1.5)]},
    "ssl_context": SSL,
    "stop": OPTIONAL,
    "stop_timeout": finite(SECONDS),
    "stream": STREAM,
    "tap": HOOK,
    "task_status": OBJECT,
    "to": WORD,
    "type": no_none(ints(0, 2**32 - 1)),
    "version": WORD,
    "work": HANDLER,
}
OF_CALL: dict[tuple[str, str], Wrong] = {
    ("forward_streams", "proxy_protocol"): WORD,
    ("serve_asgi", "proxy_protocol"): BOOL,
    ("asgi_handler", "proxy_protocol"): BOOL,
    ("receive_proxy_header", "stream"): OBJECT,
    ("break_stream", "stream"): OBJECT,
    ("serve_asgi", "config"): CONFIG,
    ("asgi_handler", "config"): CONFIG,
    ("serve_muxado", "ssl_context"): SSL_OF_SERVER,
    ("serve_asgi", "ssl_context"): SSL_OF_SERVER,
    ("asgi_handler", "ssl_context"): SSL_OF_SERVER,
    # TCP ports that can be connected to
    ("open_muxado_session", "port"): no_none(ints(1, 65535)),
    ("dial_muxado", "port"): no_none(ints(1, 65535)),
    ("forward_streams", "port"): no_none(ints(1, 65535)),
    ("connect_tcp", "port"): no_none(ints(1, 65535)),
}
OF_FIELD: dict[str, Wrong] = {
    "wire": WORD,
    "typed": BOOL,
    "heartbeat": {TypeError: [*NO_OBJECT, Heartbeat]},
    "tracer": HOOK,
    "extensions": {
        TypeError: [5, None, "x", [1], {"1": is_async}, {1.5: is_async}, {True: is_async}, {1: 5}],
        ValueError: [{0: is_async}, {-1: is_async}, {2**32: is_async}],
    },
    "max_outbound_streams": ints(1),
    "receive_window": WINDOW,
    "max_receive_window": no_none(WINDOW),
    "resets_per_second": finite(no_none(SECONDS)),
    "half_open_timeout": SECONDS,
    "interval": finite(SECONDS),
    "tolerance": SECONDS,
}
"""Fields whose default does not say it: an int is that of a count, and a float that of seconds."""

# Made by the library, for users to read.
RESULTS = {"CloseReason", "DialLoss", "Forwarded", "ForwardedDirection", "SessionStatistics"}
RESULTS |= {"TracedFrame", "ErrorCode"}


def wrong_values(wrong: Wrong) -> Iterator[tuple[type[Exception], Any]]:
    for kind, values in wrong.items():
        for value in values:
            yield kind, value


def assert_named(error: BaseException, kind: type[Exception], name: str, value: object) -> None:
    shown = type(value).__name__
    assert isinstance(error, kind), f"{name}, a wrong {shown}, raised {error!r}"
    assert name in str(error), f"{name}, a wrong {shown}: {error}"
    assert len(str(error)) < 1000


# ---- configurations


def fields_of(cls: Any) -> list[Any]:
    return [pytest.param(cls, field, id=f"{cls.__name__}-{field.name}") for field in _fields(cls)]


def _fields(cls: Any) -> tuple["dataclasses.Field[Any]", ...]:
    return dataclasses.fields(cls)


def wrong_of_field(field: "dataclasses.Field[Any]") -> Wrong:
    if field.name in OF_FIELD:
        return OF_FIELD[field.name]
    if field.name in KINDS:
        return KINDS[field.name]
    assert type(field.default) in (int, float), f"{field.name} needs a kind in OF_FIELD"
    return COUNT if type(field.default) is int else no_none(SECONDS)


@pytest.mark.parametrize(
    "cls, field", [*fields_of(MuxadoConfig), *fields_of(Heartbeat), *fields_of(Backoff)]
)
def test_a_field_refuses_what_is_wrong(cls: Any, field: "dataclasses.Field[Any]") -> None:
    for kind, value in wrong_values(wrong_of_field(field)):
        with pytest.raises((TypeError, ValueError)) as caught:
            cls(**{field.name: value})
        assert_named(caught.value, kind, field.name, value)
        with pytest.raises((TypeError, ValueError)):
            dataclasses.replace(cls(), **{field.name: value})


def test_seconds_may_be_ints_or_endless() -> None:
    names = ("close_timeout", "close_deadline", "send_timeout", "handshake_timeout")
    for value in (1, 2.5, math.inf):
        assert MuxadoConfig(**dict.fromkeys(names, value))  # type: ignore[arg-type]
        assert MuxadoConfig(half_open_timeout=value)
    assert Heartbeat(3, math.inf)
    assert MuxadoConfig(max_outbound_streams=None, receive_window=None, half_open_timeout=None)


@pytest.mark.parametrize("wire", ["v1", "v2"])
async def test_a_session_lives_and_ends_without_any_deadline(wire: Any) -> None:
    endless = MuxadoConfig(
        wire=wire,
        typed=True,
        heartbeat=Heartbeat(1, math.inf),
        close_timeout=math.inf,
        close_deadline=math.inf,
        send_timeout=math.inf,
        handshake_timeout=math.inf,
        half_open_timeout=math.inf,
        max_receive_window=2**31 - 1,
        receive_budget=10**30,
        accept_backlog=10**30,
        send_buffer=10**30,
        max_inbound_streams=10**30,
    )
    async with open_session_pair(config=endless) as (client, server):
        async with await client.open_stream() as stream:
            await stream.send_all(bytes(10**6))
            await stream.send_eof()
            received = await server.accept_stream()
            assert sum([len(chunk) async for chunk in received]) == 10**6
            await received.aclose()


# ---- functions


def public_functions() -> Iterator[tuple[str, Any]]:
    for module in (trio_muxado, trio_muxado.testing, trio_muxado.http):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) or (
                inspect.isclass(value)
                and not issubclass(value, BaseException)
                and name not in RESULTS
                and not dataclasses.is_dataclass(value)
                and value not in (MuxadoSession, MuxadoStream)
            ):
                yield name, value


FUNCTIONS = dict(public_functions())
ARGUMENTS = [
    (name, argument)
    for name, function in FUNCTIONS.items()
    for argument in inspect.signature(function).parameters
]


def wrong_of(call: str, argument: str) -> Wrong:
    wrong = OF_CALL.get((call, argument)) or KINDS.get(argument)
    assert wrong is not None, f"{argument} of {call} needs a kind in KINDS"
    return wrong


class Nowhere:
    """Streams that nobody may use, as nothing is to happen."""

    def __init__(self) -> None:
        self.near, self.far = memory_stream_pair()
        other, self._other = memory_stream_pair()
        self.right: dict[str, Any] = {
            "a": self.near,
            "app": is_async,
            "b": other,
            "destination": ("192.0.2.1", 5),
            "file": io.StringIO(),
            "handle_session": is_async,
            "host": "localhost",
            "listeners": [MemoryListener()],
            "port": 5,
            "source": ("192.0.2.1", 5),
            "stream": self.near,
            "version": "v1",
        }

    async def check(self) -> None:
        await self.near.send_all(b"still mine")
        assert await self.far.receive_some() == b"still mine"


async def use(called: Any) -> None:
    """Await it or enter it, whichever it takes."""
    if hasattr(called, "__aenter__"):
        async with called:
            pytest.fail("it took a wrong argument")
    if inspect.isawaitable(called):
        await called


async def never(*args: object, **kwargs: object) -> Any:
    pytest.fail("it began before it had looked at its arguments")


@pytest.mark.parametrize("name, argument", ARGUMENTS)
async def test_a_function_refuses_what_is_wrong(
    name: str, argument: str, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """The clock stands still: a client of v1 that is silent for long says who it is."""
    function = FUNCTIONS[name]
    for called in ("trio.open_tcp_listeners", "trio.open_tcp_stream", "trio.serve_listeners"):
        monkeypatch.setattr(called, never)
    monkeypatch.setattr("trio_muxado._connect.connect_checked", never)
    monkeypatch.setattr("trio_muxado._dial.connect_tcp", never)
    async with open_session_pair(config=QUIET) as (client, server):
        nowhere = Nowhere()
        await wait_all_tasks_blocked()
        nowhere.right["session"] = client
        before = snapshot(client), snapshot(server)
        parameters = inspect.signature(function).parameters
        right = {
            other: nowhere.right[other]
            for other, parameter in parameters.items()
            if parameter.default is parameter.empty
        }
        for kind, value in wrong_values(wrong_of(name, argument)):
            with pytest.raises((TypeError, ValueError)) as caught:
                await use(function(**{**right, argument: value}))
            assert_named(caught.value, kind, argument, value)
            await nowhere.check()
        assert (snapshot(client), snapshot(server)) == before


# ---- methods


def snapshot(session: MuxadoSession) -> tuple[SessionStatistics, bool, object]:
    """All that shows of a session."""
    return session.statistics(), session.can_open, session.close_reason


METHODS: list[tuple[Any, str]] = [
    (cls, name)
    for cls in (MuxadoSession, MuxadoStream, SessionPool, Link, Backoff)
    for name, member in inspect.getmembers(cls)
    if not name.startswith("_")
    and inspect.isfunction(member)
    and set(inspect.signature(member).parameters) - {"self"}
    and not member.__module__.startswith("trio.")
    and name != "shortened"  # Backoff's own
]
SETTERS = [
    (MuxadoStream, name)
    for name, member in inspect.getmembers(MuxadoStream)
    if isinstance(member, property) and member.fset is not None
]


class Room:
    """A stream of two sessions over a link that notes what is sent."""

    def __init__(self, session: MuxadoSession, stream: MuxadoStream) -> None:
        self.pool = SessionPool()
        self.pool.add(session)
        self.objects: dict[Any, Any] = {
            MuxadoSession: session,
            MuxadoStream: stream,
            SessionPool: self.pool,
            Link: Link(),
            Backoff: Backoff(),
        }
        self.right: dict[str, Any] = {
            "data": b"data",
            "handler": is_async,
            "reason": None,
            "session": session,
            "to": "client",
            "failures": 1,
            "work": is_async,
        }


@asynccontextmanager
async def room(wire: Any) -> AsyncGenerator[tuple[Room, Callable[[], Awaitable[Any]]], None]:
    sent: list[bytes] = []
    link = Link(tap=lambda end, data: sent.append(data))
    config = MuxadoConfig(wire=wire, typed=True, heartbeat=None, max_outbound_streams=2)
    async with open_session_pair(config=config, link=link) as (client, server):
        stream = await client.open_stream()
        await stream.send_all(b"begun")
        theirs = await server.accept_stream()
        assert await theirs.receive_some() == b"begun"
        it = Room(client, stream)

        async def look() -> Any:
            await wait_all_tasks_blocked()
            return (
                list(sent),
                snapshot(client),
                snapshot(server),
                (stream.priority, stream.idle, stream.unsent, stream.is_readable()),
                it.pool.sessions,
            )

        yield it, look
        # All of it works as if nothing had been.
        await stream.send_all(b"and on")
        assert await theirs.receive_some() == b"and on"
        await theirs.send_all(b"and back")
        assert await stream.receive_some() == b"and back"
        other = client.open_stream_nowait()
        with pytest.raises(trio.WouldBlock):
            client.open_stream_nowait()  # no more slots than before, and no fewer
        await other.aclose()


@pytest.mark.parametrize("wire", ["v1", "v2"])
@pytest.mark.parametrize("cls, name", METHODS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_method_refuses_what_is_wrong(
    wire: Any, cls: Any, name: str, mock_clock: MockClock
) -> None:
    async with room(wire) as (it, look):
        method = getattr(it.objects[cls], name)
        parameters = inspect.signature(method).parameters
        right = {
            other: it.right[other]
            for other, parameter in parameters.items()
            if parameter.default is parameter.empty
        }
        before = await look()
        for argument in parameters:
            for kind, value in wrong_values(wrong_of(name, argument)):
                if name in ("freeze", "thaw") and value is None:
                    continue
                with pytest.raises((TypeError, ValueError)) as caught:
                    await use(method(**{**right, argument: value}))
                assert_named(caught.value, kind, argument, value)
            assert await look() == before


@pytest.mark.parametrize("wire", ["v1", "v2"])
@pytest.mark.parametrize("cls, name", SETTERS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_setter_refuses_what_is_wrong(wire: Any, cls: Any, name: str) -> None:
    async with room(wire) as (it, look):
        before = await look()
        for kind, value in wrong_values(wrong_of(cls.__name__, name)):
            with pytest.raises((TypeError, ValueError)) as caught:
                setattr(it.objects[cls], name, value)
            assert_named(caught.value, kind, name, value)
        assert await look() == before


async def test_the_ends_of_a_link_refuse_what_is_wrong() -> None:
    link = Link()
    for kind, value in wrong_values(BYTES):
        with pytest.raises(kind, match="data"):
            await link.client.send_all(value)
    for kind, value in wrong_values(KINDS["max_bytes"]):
        with pytest.raises(kind, match="max_bytes"):
            await link.server.receive_some(value)
    await link.client.send_all(b"all there is")
    assert await link.server.receive_some() == b"all there is"


async def test_wrong_arguments_count_while_a_call_would_wait() -> None:
    """They are not found out only when the wait is over."""
    config = MuxadoConfig(max_outbound_streams=1, heartbeat=None)
    async with open_session_pair(config=config) as (client, server):
        stream = await client.open_stream()
        await fill(stream)
        wrong: Any = "1"
        with pytest.raises(TypeError, match="type"):
            await client.open_stream(type=wrong)
        with pytest.raises(TypeError, match="priority"):
            client.open_stream_nowait(priority=wrong)
        with pytest.raises(TypeError, match="data"):
            await stream.send_all(wrong)
        for kept in (client, server):
            await trio.aclose_forcefully(kept)
    async with server_session(memory_stream_pair()[0]) as session:  # it knows no version yet
        with pytest.raises(TypeError, match="code"):
            await session.goaway(wrong)
        with pytest.raises(TypeError, match="debug"):
            await session.goaway(debug=wrong)
        await trio.aclose_forcefully(session)
    pool = SessionPool()
    with pytest.raises(TypeError, match="type"):
        await pool.open_stream(type=wrong)
    with pytest.raises(TypeError, match="attempts"):
        await pool.request(is_async, attempts=wrong)


async def test_other_buffers_than_bytes_are_sent() -> None:
    import array

    async with open_session_pair() as (client, server):
        stream = await client.open_stream()
        await stream.send_all(array.array("H", [0x4141, 0x4242]))  # type: ignore[arg-type]
        await stream.send_all(memoryview(b"abcd")[1:3])
        theirs = await server.accept_stream()
        received = b""
        while len(received) < 6:
            received += await theirs.receive_some()
        assert received == b"AABBbc"
        await server.goaway(ErrorCode.NO_ERROR, bytearray(b"bye"))  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        with pytest.raises(MuxadoError) as caught:
            await client.open_stream()
        assert caught.value.debug == b"bye"


async def test_debug_text_is_copied_before_it_waits() -> None:
    config = MuxadoConfig(heartbeat=None)
    async with open_session_pair(config=config) as (client, server):
        debug: Any = bytearray(b"at the call")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.goaway, 16, debug)  # it waits for the client's first bytes
            await wait_all_tasks_blocked()
            debug[:] = b"changed after that, and longer"
            await (await client.open_stream()).aclose()
        await server.aclose()
        reason = await client.wait_closed()
        assert (reason.code, reason.debug) == (16, b"at the call")


def test_extensions_are_copied() -> None:
    handlers: dict[int, Any] = {7: is_async}
    config = MuxadoConfig(extensions=handlers)
    handlers.clear()
    handlers["x"] = 5  # type: ignore[index]
    assert config.extensions == {7: is_async}
    with pytest.raises(TypeError, match="replace"):
        config.extensions[8] = is_async  # type: ignore[index]


# ---- handlers that return nothing to await

NO_HANDLERS: dict[str, Callable[..., Any]] = {
    "None": lambda *args: None,
    "a number": lambda *args: 5,
    "a class": lambda *args: object(),
}


async def generator(*args: object) -> AsyncGenerator[int, None]:
    yield 1


NO_HANDLERS["a generator"] = generator


@pytest.mark.parametrize("name", NO_HANDLERS)
async def test_a_handler_that_is_not_async_is_named(name: str, mock_clock: MockClock) -> None:
    handler = NO_HANDLERS[name]
    shown = getattr(handler, "__name__", "")

    with pytest.raises(TypeError, match="handler must be an async function") as caught:
        async with open_session_pair() as (client, server):
            await (await client.open_stream()).send_all(b"x")
            await server.serve_streams(handler)
    assert shown in str(caught.value)

    pool = SessionPool()
    async with open_session_pair(config=QUIET) as (client, server):
        pool.add(client)
        with pytest.raises(TypeError, match="work must be an async function"):
            await pool.request(handler)
        await wait_all_tasks_blocked()
        assert not client.statistics().streams

    extension = MuxadoConfig(extensions={0xFFFFFF00: handler})
    with pytest.raises(TypeError, match="handler must be an async function"):
        async with open_session_pair(server_config=extension) as (client, server):
            stream = await client.open_stream(type=0xFFFFFF00)
            with pytest.raises(MuxadoError):
                await stream.receive_some()
            await server.wait_closed()


@pytest.mark.parametrize("name", NO_HANDLERS)
@pytest.mark.parametrize("with_stop", [False, True])
async def test_a_session_handler_that_is_not_async_is_named(name: str, with_stop: bool) -> None:
    handler = NO_HANDLERS[name]

    async def serves() -> None:
        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    trio_muxado.serve_muxado_listeners,
                    handler,
                    [listener],
                    stop=trio.Event() if with_stop else None,
                )
            )
            async with client_session(await listener.connect()) as session:
                await session.wait_closed()

    async def connect() -> trio.abc.Stream:
        return memory_stream_pair()[0]

    for call in (serves, partial(dial_muxado, handler, "h", 0, connect=connect)):
        (error,) = leaves(await outcome_of(call))
        assert isinstance(error, TypeError)
        assert "handle_session must be an async function" in str(error)


async def test_what_connect_returns_is_looked_at() -> None:
    async def nothing() -> Any:
        return None

    cases: list[tuple[Any, str]] = [
        (nothing, "what connect returns"),
        (lambda: None, "connect must be an async function"),
    ]
    for connect, text in cases:
        with pytest.raises(TypeError, match=text):
            await dial_muxado(is_async, "h", 0, connect=connect)


async def test_a_handler_that_was_called_by_mistake_is_no_warning() -> None:
    async with open_session_pair() as (client, _):
        with pytest.raises(TypeError, match="not what calling one returns"):
            await client.serve_streams(is_async())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not what calling one returns"):
        await serve_muxado(is_async(), 0)  # type: ignore[arg-type]


def test_a_pause_after_any_number_of_failures_is_counted_at_once() -> None:
    """Of ints it would be a power with millions of digits."""
    assert Backoff(first=1, factor=2, longest=60, jitter=0).pause(10**9) == 60


async def test_a_line_of_any_size_is_refused_or_made() -> None:
    assert Link(latency=1e10, bandwidth=1e308)
