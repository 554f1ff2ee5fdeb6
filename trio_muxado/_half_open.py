"""A deadline for streams that are half-open: of a type that never comes, or ended by one end.

The protocol knows which streams those are, and no clock.  Here is the clock, and it looks from
time to time: to note each stream's change of state would cost every stream something.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ._protocol.errors import ErrorCode
from ._protocol.states import UNTYPED

if TYPE_CHECKING:
    from ._engine import Engine

logger = logging.getLogger("trio_muxado")

LOOKS = 4
"""How often it looks within the deadline, so a stream gets at most a quarter more than that."""


async def reset_half_open(engine: Engine, timeout: float) -> None:
    """Reset every stream that has been half-open for ``timeout`` seconds, for ever."""
    since: dict[tuple[object, bool], float] = {}
    while True:
        now = trio.current_time()
        seen: dict[tuple[object, bool], float] = {}
        for stream in engine.connection.streams.half_open():
            # A type that came in time begins a life of its own.
            key = (stream, stream.custody is UNTYPED)
            seen[key] = since.get(key, now)
            if now - seen[key] >= timeout:
                message = f"the stream was half-open for {timeout:g} s"
                engine.expire_stream(stream, ErrorCode.STREAM_CANCELLED, message)
                logger.debug("%r was reset: %s", stream, message)
        since = seen
        await trio.sleep(timeout / LOOKS)
