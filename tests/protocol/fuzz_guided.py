"""Throws bytes at the protocol that are chosen by what they reach: needs atheris.

    python -m tests.protocol.fuzz_guided connection --runs 100000

It begins with the inputs of ``corpus/``, a line of hexadecimal digits each, and with those of the
vectors.  An input that reaches a line of the protocol in a new way is kept and changed further;
with ``--keep FOLDER`` for the next run as well.  The input that fails is printed, and is written to
a file whose name begins with the target's: ``--play FILE`` plays it again, without atheris.

    python -m tests.protocol.fuzz_guided connection --minimise FOLDER

writes ``corpus/`` anew: of its inputs and the folder's the smallest set that reaches all that they
reach together.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 1024
"""Bytes of an input."""

TARGETS = ("decoder", "connection", "application")


def corpus_of(target: str) -> list[bytes]:
    """The inputs of the repository for a target."""
    file = CORPUS / f"{target}.txt"
    return [bytes.fromhex(line) for line in file.read_text("ascii").split()]


def seeds() -> Iterator[bytes]:
    """What the vectors of both versions send, for each role and form of session."""
    from trio_muxado._check.vectors import VERSIONS, load, read

    from .targets import CLIENT, DETECT, TYPED, V2_BIT, Input

    for version in VERSIONS:
        bit = V2_BIT if version == "v2" else 0
        data = read(version)
        plain = [*data["vectors"], *data["invalid"], *data["sequences"]]
        for entry in plain:
            yield Input(bit | DETECT, 0, b"", bytes.fromhex(entry["hex"])).to_bytes()
        for vector in load(version):
            choices = bit | (CLIENT if vector.role == "client" else DETECT)
            choices |= TYPED if vector.typed else 0
            sent = b"".join(step.sent for step in vector.steps)
            script = bytes(range(1, 60)) if vector.shown is None else b""
            yield Input(choices, 0, script, sent).to_bytes()


def write(folder: Path, inputs: Iterable[bytes]) -> None:
    for data in inputs:
        if len(data) <= LONGEST:
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def fuzz(target: str, runs: int, seed: int, kept: Path, options: list[str]) -> None:
    """Run a target that often; does not return."""
    import atheris

    with atheris.instrument_imports(include=["trio_muxado._protocol"]):
        from . import targets

    write(kept, [*seeds(), *corpus_of(target)])
    choices = [f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", "-print_final_stats=1"]
    choices += [f"-artifact_prefix={target}-", "-timeout=1200", "-rss_limit_mb=4000", *options]
    atheris.Setup([sys.argv[0], *choices, str(kept)], targets.TARGETS[target])
    atheris.Fuzz()


class _Steps:
    """The steps from line to line that a call takes in the protocol."""

    def __init__(self) -> None:
        self.taken: set[tuple[object, int, int]] = set()

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if "_protocol" not in frame.f_code.co_filename or "tests" in frame.f_code.co_filename:
            return None
        code, taken, line = frame.f_code, self.taken, frame.f_lineno

        def trace_lines(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal line
            taken.add((code, line, frame.f_lineno))
            line = frame.f_lineno
            return trace_lines

        return trace_lines


def minimise(target: str, folder: Path) -> None:
    """Write the corpus of a target anew."""
    from .targets import TARGETS

    inputs = {file.read_bytes() for file in folder.iterdir()} | {*corpus_of(target)}
    known: set[tuple[object, int, int]] = set()
    chosen: list[bytes] = []
    # The shortest first: what reaches something new is kept.
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        steps = _Steps()
        sys.settrace(steps.trace)
        try:
            TARGETS[target](data)
        finally:
            sys.settrace(None)
        if not steps.taken <= known:
            known |= steps.taken
            chosen.append(data)
    text = "".join(f"{data.hex()}\n" for data in chosen)
    (CORPUS / f"{target}.txt").write_text(text, "ascii")
    sys.stdout.write(f"{target}: {len(chosen)} of {len(inputs)} inputs, {len(known)} steps\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder of inputs, which grows")
    parser.add_argument("--play", type=Path, help="play this input once, and nothing else")
    parser.add_argument("--minimise", type=Path, help="write the corpus anew")
    chosen, options = parser.parse_known_args()
    if chosen.play is not None:
        from . import targets

        targets.TARGETS[chosen.target](chosen.play.read_bytes())
    elif chosen.minimise is not None:
        minimise(chosen.target, chosen.minimise)
    elif chosen.keep is not None:
        chosen.keep.mkdir(parents=True, exist_ok=True)
        fuzz(chosen.target, chosen.runs, chosen.seed, chosen.keep, options)
    else:
        # The fuzzer ends its process, so another one cleans up.
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--keep", folder]
            return subprocess.run(command, check=False).returncode
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
