"""The working tree against an earlier version: `python -m benchmarks.against REV`.

Counts first: they need no clock. Then both versions work by turns, a fraction of a second
each, in processes that wait side by side, so that a machine that wanders wanders for both. A
round has new processes. A ratio is the working tree's figure by REV's, of two slices that follow
each other; a round has the median of its pairs, and the table the median of the rounds. It never
fails on a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from . import _build
from ._compared import COMPARED, COUNTS, Compared, Pair, summary, table
from ._measure import Failed, raise_file_limit, serving
from ._registry import Work
from ._steps import Client, client
from ._versions import CONTENDER, Version, versions
from .run import RESULTS, machine, progress

SLICE = {"a": 0.15, "b": 0.3}
"""Seconds that a version works before it is the other one's turn, by kind of work.

Shorter ones have more of their beginning and end in them (bulk's windows grow first), longer ones
are fewer, and more happens on the machine from one to the next.
"""

NAMES = (COUNTS, *(work.name for work in COMPARED))


@contextmanager
def running(version: Version, wire: str, *, tls: bool, seed: int) -> Iterator[Client]:
    """A server and a client of a version."""
    command = version.command(CONTENDER, "--wire", wire)
    environ = version.environ(seed)
    serve, request = ["server"], ["steps"]
    if tls:
        certificate, trusted = _build.certificates()
        serve += ["--cert", certificate]
        request += ["--ca", trusted]
    with (
        serving([*command, *serve], cwd=version.folder, environ=environ) as port,
        client([*command, *request, "--port", str(port)], version.folder, environ) as one,
    ):
        yield one


def in_turn(clients: Sequence[Client], work: Work, seconds: float, number: int) -> list[Pair]:
    """The slices of a round; who is first changes each time: A B, B A, A B, B A."""
    slices = 1 if is_memory(work) else max(1, round(seconds / SLICE[work.arguments[0]]))
    pairs: list[Pair] = []
    for first in range(number, number + slices):
        order = (0, 1) if first % 2 == 0 else (1, 0)
        results = {who: clients[who].work(work.arguments, seconds / slices) for who in order}
        pairs.append((results[0], results[1]))
    return pairs


def one_round(
    versions: Sequence[Version], compared: Sequence[Compared], seconds: float, number: int
) -> None:
    """Everything that is to be compared, once.  What fails is noted there."""
    for group in groups(compared):
        start = partial(running, wire=group[0].wire, tls=group[0].work.tls, seed=number)
        # Whoever is started first may be slower by a hundredth or two, so that changes as well.
        newer_first = number // 2 % 2
        try:
            with (
                start(versions[newer_first]) as first,
                start(versions[1 - newer_first]) as second,
            ):
                clients = (second, first) if newer_first else (first, second)
                for one in group:
                    one.rounds.append(in_turn(clients, one.work, seconds, number))
        except Failed as error:
            progress(f"round {number + 1}: {error}")
            for one in group:
                if len(one.rounds) <= number:
                    one.rounds.append([])
                    one.failures.append(str(error))


def is_memory(work: Work) -> bool:
    return work.arguments[0] == "m"


def groups(compared: Sequence[Compared]) -> Iterator[list[Compared]]:
    """Works that share their processes; memory is measured in new ones."""
    together: dict[tuple[str, bool], list[Compared]] = {}
    for one in compared:
        if is_memory(one.work):
            yield [one]
        else:
            together.setdefault((one.wire, one.work.tls), []).append(one)
    yield from together.values()


def chosen(names: str | None) -> list[str]:
    picked = list(NAMES) if names is None else names.split(",")
    if unknown := [name for name in picked if name not in NAMES]:
        raise SystemExit(f"no such work: {', '.join(unknown)} (known: {', '.join(NAMES)})")
    return picked


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("rev", metavar="REV", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="of a work, in a round, for each version (1.5)"
    )
    parser.add_argument("--work", metavar="NAME,...", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--wire", choices=["v1", "v2"], help="only this one")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has trio")
    parser.add_argument("--json", type=Path, default=RESULTS / "against.json")
    return parser.parse_args(arguments)


def measure(
    versions: Sequence[Version], compared: Sequence[Compared], rounds: int, seconds: float
) -> None:
    start = time.perf_counter()
    for number in range(rounds if compared else 0):
        one_round(versions, compared, seconds, number)
        progress(f"round {number + 1} of {rounds}, {time.perf_counter() - start:.0f} s")


def main(arguments: Sequence[str] | None = None) -> None:
    args = options(arguments)
    wires = [args.wire] if args.wire else ["v1", "v2"]
    works = chosen(args.work)
    compared = [Compared(work, wire) for work in COMPARED if work.name in works for wire in wires]
    raise_file_limit()
    with versions(args.rev, args.python) as both:
        old, new = both
        document: dict[str, object] = {
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "old": {"commit": old.commit},
            "new": {"commit": new.commit, "changed": new.changed},
            "machine": machine(),
            "settings": {"rounds": args.rounds, "seconds": args.seconds},
        }
        found = [version.counts(wires if COUNTS in works else []) for version in both]
        measure(both, compared, args.rounds, args.seconds)
    counts = found[0].pop("counts"), found[1].pop("counts")
    document |= found[0]
    document["counts"] = {"old": counts[0], "new": counts[1]}
    document["summary"] = summary(compared)
    document["rounds"] = [vars(one) | {"work": one.work.name} for one in compared]
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(document, indent=1) + "\n")
    print(
        f"{old.commit[:7]} against the working tree, which is {new.commit[:7]}"
        f"{' with changes' if new.changed else ''}; Python {document['python']}, "
        f"trio {document['trio']}, {args.rounds} rounds"
    )
    print(table((old.commit[:7], "working tree"), compared, counts))


if __name__ == "__main__":
    main()
