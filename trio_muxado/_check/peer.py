"""Playing many vectors to one peer, a connection for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from .player import Result, play
from .vectors import Vector


async def play_all(
    vectors: Sequence[Vector],
    open_connection: Callable[[], AbstractAsyncContextManager[trio.abc.Stream]],
    *,
    at_once: int = 1,
    timeout: float = 2.0,
    on_result: Callable[[Result], Any] | None = None,
) -> list[Result]:
    """Play vectors to an echo peer; what it did with each, in the order of the vectors.

    Args:
      vectors: of ``echo_vectors``.
      open_connection: gives a new connection to the peer, as long as its ``async with`` lasts.
      at_once: connections that there are at the same time.
      timeout: seconds for an answer that is due; most of a check is waiting for those that never
        come.
      on_result: called with each result, in the order in which they come.
    """
    results: dict[int, Result] = {}
    limit = trio.CapacityLimiter(at_once)

    async def check(number: int, vector: Vector) -> None:
        async with limit, open_connection() as stream:
            result = await play(vector, stream, timeout=timeout)
        results[number] = result
        if on_result is not None:
            on_result(result)

    async with trio.open_nursery() as nursery:
        for number, vector in enumerate(vectors):
            nursery.start_soon(check, number, vector)
    return [result for _, result in sorted(results.items())]
