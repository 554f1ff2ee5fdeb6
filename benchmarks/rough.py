"""The first milestone in one run: `python -m benchmarks.rough`.

Requests at 64 at once against a new TCP connection each and against Go muxado v1;
bulk on one stream against the same. Interleaved, a few minutes at most, ratios only.
"""

from __future__ import annotations

import argparse

from ._build import BUILD
from ._measure import Settings, raise_file_limit
from ._registry import CONTENDERS, WORKS
from ._report import OURS, Spread, ratio
from .run import prepare, run_once

# The work, and whom ours is compared with; raw TCP is the limit of bulk, not a rival.
COMPARED = {"a64": ("trio-tcp", "go-v1"), "b": ("go-v1", "trio-tcp")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    raise_file_limit()
    BUILD.mkdir(exist_ok=True)
    for work in WORKS:
        if work.name not in COMPARED:
            continue
        names = (*OURS, *COMPARED[work.name])
        contenders = [contender for contender in CONTENDERS if contender.name in names]
        titles = {contender.name: contender.title for contender in contenders}
        outcomes = prepare(work, contenders)
        settings = Settings(args.rounds, args.seconds)
        for turn in range(settings.rounds):
            run_once(work, contenders, outcomes, settings, turn)
        metric = work.metrics[0]
        for name, outcome in outcomes.items():
            spread = Spread.of(outcome.values(metric))
            figures = spread.text(0) if spread else f"none: {outcome.skipped or 'failed'}"
            print(f"{work.name}: {titles[name]}: {figures} {metric.title}")
        for ours in OURS:
            for other in COMPARED[work.name]:
                if times := ratio(metric, outcomes[ours], outcomes[other]):
                    print(f"{work.name}: {titles[ours]} / {titles[other]} = {times.text(2)}")


if __name__ == "__main__":
    main()
