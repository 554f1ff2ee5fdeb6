"""What the opener of streams does: everything that streams go through, in any order."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, TypeAlias

import trio

from tests.interop.stream_protocol import STREAM_ENDED, Incoming, pattern
from trio_muxado import ErrorCode
from trio_muxado._nursery import leaves, without_cancelled

from .account import Account

if TYPE_CHECKING:
    from trio_muxado import MuxadoSession, MuxadoStream

AT_ONCE = 12
"""Streams at once in a session: fewer than any peer refuses."""

BULK = 300_000
"""Bytes: more than any initial window."""


class Opener:
    """Opens streams on one session, and counts them."""

    def __init__(
        self, session: MuxadoSession, account: Account, lane: str, *, breaks: bool = False
    ) -> None:
        self.session = session
        self.account = account
        self.lane = lane
        self.breaks = breaks
        """The session will break under its streams."""
        self.opened = 0

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[MuxadoStream, None]:
        stream = await self.session.open_stream()
        self.opened += 1
        self.account.running += 1
        try:
            async with stream:
                yield stream
        finally:
            self.account.running -= 1

    async def ask(self, line: str, body: bytes = b"") -> bytes:
        """The whole answer to a line and what belongs to it."""
        async with self.stream() as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._say, stream, line, body)
                return await Incoming(stream).rest()

    async def _say(self, stream: MuxadoStream, line: str, body: bytes) -> None:
        await stream.send_all(line.encode() + b"\n" + body)
        await stream.send_eof()

    def check(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self.account.fault(
                f"{self.lane}: {what}: {str(got)[:200]!r}, not {str(wanted)[:200]!r}"
            )


async def echo(opener: Opener, random: Random) -> None:
    body = pattern(random.randrange(65521), random.choice((1, 64, 1000, 5000)))
    opener.check("echo", await opener.ask("echo", body), body)


async def bulk_echo(opener: Opener, random: Random) -> None:
    body = pattern(random.randrange(65521), BULK)
    opener.check("bulk echo", await opener.ask("echo", body), body)


async def upload(opener: Opener, random: Random) -> None:
    body = pattern(random.randrange(65521), BULK)
    answer = await opener.ask("digest", body)
    opener.check("upload", answer.decode(), hashlib.sha256(body).hexdigest())


async def download(opener: Opener, random: Random) -> None:
    opener.check("download", await opener.ask(f"source {BULK}"), pattern(0, BULK))


async def half_close(opener: Opener, random: Random) -> None:
    body = pattern(0, random.randrange(40_000))
    got = await opener.ask("answer-after-eof", body)
    opener.check("half-close", got, b"got %d" % len(body))


async def open_back(opener: Opener, random: Random) -> None:
    opener.check("open-back", await opener.ask("open-back 4"), b"ok")


async def cancelled(opener: Opener, random: Random) -> None:
    """An upload that is cancelled anywhere, or just not."""
    body = pattern(0, 2 * BULK)
    with trio.move_on_after(random.random() ** 3 / 10):
        answer = await opener.ask("digest", body)
        opener.check("digest", answer.decode(), hashlib.sha256(body).hexdigest())
        return
    opener.account.outcomes["cancelled here"] += 1


async def reset_here(opener: Opener, random: Random) -> None:
    async with opener.stream() as stream:
        await stream.send_all(b"source 2000000\n")
        await Incoming(stream).exactly(10_000)
        await stream.reset(random.choice((ErrorCode.STREAM_CANCELLED, ErrorCode.INTERNAL_ERROR)))
    opener.account.outcomes["reset here"] += 1


async def reset_there(opener: Opener, random: Random) -> None:
    async with opener.stream() as stream:
        await stream.send_all(b"reset 7\n")
        try:
            for _ in range(5000):
                await stream.send_all(b"more")
                await trio.sleep(0.005)
        except trio.BrokenResourceError:
            opener.account.outcomes["reset there"] += 1
        else:
            opener.account.fault(f"{opener.lane}: no RST came")


async def left_unread(opener: Opener, random: Random) -> None:
    """The answer is longer than anybody wants to read."""
    async with opener.stream() as stream:
        await stream.send_all(b"source 2000000\n")
        await Incoming(stream).exactly(random.randrange(1, 10_000))
    opener.account.outcomes["left unread"] += 1


async def given_up(opener: Opener, random: Random) -> None:
    """Opened, and closed again before a word was said."""
    async with opener.stream():
        pass
    opener.account.outcomes["given up"] += 1


Work: TypeAlias = Callable[[Opener, Random], Awaitable[None]]

WORK: dict[Work, int] = {
    echo: 24,
    bulk_echo: 1,
    upload: 1,
    download: 1,
    half_close: 4,
    open_back: 1,
    cancelled: 4,
    reset_here: 2,
    reset_there: 1,
    left_unread: 1,
    given_up: 2,
}
"""How often each is done, of 42 times."""


async def work(opener: Opener, random: Random, count: int) -> None:
    """Do ``count`` things, ``AT_ONCE`` at a time, until the session is over."""
    todo = random.choices(list(WORK), list(WORK.values()), k=count)

    async def worker() -> None:
        while todo and opener.session.close_reason is None:
            thing = todo.pop()
            try:
                await thing(opener, random)
            except BaseException as error:
                rest = without_cancelled(error)
                if rest is None:
                    raise
                _judge(opener, thing.__name__, rest)
                if not opener.session.can_open:
                    return
            else:
                opener.account.outcomes["done"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(worker)


def _judge(opener: Opener, name: str, error: BaseException) -> None:
    """A stream broke under its user: was that to be expected?"""
    ended = all(isinstance(leaf, (*STREAM_ENDED, EOFError)) for leaf in leaves(error))
    if not ended:
        raise error
    opener.account.outcomes["broken"] += 1
    if not opener.breaks:
        opener.account.fault(f"{opener.lane}: {name}: {[*leaves(error)]!r}")
