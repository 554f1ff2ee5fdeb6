"""Check every configuration of the models, each in all its states.

    python -m tests.model                         within a minute
    python -m tests.model --long                  with larger bounds
    python -m tests.model --docs docs/proofs.md   puts the table into that page

A configuration passes if Spin finds no error in a search that was complete. Those that take a rule
away, or that show a defect nobody can hide, have to fail, and for the reason that is named: so the
models are known to see what they are about.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
PEERS = {"ours": 0, "Go v1": 1, "Go v2": 2, "Go v2.0.1": 3, "Rust": 4}
DEADLOCK, WRONG = "invalid end state", "assertion violated"

DEPTH = 200_000
"""Steps of the longest run that is followed; a longer one is an error."""

MEMORY = 6000
"""MiB that the states of a search may take; more is an error."""

INCOMPLETE = ("max search depth too small", "out of memory", "-DMEMLIM", "not completed")

BEGIN, END = "<!-- model: begin -->\n", "<!-- model: end -->\n"


@dataclass(frozen=True)
class Configuration:
    """A model with its options."""

    says: str
    options: tuple[str, ...]
    model: str = "stream"
    fails: str | None = None
    """What Spin has to find; None where there must be nothing."""


@dataclass(frozen=True)
class Outcome:
    """What Spin found."""

    configuration: Configuration
    states: int
    depth: int
    found: str | None
    text: str

    @property
    def as_expected(self) -> bool:
        complete = not any(words in self.text for words in INCOMPLETE)
        return self.found == self.configuration.fails and (complete or self.found is not None)


def stream(says: str, *options: str, peer: str = "ours", fails: str | None = None) -> Configuration:
    return Configuration(says, (f"PEER={PEERS[peer]}", *options), fails=fails)


OPENERS = "we open", "it opens"
"""Who opens the stream: side 0 or side 1."""


def sound(long: bool) -> list[Configuration]:
    """Our rules are kept, so nothing may be found."""
    found: list[Configuration] = []
    for peer in PEERS:
        for opener, who in enumerate(OPENERS):
            if not long and opener and peer in ("Go v1", "Go v2.0.1"):
                continue  # no other rule is about who opens
            units = ("M=3",) if long else ()
            found.append(stream(f"{peer}: {who}", f"OPENER={opener}", *units, peer=peer))
    units = ("M=2",) if long else ("M=1",)
    found += [
        stream(f"{peer}: the transport is cut", "CUT", *units, peer=peer)
        for peer in (PEERS if long else ("ours", "Go v2", "Rust"))
    ]
    goes = (0, "our GOAWAY"), (1, "its GOAWAY")
    for peer in ("ours", "Go v1", "Go v2", "Go v2.0.1"):  # Rust ends its session at any GOAWAY
        for side, whose in goes if long or peer == "ours" else goes[peer == "Go v2" :][:1]:
            for opener in (0, 1) if long else (1 - side,):
                options = (f"GOES={side}", f"OPENER={opener}", *units)
                says = f"{peer}: {whose}, {OPENERS[opener]}"
                found.append(stream(says, *options, peer=peer))
    found.append(stream("ours: both sides are judged", "JUDGES_BOTH"))
    found.append(stream("Rust: a window that grows", "GROWN=4", peer="Rust"))
    if long:
        found += [
            stream("ours: two frames on their way", "CAP=2", "M=3"),
            stream("ours: a larger window", "W=2", "M=3"),
            stream("ours: both sides go away", "GOES=2", "M=1"),
        ]
    streams = "STREAMS=4" if long else "STREAMS=3"
    for last in ((), ("HIGHEST_ID",)):
        says = "GOAWAY has the highest id" if last else "GOAWAY has the latest id"
        found.append(Configuration(says, (streams, *last), "goaway"))
    return found


RULES = [
    stream("no probe of a stream without window", "NO_PROBE", peer="Go v2", fails=DEADLOCK),
    stream("a probe, but only once", "ASKS_ONCE", peer="Go v2", fails=DEADLOCK),
    stream(
        "credit at half of the grown window, not of the initial one",
        *("GROWN=4", "THRESHOLD_OF_THE_GROWN_WINDOW"),
        peer="Rust",
        fails=DEADLOCK,
    ),
    stream("SYN and FIN in one frame (v1)", "FIN_WITH_SYN", peer="Go v1", fails=DEADLOCK),
    stream("SYN and FIN in one frame (v2)", "FIN_WITH_SYN", peer="Go v2", fails=DEADLOCK),
    stream("FIN when a send is cancelled", "FIN_WHEN_CANCELLED", "JUDGES_BOTH", fails=WRONG),
    stream(
        "nothing after a GOAWAY",
        *("GOES=0", "NOTHING_BEHIND_GOAWAY"),
        peer="Go v2.0.1",
        fails=DEADLOCK,
    ),
    stream("the reader waits until its answer is sent", "READER_WAITS", fails=DEADLOCK),
    Configuration("SYNs in any order", ("SYNS_IN_ANY_ORDER",), "goaway", fails=WRONG),
]
"""A rule of ours is taken away: the model has to find what it is for."""

DEFECTS = [
    stream(
        "a cut inside a frame with FIN is an end to its application",
        *("CUT", "CUT_INSIDE", "JUDGES_BOTH"),
        peer="Go v2",
        fails=WRONG,
    ),
    stream("a cut is an end to its application", "CUT", "JUDGES_BOTH", peer="Rust", fails=WRONG),
    stream("our GOAWAY ends its session in silence", "GOES=0", peer="Rust", fails=DEADLOCK),
]
"""What a peer does, whatever we do: the model has to find it as well."""


def check(configuration: Configuration) -> Outcome:
    """Build the model with its options, and search all of it."""
    source = HERE / f"{configuration.model}.pml"
    options = [f"-D{option}" for option in configuration.options]
    with tempfile.TemporaryDirectory() as folder:
        run = partial(subprocess.run, cwd=folder, check=True, text=True, capture_output=True)
        try:
            run(["spin", "-a", *options, str(source)])
            compiler = ["cc", "-O2", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY}", "-o", "pan", "pan.c"]
            run(compiler)
            # -q: a channel with something in it is no valid end.
            text = run(["./pan", "-q", f"-m{DEPTH}"], check=False).stdout
        except subprocess.CalledProcessError as error:
            sys.exit(f"{error.cmd} failed: {error.stdout}{error.stderr}")
    found = re.search(rf"pan:\d+: ({DEADLOCK}|{WRONG})", text)
    errors = re.search(r"depth reached (\d+).*errors: (\d+)", text)
    states = re.search(r"(\d+) states, stored", text)
    if errors is None or states is None:
        sys.exit(f"{configuration}: Spin said what is not understood:\n{text}")
    what = found[1] if found else None if errors[2] == "0" else text
    return Outcome(configuration, int(states[1]), int(errors[1]), what, text)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as Markdown."""
    lines = ["| | found | states | steps |", "|---|---|---|---|"]
    for outcome in outcomes:
        says, found = outcome.configuration.says, outcome.found or "nothing"
        lines.append(f"| {says} | {found} | {outcome.states:,} | {outcome.depth:,} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.model")
    parser.add_argument("--long", action="store_true", help="with larger bounds")
    parser.add_argument("--docs", type=Path, help="a page that gets the tables")
    choices = parser.parse_args()
    groups = {
        "Our rules are kept:": sound(choices.long),
        "A rule is taken away:": RULES,
        "What a peer does, whatever we do:": DEFECTS,
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = {says: list(pool.map(check, group)) for says, group in groups.items()}
    text = "\n".join(f"{says}\n\n{table(found)}" for says, found in outcomes.items())
    sys.stdout.write(text)
    wrong = [it for found in outcomes.values() for it in found if not it.as_expected]
    if wrong:
        for outcome in wrong:
            sys.stdout.write(f"\n{outcome.configuration}:\n{outcome.text}\n")
        sys.exit(f"{len(wrong)} configurations are not as they should be")
    if choices.docs:
        page = choices.docs.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        choices.docs.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
