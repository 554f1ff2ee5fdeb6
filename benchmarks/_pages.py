"""The tables of speed in README and docs: filled in from one run, never by hand.

A page has `<!-- figures: NAME -->` above a table, and `<!-- end of figures -->` below it. The first
two columns are the page's, in whatever language. What stands in the others comes from here, row by
row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ._registry import ACROSS, WORKS
from ._report import Outcome, Outcomes, Spread, ratio

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "benchmarks.json"
"""The run that the pages tell of."""
PAGES = ("README.md", "README.zh-CN.md", "docs/performance.md")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n\n)(.*?)(\n<!-- end of figures -->)", re.DOTALL)
METRICS = {work.name: work.metrics[0] for work in WORKS}
VERSIONS = ("v1", "v2")

AllOutcomes = Mapping[str, Outcomes]
Cell = Callable[[AllOutcomes], str]


def spread(outcomes: AllOutcomes, work: str, version: str, other: str) -> Spread | None:
    """How many times better ours is than the other one."""
    found = outcomes.get(work, {})
    if other not in found:
        return None
    return ratio(METRICS[work], found.get(f"ours-{version}"), found[other])


def digits(value: float) -> int:
    """After the point: as many as tell such ratios apart, and no more."""
    return 0 if value >= 9.95 else 1 if value >= 1.95 else 2


def middle(of: Spread | None) -> str:
    return "" if of is None else f"{of.median:.{digits(of.median)}f}"


def whole(of: Spread | None) -> str:
    if of is None:
        return ""
    places = digits(of.median)
    return f"{middle(of)} ({of.low:.{places}f} to {of.high:.{places}f})"


def one(work: str, version: str, other: str) -> Cell:
    """A median."""
    return lambda outcomes: middle(spread(outcomes, work, version, other))


def wide(work: str, version: str, other: str) -> Cell:
    """A median, with the lowest and the highest round."""
    return lambda outcomes: whole(spread(outcomes, work, version, other))


def both(work: str, *others: str, show: Callable[[Spread | None], str] = middle) -> Cell:
    """v1 and v2 against the same, or each against its own."""
    pairs = list(zip(VERSIONS, others * (2 // len(others)), strict=True))

    def cell(outcomes: AllOutcomes) -> str:
        return " and ".join(show(spread(outcomes, work, *pair)) for pair in pairs)

    return cell


def among(work: str, *others: str) -> Cell:
    """From the lowest median to the highest, of both versions against all of these."""

    def cell(outcomes: AllOutcomes) -> str:
        found = [
            of.median
            for other in others
            for version in VERSIONS
            if (of := spread(outcomes, work, version, other))
        ]
        return f"{min(found):.0f} to {max(found):.0f}" if found else ""

    return cell


def beside(work: str, show: Callable[[Spread | None], str] = whole) -> Cell:
    """Ours in one work as a multiple of ours in another, which `ACROSS` names."""
    _, alone, metric = next(row for row in ACROSS if row[0] == work)

    def cell(outcomes: AllOutcomes) -> str:
        texts = []
        for version in VERSIONS:
            name = f"ours-{version}"
            busy, quiet = (outcomes.get(w, {}).get(name, Outcome()) for w in (work, alone))
            if not metric.higher_is_better:  # it is told as how many times longer
                busy, quiet = quiet, busy
            texts.append(show(ratio(metric, busy, quiet)))
        return " and ".join(texts)

    return cell


TABLES: Mapping[str, Sequence[Sequence[Cell]]] = {
    "readme": [
        (one("a64", "v1", "go-v1"), one("a64", "v2", "go-v2")),
        (one("a64", "v1", "yamux"), one("a64", "v2", "yamux")),
        (one("a64", "v1", "rust"), one("a64", "v2", "rust")),
        (one("a64", "v1", "trio-tcp"), one("a64", "v2", "trio-tcp")),
        (one("b", "v1", "go-v1"), one("b", "v2", "go-v2")),
        (one("b", "v1", "trio-tcp"), one("b", "v2", "trio-tcp")),
        (lambda outcomes: "", one("tls-b", "v2", "go-v2")),
    ],
    "results": [
        (wide("a64", "v1", "go-v1"),),
        (wide("a64", "v2", "go-v2"),),
        (both("a64", "yamux"),),
        (both("a64", "smux"),),
        (both("a64", "rust"),),
        (both("a64", "trio-tcp"),),
        (both("a64", "grpc"),),
        (among("a64", "http2", "asyncssh", "libp2p"),),
        (wide("b", "v1", "go-v1"),),
        (wide("b", "v2", "go-v2"),),
        (both("b", "trio-tcp", show=whole),),
        (both("b", "smux"),),
        (beside("c"),),
        (both("c", "go-v1", "go-v2"),),
        (beside("d10000", middle),),
        (beside("f", middle),),
        (wide("tls-a64", "v2", "go-v2"),),
        (wide("tls-b", "v2", "go-v2"),),
    ],
}


def filled(text: str, outcomes: AllOutcomes) -> str:
    """A page with what this run found."""

    def fill(block: re.Match[str]) -> str:
        begin, name, table, end = block.groups()
        return f"{begin}{''.join(_rows(name, table, outcomes))}{end}"

    return BLOCK.sub(fill, text)


def _rows(name: str, table: str, outcomes: AllOutcomes) -> Iterator[str]:
    head, rule, *rows = table.splitlines(keepends=True)
    yield from (head, rule)
    for row, cells in zip(rows, TABLES[name], strict=True):
        own = row.split("|")[1:3]
        found = [cell(outcomes) for cell in cells]
        shown = (f" {text} " if text else " " for text in found)
        yield "|" + "|".join([*own, *shown]) + "|\n"


def fill(outcomes: AllOutcomes) -> list[Path]:
    """Write the figures into the pages; gives those that have any."""
    pages = [ROOT / name for name in PAGES if BLOCK.search((ROOT / name).read_text("utf-8"))]
    for page in pages:
        page.write_text(filled(page.read_text("utf-8"), outcomes), encoding="utf-8")
    return pages
