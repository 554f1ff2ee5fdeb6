"""The nursery under a session: one exception comes out of it bare."""

import pytest
import trio

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
