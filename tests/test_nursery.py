"""The nursery under a session: one exception comes out of it bare."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_muxado import MuxadoConfig, MuxadoStream, client_session, forward, server_session
from trio_muxado._nursery import leaves, open_bare_nursery
from trio_muxado.http._bare import errors_bare
from trio_muxado.tunnel._nursery import open_nursery as tunnel_nursery


async def test_a_bare_nursery_waits_for_its_tasks() -> None:
    done: list[str] = []

    async def task(name: str) -> None:
        await trio.lowlevel.checkpoint()
        done.append(name)

    async with open_bare_nursery() as nursery:
        nursery.start_soon(task, "task")
    assert done == ["task"]


async def test_a_bare_nursery_that_is_cancelled_while_it_waits() -> None:
    with trio.CancelScope() as scope:
        caught: BaseException | None = None
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
        except BaseException as error:
            caught = error
            raise
    assert type(caught) is trio.Cancelled
    assert scope.cancelled_caught


async def test_a_bare_nursery_prefers_a_failure_to_its_own_cancellation() -> None:
    async def crash() -> None:
        raise LookupError("bare")

    with pytest.raises(LookupError, match="bare"):
        async with open_bare_nursery() as nursery:
            nursery.start_soon(crash)
            await trio.sleep_forever()


async def test_a_task_that_fails_while_all_are_cancelled_comes_out_bare() -> None:
    """A task that trio has started in it, as ``serve_listeners`` does, is no second failure."""

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("bare")

    with trio.CancelScope() as scope, pytest.raises(LookupError, match="bare"):
        async with open_bare_nursery() as nursery:
            nursery.inner.start_soon(trio.sleep_forever)
            nursery.start_soon(fail_when_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert not scope.cancelled_caught


def bug() -> None:
    """Raises an error that has a context of its own."""
    try:
        raise LookupError("what was handled")
    except LookupError:
        raise ValueError("a bug")  # noqa: B904  (it is about the context)


async def buggy_task() -> None:
    bug()


async def _in_a_bare_nursery() -> None:
    async with open_bare_nursery() as nursery:
        nursery.start_soon(buggy_task)
        await trio.sleep_forever()


async def _in_a_handler() -> None:
    async def handler(stream: MuxadoStream) -> None:
        bug()

    near, far = trio.testing.memory_stream_pair()
    async with client_session(near) as client, server_session(far) as server:
        await client.open_stream()
        await server.serve_streams(handler)


async def _inside_a_session() -> None:
    def tracer(frame: object) -> None:
        bug()

    near, _ = trio.testing.memory_stream_pair()
    async with client_session(near, config=MuxadoConfig(tracer=tracer)) as session:
        await session.open_stream()
        await session.accept_stream()


async def _in_a_forward() -> None:
    near, far = trio.testing.memory_stream_pair()
    other, _ = trio.testing.memory_stream_pair()

    async def hook() -> None:
        bug()

    other.send_stream.send_all_hook = hook
    await far.send_all(b"x")
    try:
        raise KeyError("of whoever calls")
    except KeyError:
        await forward(near, other)


async def _in_a_nursery_of_a_tunnel() -> None:
    async with tunnel_nursery() as nursery:
        nursery.start_soon(buggy_task)
        await trio.sleep_forever()


async def _in_a_nursery_of_http() -> None:
    with errors_bare():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(buggy_task)
            await trio.sleep_forever()


@pytest.mark.parametrize(
    "fail",
    [
        _in_a_bare_nursery,
        _in_a_handler,
        _inside_a_session,
        _in_a_forward,
        _in_a_nursery_of_a_tunnel,
        _in_a_nursery_of_http,
    ],
)
async def test_what_is_raised_elsewhere_keeps_its_context(
    fail: Callable[[], Awaitable[None]],
) -> None:
    """Its traceback shows what was handled when it was raised, and nothing of ours."""
    with pytest.raises(ValueError, match="a bug") as caught:
        await fail()
    assert isinstance(caught.value.__context__, LookupError)
    assert not caught.value.__suppress_context__


async def _fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise LookupError("while cancelled")


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_cancellation_of_a_bare_nursery_stays_in_it(cancelled: bool) -> None:
    """The body's own nursery puts it in a group: then nobody outside could catch it."""
    crashed = trio.Event()

    async def crash() -> None:
        await crashed.wait()
        raise KeyError("the crash")

    caught: BaseException | None = None
    with trio.CancelScope() as scope:
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(crash)
                async with trio.open_nursery() as inner:
                    inner.start_soon(trio.sleep_forever)
                    inner.start_soon(_fail_when_cancelled)
                    await trio.testing.wait_all_tasks_blocked()
                    crashed.set()
                    if cancelled:
                        scope.cancel()
        except BaseException as error:
            caught = error
    kinds = {type(leaf) for leaf in leaves(caught)} if caught is not None else set()
    assert kinds == ({trio.Cancelled, LookupError} if cancelled else {LookupError})


async def test_a_crash_in_a_session_comes_out_of_the_nursery_of_its_body() -> None:
    """What the body heard of it is nothing but the crash, also beside a cancellation."""
    boom = LookupError("the crash")
    calls = 0

    def tracer(frame: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise boom

    async def clean_up_slowly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()

    near, _ = trio.testing.memory_stream_pair()
    caught: BaseException | None = None
    try:
        async with client_session(near, config=MuxadoConfig(tracer=tracer)) as session:
            stream = await session.open_stream()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clean_up_slowly)
                nursery.start_soon(stream.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                await session.open_stream()
                await trio.sleep_forever()
    except BaseException as error:
        caught = error
    assert caught is boom
