"""What a request and a session cost, counted: no clock has a say.

Both sides run in one process. Trio runs the tasks that are ready in an order of chance, so that
nobody relies on one. Here they run oldest first, and once more youngest first, and the lower count
is the figure; and trio's clock stands still. So the counts are the same in every run. Tests hold
them, and `benchmarks.against` compares them.
"""

from __future__ import annotations

import gc
import json
import platform
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any

import trio
import trio._core._run as trio_run
from trio.testing import wait_all_tasks_blocked

from ._common import HOST, SMALL, ByteStream, StreamPeer, answer
from .contenders import ours

AT_ONCE = {1: 20, 64: 5}  # workers, and the requests of each
TIMES = 9
"""Of a session.  Closing one looks at what the system still holds of its bytes, and so one time in
ten, on a busy machine, trio makes some calls less."""

Counts = dict[str, float]

# "Calls" are those of Python's functions, ours and trio's together.
OF_REQUEST = ("calls, ours", "calls", "task switches", "frames", "transport writes")
OF_CONNECTION = ("nurseries", "cancel scopes", "tasks", "turns")
OF_SESSION = (*OF_CONNECTION, "calls, ours", "calls")

WRITES = {"socket.send", "socket.sendmsg", "writev"}
"""The system's calls by which bytes leave a socket."""


class StandingClock(trio.abc.Clock):
    """Time in which nothing falls due. It makes as many calls as trio's own clock."""

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return 1e6

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()


class ByAge:
    """Stands in for trio's source of chance: what is ready runs oldest first, or youngest first."""

    def __init__(self, *, youngest_first: bool) -> None:
        self._youngest_first = youngest_first

    def shuffle(self, batch: list[trio.lowlevel.Task]) -> None:
        if self._youngest_first:
            batch.reverse()


@contextmanager
def without_chance(*, youngest_first: bool) -> Iterator[None]:
    """Let trio run tasks in the same order every time, and collect no garbage of others."""
    was = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    trio_run._r = ByAge(youngest_first=youngest_first)  # type: ignore[assignment]
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # as pytest-trio does
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = was  # type: ignore[misc]


OURS = str(ours.PACKAGE)
WORKLOAD = str(Path(__file__).parent)
CLOCK = {value.__code__ for value in vars(StandingClock).values() if hasattr(value, "__code__")}
BY_AGE = {  # what trio sorts by, only here
    code
    for code in trio_run.unrolled_run.__code__.co_consts
    if isinstance(code, CodeType) and code.co_name == "<lambda>"
}
MADE = {
    trio.Nursery.__init__.__code__: "nurseries",
    trio.CancelScope.__init__.__code__: "cancel scopes",
}


class Calls:
    """Counts Python's calls by whose code is called, and what some of them make.

    A coroutine that goes on after a wait is called once more, as the interpreter sees it.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._owners: dict[CodeType, str] = {}

    def _owner(self, code: CodeType) -> str:
        if code in BY_AGE:
            return "workload"
        if code.co_filename.startswith(OURS):
            return "calls, ours"
        if code.co_filename.startswith(WORKLOAD) and code not in CLOCK:
            return "workload"
        return "calls, trio's"  # with what it, and we, use of the standard library

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            owner = self._owners.get(code)
            if owner is None:
                owner = self._owners[code] = self._owner(code)
            self.counts[owner] += 1
            if code in MADE:
                self.counts[MADE[code]] += 1
        elif event == "c_call" and getattr(argument, "__qualname__", "") in WRITES:
            self.counts["transport writes"] += 1

    def __enter__(self) -> Counter[str]:
        sys.setprofile(self._profile)
        return self.counts

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


class Steps(trio.abc.Instrument):
    """Counts how often tasks run, how often the loop goes round, and tasks."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counts["task switches"] += 1

    def before_io_wait(self, timeout: float) -> None:
        self.counts["turns"] += 1

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.counts["tasks"] += 1

    def __enter__(self) -> Counter[str]:
        trio.lowlevel.add_instrument(self)
        return self.counts

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)


async def _counted(work: Callable[[], Awaitable[None]], times: int = 1) -> Counter[str]:
    """Count a work, once by what tasks do and once by calls: an instrument costs trio calls.

    Turns are counted until the work is done, the rest until nothing moves any more.  Of several
    ``times`` each count is the median.
    """
    await work()  # what only the first one costs
    await wait_all_tasks_blocked()
    found = []
    for _ in range(times):
        with Steps() as steps:
            await work()
            turns = steps["turns"]
            await wait_all_tasks_blocked()
        with Calls() as calls:
            await work()
            await wait_all_tasks_blocked()
        found.append({**steps, **calls, "turns": turns})
    return Counter({name: median(counts[name] for counts in found) for name in found[0]})


def _run(work: Callable[..., Awaitable[Counter[str]]], *args: Any) -> Counter[str]:
    """The lower of the counts in both orders."""
    in_both = []
    for youngest_first in (False, True):
        with without_chance(youngest_first=youngest_first):
            in_both.append(trio.run(work, *args, clock=StandingClock()))
    return in_both[0] & in_both[1]


# ---------------------------------------------------------------- a request


async def _requests(wire: str, at_once: int) -> Counter[str]:
    async with ours.server(answer) as port, ours.session_to(port, wire) as session:
        peer = StreamPeer(session.open_stream)

        async def worker() -> None:
            for _ in range(AT_ONCE[at_once]):
                await peer.request()

        async def work() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(worker)

        counts = await _counted(work)
        before = ours.frames(session)
        await work()
        counts["frames"] = ours.frames(session) - before
        return counts


def of_request(wire: str, at_once: int) -> Counts:
    """Of a request, both sides together: open, 64 bytes, end; 64 bytes back, end."""
    counts = _run(_requests, wire, at_once)
    counts["calls"] = counts["calls, ours"] + counts["calls, trio's"]
    return {name: round(counts[name] / (AT_ONCE[at_once] * at_once), 2) for name in OF_REQUEST}


# ---------------------------------------------------------------- a session


async def echo(stream: ByteStream) -> None:
    while chunk := await stream.receive_some(SMALL):
        await stream.send_all(chunk)


async def _exchange(stream: trio.abc.Stream) -> None:
    async with stream:
        await stream.send_all(b"x")
        await stream.receive_some(1)


async def _sessions(wire: str) -> Counter[str]:
    async with ours.server(echo) as port:

        async def work() -> None:
            async with ours.session_to(port, wire) as session:
                await _exchange(await session.open_stream())

        return await _counted(work, TIMES)


async def _connections() -> Counter[str]:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host=HOST))
        port = listener.socket.getsockname()[1]

        async def work() -> None:
            await _exchange(await trio.open_tcp_stream(HOST, port))

        counts = await _counted(work, TIMES)
        nursery.cancel_scope.cancel()
        return counts


def of_session(wire: str) -> Counts:
    """From connecting to having closed, with one byte each way; both sides together."""
    counts = _run(_sessions, wire)
    counts["calls"] = counts["calls, ours"] + counts["calls, trio's"]
    return {name: counts[name] for name in OF_SESSION}


def of_connection() -> Counts:
    """The same of a TCP connection on trio, without a session."""
    counts = _run(_connections)
    return {name: counts[name] for name in OF_CONNECTION}


def main() -> None:
    """Print all counts of the library that is imported, as JSON."""
    wires = sys.argv[1:]
    report = {
        "library": str(ours.PACKAGE),
        "python": platform.python_version(),
        "trio": trio.__version__,
        "counts": counts(wires),
    }
    print(json.dumps(report))


def counts(wires: Sequence[str]) -> dict[str, dict[str, Counts]]:
    """By wire, what is counted, and of what."""
    return {
        wire: {
            **{f"request, {n} at once": of_request(wire, n) for n in AT_ONCE},
            "session": of_session(wire),
        }
        for wire in wires
    }


if __name__ == "__main__":
    main()
