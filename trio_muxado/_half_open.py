"""A deadline for streams that are half-open: of a type that never comes, or ended by one side.

The protocol knows which streams those are, and no clock.  The timer looks from time to time: to
note each stream's change of state would cost every stream something.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ._protocol.errors import ErrorCode
from ._protocol.states import UNTYPED

if TYPE_CHECKING:
    from ._protocol.stream import Stream
    from ._protocol.streams import Streams

logger = logging.getLogger("trio_muxado")

LOOKS = 4
"""How often it looks within the timeout, so a stream gets at most a quarter more than that."""


class HalfOpenTimer:
    """Expires every stream that has been half-open for ``timeout`` seconds.

    ``expire(stream, code, message)`` resets a stream and reports that to its application.
    """

    gives_up = True

    def __init__(
        self,
        streams: Streams,
        expire: Callable[[Stream, ErrorCode, str], None],
        timeout: float,
    ) -> None:
        self._streams = streams
        self._expire = expire
        self._timeout = timeout
        self._since: dict[tuple[Stream, bool], float] = {}
        self.due = trio.current_time()

    def stood_still(self, now: float, late: float) -> None:
        self._since = {key: since + late for key, since in self._since.items()}

    def ring(self, now: float) -> None:
        since: dict[tuple[Stream, bool], float] = {}
        for stream in self._streams.half_open():
            # A type that came in time begins a life of its own.
            key = (stream, stream.custody is UNTYPED)
            since[key] = self._since.get(key, now)
            if now - since[key] >= self._timeout:
                message = f"the stream was half-open for {self._timeout:g} s"
                self._expire(stream, ErrorCode.STREAM_CANCELLED, message)
                logger.debug("%r was reset: %s", stream, message)
        self._since = since
        self.due = now + self._timeout / LOOKS
