"""What users keep, compare, copy and send elsewhere behaves as data does."""

import copy
import dataclasses
import inspect
import io
import json
import multiprocessing
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import trio_muxado
from trio_muxado import (
    Backoff,
    CloseReason,
    DialLoss,
    ErrorCode,
    Forwarded,
    ForwardedDirection,
    Heartbeat,
    JsonLinesTracer,
    MuxadoConfig,
    MuxadoError,
    MuxadoStream,
    NoMoreStreamsError,
    SessionEndedError,
    SessionPool,
    SessionStatistics,
    StreamClosedError,
    StreamResetError,
    TableTracer,
    TracedFrame,
    client_session,
    forward,
)
from trio_muxado._blame import is_end_of_session
from trio_muxado._protocol.frames import Rst
from trio_muxado.testing import open_session_pair

from .helpers import Kind, each_wire, raw_session, session_pair, stream_pair

ERRORS = [
    value
    for value in vars(trio_muxado).values()
    if inspect.isclass(value) and issubclass(value, MuxadoError)
]


class Refused(StreamResetError):
    """An error of an application, made of something else."""

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}", code=16 + number, initiator="remote")
        self.numbers = [number]


def pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda thing: pickle.loads(pickle.dumps(thing, protocol))


PICKLES = [pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy]


def fields_of(error: MuxadoError) -> tuple[Any, ...]:
    return (error.args, str(error), error.code, error.initiator, error.debug, error.safe_to_retry)


# ---- errors


def an_error(kind: type[MuxadoError]) -> MuxadoError:
    return kind("text", code=ErrorCode.PEER_EOF, initiator="remote", debug=b"d", safe_to_retry=True)


@pytest.mark.parametrize("make", [*PICKLES, *COPIES])
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_survives(kind: type[MuxadoError], make: Callable[[Any], Any]) -> None:
    error = an_error(kind)
    error.__dict__["__notes__"] = ["a note"]  # add_note, which Python 3.10 hasn't
    again = make(error)
    assert type(again) is kind
    assert again is not error
    assert fields_of(again) == fields_of(error)
    assert again.__dict__["__notes__"] == ["a note"]
    assert len({error, again}) == 2  # as of any exception


@pytest.mark.parametrize("make", [*PICKLES, *COPIES])
def test_an_error_of_a_subclass_with_other_arguments_survives(make: Callable[[Any], Any]) -> None:
    again = make(Refused(4))
    assert type(again) is Refused
    assert fields_of(again) == fields_of(Refused(4))
    assert again.numbers == [4]


def test_a_deep_copy_shares_nothing_that_changes() -> None:
    error = Refused(4)
    error.__dict__["itself"] = error
    again = copy.deepcopy(error)
    again.numbers.append(5)
    assert error.numbers == [4]
    assert again.itself is again  # type: ignore[attr-defined]
    assert copy.copy(error).numbers is error.numbers


@each_wire
async def test_copies_know_their_session_and_pickles_do_not(kind: Kind) -> None:
    async with stream_pair(kind) as (near, far):
        await far.reset(16)
        error = await near.wait_broken()
        assert error.origin is not None
        for make in COPIES:
            assert make(error).origin is error.origin
        for make in PICKLES:
            assert make(error).origin is None
        assert error.origin is not None  # pickling has not changed it


@pytest.mark.parametrize("make", COPIES)
async def test_a_copy_is_judged_as_the_error_is(make: Callable[[Any], Any]) -> None:
    """What broke before is the cause of an error of a closed stream, and says whose fault it is."""
    async with raw_session(Kind("v1", "v1")) as (session, peer):
        stream = await session.open_stream()
        peer.send(peer.rst(stream.id, ErrorCode.INTERNAL_ERROR))
        await wait_all_tasks_blocked()
        await stream.aclose()
        with pytest.raises(StreamClosedError) as caught:
            await stream.send_all(b"x")
        again = make(caught.value)
        assert isinstance(again.__cause__, StreamResetError)
        assert again.__suppress_context__
        ending = session._engine.ending
        assert is_end_of_session(caught.value, ending)
        assert is_end_of_session(again, ending)


async def broken_session() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    async with client_session(near) as session:
        await session.accept_stream()


def fail() -> None:
    trio.run(broken_session)


def test_an_error_leaves_a_worker_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(SessionEndedError) as caught:
            pool.apply_async(fail).get(timeout=60)
    assert caught.value.code is ErrorCode.PEER_EOF
    assert caught.value.initiator == "transport"


# ---- error codes


@pytest.mark.parametrize("code", ErrorCode)
def test_a_code_says_its_numbers(code: ErrorCode) -> None:
    assert code.number("v2") == code.value
    assert 0 <= code.number("v1") < 8
    for make in (*PICKLES, *COPIES):
        assert make(code) is code


V1_NUMBERS = {"FRAME_SIZE_ERROR": 5, "STREAM_REFUSED": 6, "STREAM_CANCELLED": 7}


@each_wire
@pytest.mark.parametrize("code", ErrorCode)
async def test_the_number_of_a_code_is_what_is_sent(kind: Kind, code: ErrorCode) -> None:
    assert ErrorCode[code.name].number("v1") == V1_NUMBERS.get(code.name, code.number("v1"))
    async with raw_session(kind, heartbeat=None) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"x"))
        stream = await session.accept_stream()
        await stream.reset(code)
        version: Any = kind.wire
        assert await peer.frames() == [Rst(3, code.number(version))]


@pytest.mark.parametrize("version", [1, None, "v3", b"v1"])
def test_a_version_is_checked(version: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="version"):
        ErrorCode.NO_ERROR.number(version)


@each_wire
@pytest.mark.parametrize("code", [16, 17, 4711, 2**32 - 1])
async def test_from_16_on_a_code_is_the_applications(kind: Kind, code: int) -> None:
    """It arrives as it is, means nothing to the protocol, and is not safe to retry."""
    async with session_pair(kind, heartbeat=None) as (client, server):
        stream = await client.open_stream()
        await stream.send_all(b"x")
        await (await server.accept_stream()).reset(code)
        with pytest.raises(StreamResetError) as caught:
            await stream.receive_some()
        assert caught.value.code == code
        assert type(caught.value.code) is int
        assert not caught.value.safe_to_retry
        await server.goaway(code)
        await server.aclose()
        assert (await client.wait_closed()).code == code


@each_wire
@pytest.mark.parametrize("code", range(1, 16))
async def test_below_16_a_plain_number_is_not_taken(kind: Kind, code: int) -> None:
    async with stream_pair(kind) as (near, far):
        for call in near.reset, near.session.goaway:
            with pytest.raises(ValueError, match="code must be an ErrorCode"):
                await call(code)
        await near.send_all(b"nothing happened")
        assert await far.receive_some() == b"nothing happened"


async def test_a_forward_passes_on_no_number_that_means_something_else() -> None:
    """v1 has no code 9, and v2's says that the stream is safe to retry."""
    async with (
        raw_session(Kind("v1", "v1"), heartbeat=None) as (old, peer),
        session_pair(Kind("v2", "v2"), heartbeat=None) as (client, server),
    ):
        for number, seen in ((9, ErrorCode.STREAM_CANCELLED), (4711, 4711)):
            peer.send(peer.syn(3 if number == 9 else 5))
            came = await old.accept_stream()
            stream = await client.open_stream()
            await stream.send_all(b"x")
            theirs = await server.accept_stream()
            peer.send(peer.rst(came.id, number))
            assert not (await forward(came, stream)).clean
            error = await theirs.wait_broken()
            assert error.code == seen
            assert not error.safe_to_retry


# ---- configurations


async def handle(stream: MuxadoStream) -> None:
    pass


def trace(frame: TracedFrame) -> None:
    pass


class Service:
    """Has what cannot be copied."""

    def __init__(self) -> None:
        self.file = io.TextIOWrapper(io.BytesIO())

    async def handle(self, stream: MuxadoStream) -> None:
        pass


CONFIGS = {
    "default": MuxadoConfig(),
    "all": MuxadoConfig(
        wire="v2",
        typed=True,
        heartbeat=Heartbeat(1, 2),
        extensions={7: handle},
        tracer=trace,
        max_outbound_streams=None,
        half_open_timeout=5,
    ),
    "table": MuxadoConfig(tracer=TableTracer()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_survives(name: str) -> None:
    config = CONFIGS[name]
    for make in (*PICKLES, *COPIES, dataclasses.replace):
        again = make(config)
        assert type(again) is MuxadoConfig
        if name != "table":
            assert again == config
            assert hash(again) == hash(config)
            assert {config: 1}[again] == 1
        assert again.extensions == config.extensions
        with pytest.raises(TypeError):
            again.extensions[8] = handle  # type: ignore[index]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_as_a_dict(name: str) -> None:
    config = CONFIGS[name]
    values = dataclasses.asdict(config)
    assert list(values) == [field.name for field in dataclasses.fields(MuxadoConfig)]
    assert values["extensions"] == config.extensions
    heartbeat = values.pop("heartbeat")
    again = MuxadoConfig(**values, heartbeat=Heartbeat(**heartbeat))
    assert again == config


def test_the_default_configuration_as_json() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(MuxadoConfig())))["extensions"] == {}


def test_a_copy_of_a_configuration_has_the_same_handlers_and_the_same_tracer() -> None:
    service = Service()
    config = MuxadoConfig(extensions={7: service.handle}, tracer=JsonLinesTracer(sys.stderr))
    again = copy.deepcopy({"key": config})["key"]
    assert again.extensions[7].__self__ is service  # type: ignore[attr-defined]
    assert again.tracer is config.tracer


def test_tracers_of_any_file_leave_a_configuration_to_be_looked_at() -> None:
    file = io.TextIOWrapper(io.BytesIO())
    for tracer in TableTracer(file), JsonLinesTracer(file):
        assert dataclasses.asdict(MuxadoConfig(tracer=tracer))["tracer"] is tracer


def test_a_configuration_is_hashed_whatever_its_tracer_is() -> None:
    tracers: list[Any] = [[].append, TableTracer()]

    @dataclasses.dataclass
    class Collecting:  # has no hash
        frames: list[TracedFrame] = dataclasses.field(default_factory=list)

        def __call__(self, frame: TracedFrame) -> None:
            self.frames.append(frame)

    for tracer in (*tracers, Collecting()):
        assert hash(MuxadoConfig(tracer=tracer)) == hash(MuxadoConfig())


# ---- results

DIRECTION = ForwardedDirection(1, "eof")
REASON = CloseReason(ErrorCode.PEER_EOF, "transport", "gone", b"d", OSError(5, "broken"))
RESULTS: list[Any] = [
    Backoff(),
    Heartbeat(1, 2),
    DIRECTION,
    REASON,
    DialLoss("session", "gone", 1.0, an_error(SessionEndedError), REASON),
    Forwarded(DIRECTION, DIRECTION, an_error(StreamResetError)),
    TracedFrame(1.0, 1, "in", "DATA", 3, 5, ""),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_results_survive(result: Any) -> None:
    for make in (*PICKLES, *COPIES):
        again = make(result)
        assert type(again) is type(result)
        assert repr(again) == repr(result)
        assert isinstance(hash(again), int)
    assert dataclasses.asdict(result).keys() == {f.name for f in dataclasses.fields(result)}


@each_wire
async def test_statistics_survive(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        stream, other = await client.open_stream(), await client.open_stream()
        await stream.send_all(b"x")
        await other.send_eof()
        await wait_all_tasks_blocked()
        for session in client, server:
            statistics = session.statistics()
            values = dataclasses.asdict(statistics)
            assert values["streams"] == dict(statistics.streams)
            assert json.loads(json.dumps(values)) == values
            assert SessionStatistics(**values) == statistics
            for make in (*PICKLES, *COPIES):
                assert make(statistics) == statistics
                assert hash(make(statistics)) == hash(statistics)
        assert client.statistics().streams["open"] >= 1
        assert client.statistics().streams["no such state"] == 0


# ---- references


async def test_streams_sessions_and_pools_can_be_referred_to_weakly() -> None:
    async with open_session_pair() as (client, server):
        stream = await client.open_stream()
        await stream.send_all(b"x")
        theirs = await server.accept_stream()
        for thing in (stream, theirs, client, server, SessionPool(), SessionPool().hold):
            kept = weakref.WeakKeyDictionary({thing: "what belongs to it"})
            assert list(weakref.WeakSet([thing])) == [thing]
            assert kept[thing] == "what belongs to it"


async def test_a_stream_that_nobody_has_is_not_kept_by_a_weak_set() -> None:
    async with open_session_pair() as (client, _):
        streams = weakref.WeakSet([await client.open_stream()])
        if sys.implementation.name == "cpython":
            assert not streams


def test_no_error_is_left_out() -> None:
    assert {MuxadoError, NoMoreStreamsError} < set(ERRORS)
    assert len(ERRORS) == 8
