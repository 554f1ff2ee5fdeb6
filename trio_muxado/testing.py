"""For tests of programs that use trio_muxado: pairs of sessions, and a link that misbehaves.

Nothing here opens a socket or looks at another clock than trio's.  With
:class:`trio.testing.MockClock` as the clock, all that happens on a :class:`Link` happens at exact
moments, and a test takes no time.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import trio
import trio.testing

from . import MuxadoConfig, MuxadoSession, client_session, server_session
from ._checks import check_hook, check_instance, check_stream
from ._config import check_config
from ._line import ENDLESS_LINE, READ_SIZE, Line, LineEnd
from ._protocol.checks import check_bytes, check_choice, check_int, check_number, shown

__all__ = ["Link", "open_session_pair"]

DEFAULT_CONFIG = MuxadoConfig()

_SEGMENT_TIME = 0.001
"""Seconds that a segment takes at most, so that what arrives trickles also on slow lines."""

_SMALLEST_SEGMENT = 1500
"""Bytes; a packet of Ethernet.  Less would only cost time of the processor."""


@asynccontextmanager
async def open_session_pair(
    *,
    config: MuxadoConfig = DEFAULT_CONFIG,
    server_config: MuxadoConfig | None = None,
    link: Link | tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> AsyncGenerator[tuple[MuxadoSession, MuxadoSession], None]:
    """Two sessions that talk to each other: ``async with open_session_pair() as (client, server)``.

    Both are what :func:`~trio_muxado.client_session` and :func:`~trio_muxado.server_session` give.
    Leaving the block ends the server's session gracefully and the client's with it; an exception
    or a cancellation ends both at once and comes out as it is.

    Args:
      config: choices and limits of the client, and of the server where it has none of its own.
      server_config: choices and limits of the server.
      link: what connects the two.  A :class:`Link`, for latency, bandwidth and accidents; or two
        connected streams of any kind, the client's first, such as
        :func:`trio.testing.lockstep_stream_pair`, which buffers nothing.  None is
        :func:`trio.testing.memory_stream_pair`: no latency, and it accepts any amount.

    A server that detects the protocol version can't do so before its client has sent something.  So
    without heartbeats let the client open the first stream, or set ``MuxadoConfig.wire``.

    Raises:
      TypeError: a wrong argument.
    """
    check_config(config)
    if server_config is not None:
        check_config(server_config, "server_config")
    if link is None:
        link = trio.testing.memory_stream_pair()
    elif isinstance(link, Link):
        link = (link.client, link.server)
    try:
        near, far = link
    except (TypeError, ValueError):
        raise TypeError(f"link must be a Link or two streams, not {shown(link)}") from None
    check_stream("link", near)
    check_stream("link", far)
    async with (
        client_session(near, config=config) as client,
        server_session(far, config=server_config or config) as server,
    ):
        yield client, server


class Link:
    """A connection in memory that is as slow as you say, and breaks when you say.

    Its two sides are streams.  Give the link to :func:`open_session_pair`, or the sides to anything
    that takes streams.  They follow trio's rules for closed, broken and busy streams.

    ``send_all`` cuts its data into segments, as a network does, and returns once the last of them
    is on the line: after ``size / bandwidth`` seconds if nothing else was on it.  Each segment
    arrives ``latency`` seconds later.  When ``send_all`` is cancelled, what was on the line
    arrives, and the rest has not been sent.

    The other methods are for the test.  They take effect at once, never wait, and may be called
    from any task.

    Args:
      latency: seconds from one side to the other; a round trip takes twice as long.
      bandwidth: bytes per second in each direction.
      buffer: bytes of a direction that may be on their way or wait to be read; with more
        ``send_all`` waits for the reader.  None is what fills the line and 64 KiB more; where the
        bandwidth is infinite and the latency is not zero, 16 MiB fill the line.
      tap: called as ``tap("client", data)`` or ``tap("server", data)`` with each segment as that
        side puts it on the line.  It must not wait; what it raises leaves ``send_all``.

    Raises:
      TypeError, ValueError: a wrong argument, such as an infinite latency.
    """

    def __init__(
        self,
        latency: float = 0.0,
        bandwidth: float = math.inf,
        *,
        buffer: int | None = None,
        tap: Callable[[Literal["client", "server"], bytes], object] | None = None,
    ) -> None:
        check_number("latency", latency, least=0)
        check_number("bandwidth", bandwidth, endless=True)
        if buffer is not None:
            check_int("buffer", buffer, 1)
        if tap is not None:
            check_hook("tap", tap)
        if buffer is None:
            buffer = READ_SIZE
            if latency:
                line = bandwidth * latency
                buffer += ENDLESS_LINE if line == math.inf else math.ceil(line)
        segment = int(max(_SMALLEST_SEGMENT, min(_SEGMENT_TIME * bandwidth, READ_SIZE)))
        to_server = Line(latency, bandwidth, buffer, segment, tap and partial(tap, "client"))
        to_client = Line(latency, bandwidth, buffer, segment, tap and partial(tap, "server"))
        self._lines = {"client": to_client, "server": to_server}
        self._client = LineEnd(outgoing=to_server, incoming=to_client)
        self._server = LineEnd(outgoing=to_client, incoming=to_server)

    @property
    def client(self) -> trio.abc.HalfCloseableStream:
        """The client's side."""
        return self._client

    @property
    def server(self) -> trio.abc.HalfCloseableStream:
        """The server's side."""
        return self._server

    def cut(self, error: BaseException | None = None) -> None:
        """Break the link for good, at both sides at once.

        Everything that is on its way or was not read is lost.  Calls on either side, now or later,
        raise :exc:`trio.BrokenResourceError`, with ``error`` as its cause.

        Raises:
          TypeError: ``error`` is not an exception.
        """
        if error is not None:
            check_instance("error", error, BaseException, "an exception or None")
        for line in self._lines.values():
            line.cut(error)

    def freeze(self, to: Literal["client", "server"] | None = None) -> None:
        """Let nothing through, in the direction to one side or in both, and report nothing.

        What has arrived can still be read.  What is on its way stays where it is, and ``send_all``
        waits.  A cable that was pulled out looks like that.
        """
        for line in self._directions(to):
            line.freeze()

    def thaw(self, to: Literal["client", "server"] | None = None) -> None:
        """Let everything through again, in the direction to one side or in both.

        What was on its way goes on from where it stood: nothing is lost, all of it is late by as
        long as the link was frozen.
        """
        for line in self._directions(to):
            line.thaw()

    def inject(self, data: bytes, *, to: Literal["client", "server"]) -> None:
        """Let bytes arrive at one side that the other never sent.

        They travel after what is on the line in that direction, and take no bandwidth.

        Raises:
          trio.ClosedResourceError: the other side has ended that direction.
          trio.BrokenResourceError: the link was cut.
          TypeError, ValueError: a wrong argument; nothing arrives then.
        """
        check_bytes("data", data)
        check_choice("to", to, ("client", "server"))
        self._lines[to].inject(data)

    def _directions(self, to: Literal["client", "server"] | None) -> list[Line]:
        if to is None:
            return list(self._lines.values())
        check_choice("to", to, ("client", "server"))
        return [self._lines[to]]
