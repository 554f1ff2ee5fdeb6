"""Medians, ratios and the tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from ._registry import ACROSS, Contender, Metric, Work

OURS = ("ours-v1", "ours-v2")


@dataclass
class Outcome:
    """What one contender did in one work: a result per round, None where it failed."""

    rounds: list[dict[str, float] | None] = field(default_factory=list)
    skipped: str = ""  # the reason, when it did not take part
    failures: list[str] = field(default_factory=list)

    def values(self, metric: Metric) -> list[float]:
        return [metric.value(result) for result in self.rounds if result is not None]


Outcomes = dict[str, Outcome]  # by contender


@dataclass(frozen=True)
class Spread:
    """A median with its minimum and maximum."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(median(values), min(values), max(values)) if values else None

    def text(self, digits: int) -> str:
        middle, low, high = (f"{value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return f"{middle} ({low} - {high})"


def ratio(metric: Metric, ours: Outcome | None, theirs: Outcome) -> Spread | None:
    """How many times better ours is, round by round: only neighbours in time compare."""
    ratios = []
    for mine, other in zip(ours.rounds if ours else (), theirs.rounds, strict=False):
        if mine is None or other is None:
            continue
        good, bad = metric.value(mine), metric.value(other)
        if not metric.higher_is_better:
            good, bad = bad, good
        if bad > 0:
            ratios.append(good / bad)
    return Spread.of(ratios)


def cells(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, the first column to the left and the others to the right.

    A row of one cell is a heading, and as wide as it likes.
    """
    table = [list(row) for row in rows]
    widths = [
        max(map(len, column)) for column in zip(*(r for r in table if len(r) > 1), strict=True)
    ]
    for first, *rest in table:
        padded = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=False))
        yield "  ".join([first.ljust(widths[0]), *padded]).rstrip()


def table(work: Work, outcomes: Outcomes, contenders: Sequence[Contender]) -> str:
    """One work as a table. `ours-v1 is` 2.00 means: twice as good as that row."""
    first, *others = work.metrics
    rows = [["", first.title, *(f"{name} is" for name in OURS), *(m.title for m in others)]]
    notes = []
    for contender in contenders:
        outcome = outcomes[contender.name]
        spread = Spread.of(outcome.values(first))
        if outcome.skipped:
            notes.append(f"skipped: {contender.title}: {outcome.skipped}")
        if times := len(outcome.failures):
            notes.append(f"failed {times} x: {contender.title}: {outcome.failures[-1]}")
        if spread is None:
            continue
        limit = contender.at_once.get(work.name)
        title = f"{contender.title} ({limit} at once)" if limit else contender.title
        row = [title, spread.text(first.digits)]
        for name in OURS:
            better = ratio(first, outcomes.get(name), outcome)
            row.append("" if better is None else better.text(2))
        row += [f"{median(outcome.values(m)):,.{m.digits}f}" for m in others]
        rows.append(row)
    title = f"{work.name}: {work.title}"
    lines = [title, "-" * len(title), *(cells(rows) if len(rows) > 1 else ["no result"])]
    return "\n".join(lines + [f"  {note}" for note in notes]) + "\n"


def across(outcomes: dict[str, Outcomes]) -> str:
    """How good ours is where more goes on, as a multiple of how good it is without."""
    rows = [["ours, beside another work", *OURS]]
    for busy, alone, metric in ACROSS:
        if busy in outcomes and alone in outcomes:
            row = [f"{metric.title}: {busy} beside {alone}"]
            for name in OURS:
                reference = outcomes[alone].get(name, Outcome())
                times = ratio(metric, outcomes[busy].get(name), reference)
                row.append("" if times is None else times.text(2))
            rows.append(row)
    return "\n".join(cells(rows)) + "\n" if len(rows) > 1 else ""


def notes(contenders: Sequence[Contender]) -> str:
    """What a reader must know of those who took part."""
    lines = [f"  {c.title}: {c.note}" for c in contenders if c.note]
    return "\n".join(["ours-... is 2.00: ours is twice as good as that row, by round", *lines])


def summary(work: Work, outcomes: Outcomes) -> dict[str, object]:
    """The same figures for the JSON file."""
    result: dict[str, object] = {}
    for name, outcome in outcomes.items():
        entry: dict[str, object] = {}
        for metric in work.metrics:
            if spread := Spread.of(outcome.values(metric)):
                entry[metric.title] = vars(spread)
        for ours in OURS:
            if times := ratio(work.metrics[0], outcomes.get(ours), outcome):
                entry[f"{ours} is"] = vars(times)
        result[name] = {"skipped": outcome.skipped} if outcome.skipped else entry
    return result
