"""What a request costs: both sides in one process, `python -m benchmarks.one_process`.

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
from ._counting import Steps
from .contenders.ours import config, handle_session

EACH = 1500  # requests in a run: long enough for the clock, short enough for a quiet moment


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
            with Steps() as counts:
                done = await requests(peer, args.at_once)
        nursery.cancel_scope.cancel()
    print(
        f"{args.wire}, {args.at_once} at once, both sides: {best * 1e6:.1f} us of CPU, "
        f"{counts['task switches'] / done:.2f} task switches, "
        f"{counts['turns'] / done:.2f} passes of trio's loop"
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
