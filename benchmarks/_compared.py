"""Figures of two versions beside each other, and the table of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from ._registry import (
    BULK,
    CLIENT_CPU,
    CLIENT_MEMORY,
    RATE,
    SERVER_CPU,
    SERVER_MEMORY,
    SESSION_MEMORY,
    SESSIONS,
    WORKS,
    Metric,
    Result,
    Work,
)
from ._report import cells

Pair = tuple[Result, Result]  # what both versions did in one slice of time, and the next


def _per_megabyte(side: str) -> Metric:
    return Metric(f"{side} CPU us/MB", lambda r: r[f"{side}_cpu"] / r["bytes"] * 1e12, False, 1)


REQUESTS = (RATE, CLIENT_CPU, SERVER_CPU)
MEGABYTES = (BULK, _per_megabyte("client"), _per_megabyte("server"))
MEMORY = (CLIENT_MEMORY, SERVER_MEMORY)

_KNOWN = {work.name: work for work in WORKS}


def _as_known(name: str, metrics: tuple[Metric, ...]) -> Work:
    work = _KNOWN[name]
    return Work(name, work.title, work.arguments, metrics, work.tls)


COMPARED = (
    _as_known("a64", REQUESTS),
    _as_known("a1", REQUESTS),
    _as_known("b", MEGABYTES),
    _as_known("b64k", MEGABYTES),
    _as_known("c", MEGABYTES),
    _as_known("tls-a64", REQUESTS),
    _as_known("tls-b", MEGABYTES),
    _as_known("session", SESSIONS),
    Work("idle-streams", "2,000 idle streams", ("m", "--idle", "2000"), MEMORY),
    Work(
        "idle-sessions", "200 idle sessions", ("m", "--sessions", "--idle", "200"), SESSION_MEMORY
    ),
)
COUNTS = "counts"


@dataclass
class Compared:
    """One work on one wire: for each round the pairs of slices, the older version first."""

    work: Work
    wire: str
    rounds: list[Sequence[Pair]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ratios(self, metric: Metric) -> list[float]:
        """Of each round: the median of its pairs, which are neighbours in time."""
        return [
            median(metric.value(new) / metric.value(old) for old, new in pairs)
            for pairs in self.rounds
            if pairs and all(metric.value(old) for old, _ in pairs)
        ]

    def medians(self, metric: Metric) -> tuple[float, float]:
        """Of all slices, for each version."""
        pairs = [pair for pairs in self.rounds for pair in pairs]
        old, new = zip(*pairs, strict=True)
        return median(map(metric.value, old)), median(map(metric.value, new))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The median between the quartiles; of fewer than four values between the extremes."""
    if len(values) < 4:
        return min(values), median(values), max(values)
    low, middle, high = quantiles(values, method="inclusive")
    return low, middle, high


def _measured(compared: Iterable[Compared]) -> list[tuple[Work, list[list[str]]]]:
    parts: dict[str, tuple[Work, list[list[str]]]] = {}
    for one in compared:
        _, rows = parts.setdefault(one.work.name, (one.work, []))
        for metric in one.work.metrics:
            if ratios := one.ratios(metric):
                low, middle, high = quartiles(ratios)
                old, new = (f"{value:,.{metric.digits}f}" for value in one.medians(metric))
                spread = f"({low:.3f} - {high:.3f})"
                rows.append([f"  {one.wire} {metric.title}", old, new, f"{middle:.3f}", spread])
        if times := len(one.failures):
            rows.append([f"  {one.wire} failed {times} x: {one.failures[-1]}"])
    return list(parts.values())


Counted = Mapping[str, Mapping[str, Mapping[str, float]]]  # by wire, what, and which


def _counted(old: Counted, new: Counted) -> list[list[str]]:
    rows = []
    for what in next(iter(old.values()), ()):
        rows.append([f"counts: {what}"])
        for wire in old:
            for name, before in old[wire][what].items():
                now = new[wire][what][name]
                ratio = "equal" if now == before else f"{now / before:.3f}"
                rows.append([f"  {wire} {name}", f"{before:,g}", f"{now:,g}", ratio, ""])
    return rows


def table(
    titles: tuple[str, str], compared: Iterable[Compared], counts: tuple[Counted, Counted]
) -> str:
    """All of it: what was counted, and what was measured."""
    rows: list[list[str]] = [["", *titles, "ratio", "quartiles of rounds"]]
    rows += _counted(*counts)
    for work, its_rows in _measured(compared):
        rows += [[f"{work.name}: {work.title}"], *its_rows]
    return "\n".join(cells(rows)) + "\n"


def summary(compared: Iterable[Compared]) -> list[dict[str, object]]:
    """The same figures for the JSON file."""
    lines: list[dict[str, object]] = []
    for one in compared:
        for metric in one.work.metrics:
            if ratios := one.ratios(metric):
                old, new = one.medians(metric)
                lines.append(
                    {
                        "work": one.work.name,
                        "wire": one.wire,
                        "metric": metric.title,
                        "higher_is_better": metric.higher_is_better,
                        "old": old,
                        "new": new,
                        "ratio": quartiles(ratios)[1],
                        "ratios": ratios,
                    }
                )
    return lines
