"""What a request costs: both ends in one process, `python -m benchmarks.one_process`.

No other process disturbs the figures, so they show what one change gives; the least of many
runs is the figure. Task switches are counted, not timed.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import trio

from trio_muxado import open_muxado_session, serve_muxado

from ._common import HOST, StreamPeer
from .contenders.ours import config, handle_session

EACH = 1500  # requests in a run: long enough for the clock, short enough for a quiet moment


class Counter(trio.abc.Instrument):
    """How often tasks run, and how often the loop looks for I/O."""

    def __init__(self) -> None:
        self.steps = self.looks = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1

    def before_io_wait(self, timeout: float) -> None:
        self.looks += 1


async def requests(peer: StreamPeer, at_once: int) -> int:
    each = max(1, EACH // at_once)

    async def worker() -> None:
        for _ in range(each):
            await peer.request()

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)
    return each * at_once


async def measure(args: argparse.Namespace) -> None:
    choices = config(args)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(serve_muxado, handle_session, 0, host=HOST, config=choices)
        )
        port = listener.socket.getsockname()[1]
        async with open_muxado_session(HOST, port, config=choices) as session:
            peer = StreamPeer(session.open_stream)
            best, end = float("inf"), time.monotonic() + args.seconds
            while time.monotonic() < end:
                start = time.process_time()
                done = await requests(peer, args.at_once)
                best = min(best, (time.process_time() - start) / done)
            counter = Counter()
            trio.lowlevel.add_instrument(counter)
            done = await requests(peer, args.at_once)
            trio.lowlevel.remove_instrument(counter)
        nursery.cancel_scope.cancel()
    print(
        f"{args.wire}, {args.at_once} at once, both ends: {best * 1e6:.1f} us of CPU, "
        f"{counter.steps / done:.2f} task switches, {counter.looks / done:.2f} looks for I/O"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wire", choices=["v1", "v2"], default="v2")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    trio.run(measure, args)


if __name__ == "__main__":
    main()
