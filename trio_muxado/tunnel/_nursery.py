"""A nursery that lets an error out as it is, not in a group."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import cast

import trio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

logger = logging.getLogger("trio_muxado.tunnel")


@asynccontextmanager
async def open_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Like :func:`trio.open_nursery`, but raises the first error itself, and logs the others."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = [leaf for leaf in _leaves(group) if not isinstance(leaf, trio.Cancelled)]
        if not errors:
            raise
        errors.sort(key=lambda error: isinstance(error, Exception))  # Ctrl+C comes first
        for other in errors[1:]:
            logger.error("a task failed while another error was raised", exc_info=other)
        failure = errors[0]
    else:
        return
    context = failure.__context__
    try:
        raise failure
    finally:
        failure.__context__ = context  # what its own code handled, not what is handled here


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
