"""The nursery under a session: one exception comes out of it bare."""

import pytest
import trio
import trio.testing

from trio_muxado._nursery import open_bare_nursery


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
