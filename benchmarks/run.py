"""The harness: `python -m benchmarks` from the root of the repository, or `nox -s bench`.

A round is every work once, and within a work all contenders take turns (A B C), so that a
machine that wanders wanders for all, from one work to the next as well. It prints what it finds and
never fails on a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from . import _build, _pages, _report
from ._build import Missing
from ._measure import Failed, Settings, measure, raise_file_limit
from ._picture import draw
from ._registry import CONTENDERS, WORKS, Contender, Work, choose
from ._report import Outcome, Outcomes
from ._versions import head

RESULTS = _build.HERE / "results"
GIVE_UP = 2  # failures in a row after which a contender is left out of a work
PACKAGES = ("trio_muxado", "trio", "httpcore", "hypercorn", "h2", "asyncssh", "grpcio")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepare(work: Work, contenders: Sequence[Contender]) -> Outcomes:
    """Build what is needed; say who cannot take part and why."""
    outcomes: Outcomes = {}
    for contender in contenders:
        outcome = outcomes[contender.name] = Outcome()
        try:
            outcome.skipped = contender.why_not(work) or ""
            if not outcome.skipped:
                contender.command()
                if work.tls:
                    _build.certificates()
        except Missing as error:
            outcome.skipped = str(error)
    return outcomes


def run_once(
    work: Work,
    contenders: Sequence[Contender],
    outcomes: Outcomes,
    settings: Settings,
    turn: int,
) -> None:
    """One round of one work, into ``outcomes``."""
    metric = work.metrics[0]
    for contender in contenders:
        outcome = outcomes[contender.name]
        if outcome.skipped or outcome.rounds[-GIVE_UP:] == [None] * GIVE_UP:
            continue
        label = f"{work.name} {turn + 1}/{settings.rounds} {contender.title}"
        try:
            result = measure(contender, work, settings)
        except Failed as error:
            outcome.rounds.append(None)
            outcome.failures.append(str(error))
            progress(f"{label}: failed, {error}")
        else:
            outcome.rounds.append(result)
            progress(f"{label}: {metric.value(result):,.{metric.digits}f} {metric.title}")


def machine() -> dict[str, object]:
    """Where this ran, as far as a reader needs it."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """What was measured, by what is installed and what the build files pin."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    go_mod = (_build.HERE / "go" / "go.mod").read_text()
    found |= dict(re.findall(r"^(?:require )?\s*(\S+/\S+) v(\S+)$", go_mod, re.MULTILINE))
    manifest = (_build.HERE / "rust" / "Cargo.toml").read_text()
    if crate := re.search(r'^muxado = "=(.*)"', manifest, re.MULTILINE):
        found["muxado (Rust)"] = crate[1]
    name, _, version = _build.LIBP2P.partition(" == ")
    return found | {name: version}


def counts() -> dict[str, object]:
    """Calls, task switches and writes of ours: the same in every run with this Python and trio."""
    command = [sys.executable, "-m", "benchmarks._counting", "v1", "v2"]
    done = subprocess.run(command, cwd=_build.ROOT, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)["counts"]
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of each work (5)")
    parser.add_argument("--seconds", type=float, help="how long one measurement lasts (2)")
    parser.add_argument("--only", metavar="NAME,...", help="contenders; --list names them")
    parser.add_argument("--work", metavar="NAME,...", help="works; --list names them")
    parser.add_argument("--quick", action="store_true", help="2 rounds of half a second: a try")
    parser.add_argument("--json", type=Path, default=RESULTS / "bench.json")
    parser.add_argument(
        "--picture", type=Path, default=RESULTS / "bench.svg", help="and -narrow.svg"
    )
    parser.add_argument("--redraw", action="store_true", help="tables and picture from --json")
    parser.add_argument(
        "--pages", action="store_true", help="with --redraw: the tables of README and docs, too"
    )
    parser.add_argument("--list", action="store_true", help="name works and contenders")
    return parser.parse_args()


def save(path: Path, document: dict[str, object], outcomes: dict[str, Outcomes]) -> None:
    works = {work.name: work for work in WORKS}
    document["rounds"] = {
        name: {who: vars(outcome) for who, outcome in found.items()}
        for name, found in outcomes.items()
    }
    document["summary"] = {
        name: _report.summary(works[name], found) for name, found in outcomes.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def load(path: Path) -> tuple[dict[str, object], dict[str, Outcomes]]:
    document = json.loads(path.read_text())
    return document, {
        name: {who: Outcome(**outcome) for who, outcome in found.items()}
        for name, found in document["rounds"].items()
    }


def picture(path: Path, document: dict[str, object], outcomes: dict[str, Outcomes]) -> None:
    where, settings = document["machine"], document["settings"]
    assert isinstance(where, dict)
    assert isinstance(settings, dict)
    foot = (
        f"Loopback, two processes, {where['cores']} cores ({where['cpu']}), CPython "
        f"{where['python']}. Medians of {settings['rounds']} interleaved rounds; "
        f"whiskers: minimum and maximum. Commit {str(document.get('commit', 'unknown'))[:10]}."
    )
    for file in draw(outcomes, CONTENDERS, foot, path):
        progress(f"drawn: {file}")


def main() -> None:
    args = options()
    if args.list:
        for item in (*WORKS, *CONTENDERS):
            print(f"{item.name:10} {item.title}")
        return
    if args.redraw:
        document, outcomes = load(args.json)
        for work in WORKS:
            if found := outcomes.get(work.name):
                print(_report.table(work, found, [c for c in CONTENDERS if c.name in found]))
        print(_report.across(outcomes))
        print(_report.notes(CONTENDERS))
        picture(args.picture, document, outcomes)
        if args.pages:
            for page in _pages.fill(_pages.Run(document, outcomes)):
                progress(f"filled in: {page}")
        return
    rounds, seconds = (2, 0.5) if args.quick else (5, 2.0)
    settings = Settings(args.rounds or rounds, args.seconds or seconds)
    works = [work for work in WORKS if work.name in choose(args.work, "work")]
    contenders = [c for c in CONTENDERS if c.name in choose(args.only, "contender")]
    guess = len(works) * len(contenders) * settings.rounds * (1.25 * settings.seconds + 1) / 60
    progress(f"about {guess:.0f} minutes, less what is skipped")
    raise_file_limit()
    _build.BUILD.mkdir(exist_ok=True)
    commit, changed = head()
    document = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "changed": changed,
        "machine": machine(),
        "versions": versions(),
        "settings": vars(settings),
        "counts": counts(),
    }
    outcomes = {work.name: prepare(work, contenders) for work in works}
    start = time.perf_counter()
    for turn in range(settings.rounds):
        for work in works:
            run_once(work, contenders, outcomes[work.name], settings, turn)
        save(args.json, document, outcomes)  # what is measured is kept, whatever comes
    for work in works:
        print(_report.table(work, outcomes[work.name], contenders))
    print(_report.across(outcomes))
    print(_report.notes(contenders))
    progress(f"{(time.perf_counter() - start) / 60:.1f} minutes; {args.json}")
    picture(args.picture, document, outcomes)


if __name__ == "__main__":
    main()
