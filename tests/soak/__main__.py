"""``python -m tests.soak --minutes N``: run it, write down what is seen, and judge.

Every ten seconds, and at the end of each round, a line of JSON goes to ``FOLDER/soak.jsonl``; the
last one is the verdict.  ``--page`` makes the run the one that the documentation shows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, TextIO

import pytest
import trio
import trio.testing

from benchmarks._versions import head
from tests.interop.build import PEERS, Peer, binary_of
from trio_muxado._nursery import leaves, without_cancelled

from .account import MIB, Account, Holdings
from .lanes import SESSION_TIMEOUT, Lane, lanes_for
from .page import publish
from .picture import summary

SAMPLE_EVERY = 10.0
ROUND = 10.0
"""Seconds in which a lane begins something new; then it finishes what it does."""

WARM_UP = 3
"""Rounds after which memory is looked at: by then everything has been used once."""

GROWTH = MIB / 100_000
"""Bytes for each stream by which memory may grow after the warm-up."""

NOISE = 8 * MIB
"""By which it may grow in any case: an allocator gives back what it likes, and a run of a minute
is too short to tell that from a leak."""


class Run:
    """One run of the soak."""

    def __init__(self, lanes: list[Lane], seed: int, out: TextIO) -> None:
        self._lanes = lanes
        self._random = Random(seed)
        self._out = out
        self._spent = 0.0  # seconds in rounds that are over
        self._began = time.monotonic()  # the present one
        self.account = Account()
        self.rounds: list[tuple[int, Holdings]] = []  # streams so far, and what was held

    def write(self, kind: str, **figures: Any) -> None:
        seconds = self._spent + time.monotonic() - self._began
        line = {"kind": kind, "seconds": round(seconds, 1), **figures}
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()

    async def run(self, minutes: float) -> None:
        """Round after round, for that long."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample)
            while self._spent < 60 * minutes or len(self.rounds) <= WARM_UP:
                self._began = time.monotonic()
                async with trio.open_nursery() as lanes:
                    for lane in self._lanes:
                        lanes.start_soon(self._run_lane, lane, Random(self._random.random()))
                await trio.testing.wait_all_tasks_blocked(0.05)
                self._spent += time.monotonic() - self._began
                self._began = time.monotonic()
                self._balance()
            nursery.cancel_scope.cancel()

    async def _sample(self) -> None:
        while True:
            await trio.sleep(SAMPLE_EVERY)
            self.write("sample", **self.account.figures(), running=self.account.running)

    async def _run_lane(self, lane: Lane, random: Random) -> None:
        until = time.monotonic() + ROUND
        while time.monotonic() < until:
            try:
                with trio.fail_after(SESSION_TIMEOUT):
                    await lane.run(self.account, random, lane.name)
            except BaseException as error:
                rest = without_cancelled(error)
                if rest is None:
                    raise
                self.account.fault(f"{lane.name}: {[*leaves(rest)]!r}")

    def _balance(self) -> None:
        """No session lives: nothing is held that was not held before."""
        account, held = self.account, Holdings.look()
        self.rounds.append((account.streams, held))
        self.write("round", **account.figures(), **asdict(held), faults=len(account.faults))
        first = self.rounds[0][1]
        if account.running:
            account.fault(f"{account.running} streams began and never ended")
        if len(self.rounds) > WARM_UP:
            first = self.rounds[WARM_UP - 1][1]
            for name in ("tasks", "files", "objects"):
                if getattr(held, name) > getattr(first, name):
                    account.fault(f"{name}: {getattr(held, name)}, not {getattr(first, name)}")

    def verdict(self) -> dict[str, Any]:
        """The last line: what was done, and what was wrong."""
        streams, warm = self.rounds[WARM_UP - 1]
        count, held = self.rounds[-1]
        grown, since = held.resident - warm.resident, count - streams
        if grown > max(NOISE, GROWTH * since):
            self.account.fault(f"memory grew by {grown} bytes in {since} streams")
        return {
            "passed": not self.account.faults,
            "lanes": [lane.name for lane in self._lanes],
            "rounds": len(self.rounds),
            **self.account.figures(),
            "warm": {"streams": streams, **asdict(warm)},
            "last": asdict(held),
            "grown": grown,
            "mib_per_100000_streams": round(grown / MIB / since * 100_000, 3) if since else None,
            "faults": self.account.faults,
        }


def built(peers: list[Peer]) -> Iterator[tuple[Peer, Path]]:
    """The peers that can be built; with CI=true, one that can't is an error."""
    for peer in peers:
        try:
            yield peer, binary_of(peer)
        except pytest.skip.Exception as missing:
            sys.stderr.write(f"without {peer.title}: {missing}\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="of what is chosen at random")
    parser.add_argument("--only", default="", help="lanes whose names begin like one of these,")
    parser.add_argument("--folder", type=Path, default=Path("tests/soak/.results"))
    parser.add_argument("--page", action="store_true", help="show the run in docs/proofs.md")
    choices = parser.parse_args()
    log = choices.folder / "soak.jsonl"
    seed = int.from_bytes(os.urandom(4), "big") if choices.seed is None else choices.seed
    lanes = lanes_for(dict(built(PEERS)))
    if choices.only:
        lanes = [lane for lane in lanes if lane.name.startswith(tuple(choices.only.split(",")))]
    choices.folder.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as out:
        run = Run(lanes, seed, out)
        trio.run(run.run, choices.minutes)
        verdict = run.verdict()
        run.write("verdict", seed=seed, minutes=choices.minutes, **verdict)
    sys.stdout.write(json.dumps(verdict, indent=2) + "\n")
    if choices.page:
        lines = [json.loads(line) for line in log.open(encoding="utf-8")]
        commit, changed = head()
        publish({"commit": commit, "changed": changed, **summary(lines)})
    if not verdict["passed"]:
        sys.exit("the soak failed")


if __name__ == "__main__":
    main()
