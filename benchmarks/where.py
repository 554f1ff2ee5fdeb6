"""Where each microsecond of a request goes: `python -m benchmarks.where`.

Samples `benchmarks.one_process` with py-spy, and shares its time out to the rooms of the code.
With ``--flame FILE.svg`` it draws a flame graph as well.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

PY_SPY = str(Path(sys.executable).with_name("py-spy"))  # of the same environment

RATE = "400"  # samples a second; more disturb what they look at

# The first that is found in the path of the function that runs names the share.
SHARES = (
    ("trio: switching tasks", ("trio/_core/_run", "trio/_core/_traps", "outcome/", "attrs gen")),
    ("trio: sockets, and the system's calls", ("trio/_socket", "trio/_highlevel", "_io_epoll")),
    ("trio: channels, semaphores, the rest", ("trio/",)),
    ("muxado: the protocol core", ("trio_muxado/_protocol",)),
    ("muxado: streams and sessions", ("trio_muxado/_stream", "trio_muxado/_session", "_solo")),
    ("muxado: reader, writer, nursery", ("trio_muxado/",)),
    ("the benchmark itself", ("benchmarks/",)),
)
REST = "Python's own library"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wire", choices=["v1", "v2"], default="v2")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--flame", type=Path, help="draw a flame graph, SVG")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory, "samples")
        said = record(args, "raw", raw)
        lines = raw.read_text().splitlines()
    shares: Counter[str] = Counter()
    for line in lines:
        stack, samples = line.rsplit(" ", 1)
        if "unrolled_run" in stack:  # else the program starts, or ends
            shares[share(stack.rsplit(";", 1)[-1])] += int(samples)
    total = sum(shares.values())
    match = re.search(r"([\d.]+) us of CPU", said)
    assert match, "the measured program said nothing"
    request = float(match[1])
    print(said, end="")
    for name, samples_of_it in shares.most_common():
        part = samples_of_it / total
        print(f"{request * part:6.1f} us {100 * part:5.1f} %  {name}")
    if args.flame:
        record(args, "flamegraph", args.flame)


if __name__ == "__main__":
    main()
