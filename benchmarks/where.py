"""Where each microsecond of a request goes: `python -m benchmarks.where`.

Samples `benchmarks.one_process` with py-spy, and shares its time out to the modules of the code.
With ``--flame FILE.svg`` it draws a flame graph as well.

    python -m benchmarks.where                                        # the table
    python -m benchmarks.where --json docs/where.json --page --flame docs/flame.svg
    python -m benchmarks.where --json docs/where.json --page --redraw # from an earlier run
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._blocks import Page
from ._build import ROOT
from ._versions import provenance

PY_SPY = str(Path(sys.executable).with_name("py-spy"))  # of the same environment

RATE = "400"  # samples a second; more disturb what they look at

# The first that is found in the path of the function that runs names the share.
SHARES = (
    ("trio: switching tasks", ("trio/_core/_run", "trio/_core/_traps", "outcome/", "attrs gen")),
    ("trio: sockets and system calls", ("trio/_socket", "trio/_highlevel", "_io_epoll")),
    ("the protocol core", ("trio_muxado/_protocol",)),
    ("streams and sessions", ("trio_muxado/_stream", "trio_muxado/_session", "_solo")),
    ("reader, writer and nurseries", ("trio_muxado/",)),
    ("the rest of trio", ("trio/",)),
    ("the benchmark itself", ("benchmarks/",)),
)
REST = "Python's standard library"


def record(args: argparse.Namespace, shape: str, path: Path) -> str:
    """Sample one run; what it printed."""
    program = [sys.executable, "-m", "benchmarks.one_process", "--wire", args.wire]
    program += ["--at-once", str(args.at_once), "--seconds", str(args.seconds)]
    command = [PY_SPY, "record", "-r", RATE, "-f", shape, "-o", str(path), "--", *program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    # The drawing's title is the command line, which says where things are on this machine.
    path.write_text(path.read_text().replace(" ".join(command), "benchmarks.one_process"))
    return "".join(line + "\n" for line in done.stdout.splitlines() if "us of CPU" in line)


def share(frame: str) -> str:
    for name, parts in SHARES:
        if any(part in frame for part in parts):
            return name
    return REST


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One run, and the samples of each share."""
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory, "samples")
        said = record(args, "raw", raw)
        lines = raw.read_text().splitlines()
    shares: Counter[str] = Counter()
    for line in lines:
        stack, samples = line.rsplit(" ", 1)
        if "unrolled_run" in stack:  # else the program starts, or ends
            shares[share(stack.rsplit(";", 1)[-1])] += int(samples)
    match = re.search(r"([\d.]+) us of CPU", said)
    assert match, "the measured program said nothing"
    if args.flame:
        record(args, "flamegraph", args.flame)
    return {
        **provenance(),
        "wire": args.wire,
        "at_once": args.at_once,
        "request_us": float(match[1]),
        "samples": dict(shares.most_common()),
    }


def tables(document: Mapping[str, Any]) -> dict[str, str]:
    samples = document["samples"]
    total = sum(samples.values())
    body = "".join(f"| {100 * of / total:.0f} % | {name} |\n" for name, of in samples.items())
    changed = ", with changes that no commit has" if document["changed"] else ""
    about = (
        f"Commit `{document['commit'][:10]}`{changed}, Python {document['python']}, trio "
        f"{document['trio']}, {document['wire']}, {document['at_once']} requests at once; "
        f"{total:,} samples.\n"
    )
    return {"shares": f"| | |\n|---|---|\n{body}", "about": about}


PAGE = Page(ROOT / "docs" / "performance.md", "where", tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wire", choices=["v1", "v2"], default="v2")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--flame", type=Path, help="draw a flame graph, SVG")
    PAGE.add_options(parser)
    args = parser.parse_args()
    PAGE.publish(args, lambda: measure(args))


if __name__ == "__main__":
    main()
