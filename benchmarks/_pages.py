"""The figures of speed in README and docs: filled in from one run, never by hand.

A page has `<!-- figures: NAME -->` above a table or a paragraph, and `<!-- end of figures -->`
below it. The first columns of a table are the page's, in whatever language. What stands in the
others comes from here, row by row. A paragraph, which says what run it was, comes from here whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from ._registry import (
    ACROSS,
    BULK,
    CLIENT_CPU,
    CLIENT_MEMORY,
    IDLE_CPU,
    RATE,
    SERVER_CPU,
    SERVER_MEMORY,
    WORKS,
    Metric,
)
from ._report import Outcome, Outcomes, Spread, ratio

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "benchmarks.json"
"""The run that the pages tell of."""
PAGES = ("README.md", "README.zh-CN.md", "docs/performance.md")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n\n)(.*?)(\n<!-- end of figures -->)", re.DOTALL)
METRICS = {work.name: work.metrics[0] for work in WORKS}
VERSIONS = ("v1", "v2")

MISSING = "\N{EN DASH}"  # in a cell whose contender did not take part, or always failed


@dataclass(frozen=True)
class Run:
    """What `benchmarks.run` writes: what was measured where, and what came out."""

    document: Mapping[str, Any]
    outcomes: Mapping[str, Outcomes]  # by work


Cell = Callable[[Run], str]


def spread(run: Run, work: str, version: str, other: str) -> Spread | None:
    """How many times better ours is than the other one."""
    found = run.outcomes.get(work, {})
    if other not in found:
        return None
    return ratio(METRICS[work], found.get(f"ours-{version}"), found[other])


def digits(value: float) -> int:
    """After the point: as many as tell such ratios apart, and no more."""
    return 0 if value >= 9.95 else 1 if value >= 1.95 else 2


def middle(of: Spread | None) -> str:
    return MISSING if of is None else f"{of.median:.{digits(of.median)}f}"


def whole(of: Spread | None) -> str:
    if of is None:
        return MISSING
    places = digits(of.median)
    return f"{middle(of)} ({of.low:.{places}f} to {of.high:.{places}f})"


def one(work: str, version: str, other: str) -> Cell:
    """A median."""
    return lambda run: middle(spread(run, work, version, other))


def wide(work: str, version: str, other: str) -> Cell:
    """A median, with the lowest and the highest round."""
    return lambda run: whole(spread(run, work, version, other))


def both(work: str, *others: str, show: Callable[[Spread | None], str] = middle) -> Cell:
    """v1 and v2 against the same, or each against its own."""
    pairs = list(zip(VERSIONS, others * (2 // len(others)), strict=True))

    def cell(run: Run) -> str:
        return " and ".join(show(spread(run, work, *pair)) for pair in pairs)

    return cell


def among(work: str, *others: str) -> Cell:
    """From the lowest median to the highest, of both versions against all of these."""

    def cell(run: Run) -> str:
        found = [
            of.median
            for other in others
            for version in VERSIONS
            if (of := spread(run, work, version, other))
        ]
        if not found:
            return MISSING
        low, high = min(found), max(found)
        return f"{low:.{digits(low)}f} to {high:.{digits(high)}f}"

    return cell


def beside(work: str, show: Callable[[Spread | None], str] = whole) -> Cell:
    """Ours in one work as a multiple of ours in another, which `ACROSS` names."""
    _, alone, metric = next(row for row in ACROSS if row[0] == work)

    def cell(run: Run) -> str:
        texts = []
        for version in VERSIONS:
            name = f"ours-{version}"
            busy, quiet = (run.outcomes.get(w, {}).get(name, Outcome()) for w in (work, alone))
            if not metric.higher_is_better:  # it is told as how many times longer
                busy, quiet = quiet, busy
            texts.append(show(ratio(metric, busy, quiet)))
        return " and ".join(texts)

    return cell


def figure(work: str, metric: Metric, contender: str, digits: int = 0) -> Cell:
    """What one contender did: the median of its rounds."""

    def cell(run: Run) -> str:
        values = run.outcomes.get(work, {}).get(contender, Outcome()).values(metric)
        return f"{median(values):,.{digits}f}" if values else MISSING

    return cell


def kibibytes(metric: Metric) -> Metric:
    return Metric(metric.title, lambda r: metric.value(r) / 1024, metric.higher_is_better)


def each(contenders: Sequence[str], *columns: tuple[str, Metric, int]) -> list[tuple[Cell, ...]]:
    """A table of figures: a row for each of these, a column for each work and metric."""
    return [
        tuple(figure(work, metric, contender, places) for work, metric, places in columns)
        for contender in contenders
    ]


def counted(what: str, name: str, places: int = 0) -> tuple[Cell, ...]:
    """What `_counting` counts of ours, for each version."""

    def cell(run: Run, version: str) -> str:
        counts = run.document.get("counts", {}).get(version, {}).get(what, {})
        return f"{counts[name]:,.{places}f}" if name in counts else MISSING

    return tuple(partial(cell, version=version) for version in VERSIONS)


SAME_VERSION = ("go-v1", "go-v2")
OURS_AND_GO = ("ours-v1", "ours-v2", "go-v1", "go-v2", "yamux", "smux", "rust")
SESSIONS_OF = ("ours-v1", "ours-v2", "trio-tcp", "go-v1", "go-v2", "yamux", "smux")

TABLES: Mapping[str, Sequence[Sequence[Cell]]] = {
    "readme": [
        tuple(one(work, version, other) for version, other in zip(VERSIONS, pair, strict=True))
        for work, pair in (
            ("a64", SAME_VERSION),
            ("a64", ("yamux", "yamux")),
            ("a64", ("rust", "rust")),
            ("a64", ("trio-tcp", "trio-tcp")),
            ("a1", SAME_VERSION),
            ("b", SAME_VERSION),
            ("b", ("trio-tcp", "trio-tcp")),
            ("b64k", ("trio-tcp", "trio-tcp")),
            ("tls-a64", SAME_VERSION),
            ("tls-b", SAME_VERSION),
            ("session", SAME_VERSION),
        )
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
        (wide("a1", "v1", "go-v1"),),
        (wide("a1", "v2", "go-v2"),),
        (both("a1", "yamux"),),
        (both("a1", "smux"),),
        (both("a1", "rust"),),
        (both("a1", "trio-kept"),),
        (wide("b", "v1", "go-v1"),),
        (wide("b", "v2", "go-v2"),),
        (both("b", "trio-tcp", show=whole),),
        (both("b", "smux"),),
        (both("b64k", "trio-tcp", show=whole),),
        (beside("c"),),
        (both("c", *SAME_VERSION),),
        (beside("d10000", middle),),
        (beside("f", middle),),
        (wide("tls-a64", "v1", "go-v1"),),
        (wide("tls-a64", "v2", "go-v2"),),
        (both("tls-a64", "smux"),),
        (wide("tls-b", "v1", "go-v1"),),
        (wide("tls-b", "v2", "go-v2"),),
        (both("tls-b", "trio-tcp"),),
        (wide("session", "v1", "go-v1"),),
        (wide("session", "v2", "go-v2"),),
        (both("session", "yamux"),),
        (both("session", "smux"),),
        (both("session", "trio-tcp"),),
    ],
    "requests": each(
        (*OURS_AND_GO, "sketch", "trio-tcp"),
        ("a1", RATE, 0),
        ("a64", RATE, 0),
        ("a64", CLIENT_CPU, 0),
        ("a64", SERVER_CPU, 0),
    ),
    "bulk": each((*OURS_AND_GO, "trio-tcp"), ("b", BULK, 0), ("c", BULK, 0), ("tls-b", BULK, 0)),
    "memory": each(
        (*OURS_AND_GO, "sketch"),
        ("d10000", kibibytes(CLIENT_MEMORY), 1),
        ("d10000", kibibytes(SERVER_MEMORY), 1),
    ),
    "sessions": each(
        SESSIONS_OF, ("session", CLIENT_CPU, 0), ("session", SERVER_CPU, 0), ("session", RATE, 0)
    ),
    "idle_sessions": each(
        SESSIONS_OF,
        ("idle-sessions", kibibytes(CLIENT_MEMORY), 1),
        ("idle-sessions", kibibytes(SERVER_MEMORY), 1),
        ("idle-sessions", IDLE_CPU[0], 1),
        ("idle-sessions", IDLE_CPU[1], 1),
    ),
    "counts": [
        counted("request, 64 at once", "task switches", 1),
        counted("request, 64 at once", "frames"),
        counted("request, 64 at once", "transport writes", 2),
        counted("request, 64 at once", "calls"),
        counted("request, 64 at once", "calls, ours"),
        counted("request, 1 at once", "task switches", 1),
        counted("request, 1 at once", "transport writes"),
        counted("request, 1 at once", "calls"),
        counted("request, 1 at once", "calls, ours"),
    ],
}


def source(document: Mapping[str, Any]) -> str:
    """Which run it was, in a sentence."""
    where, settings = document["machine"], document["settings"]
    when = datetime.fromisoformat(document["when"])
    return (
        f"{_commit(document)}, measured on {when.day} {when:%B %Y}: CPython {where['python']} on "
        f"{where['system']}, {where['cores']} cores ({where['cpu']}). {settings['rounds']} rounds; "
        f"each measurement took {settings['seconds']:g} s."
    )


def _commit(document: Mapping[str, Any]) -> str:
    changed = ", with changes that no commit has" if document["changed"] else ""
    return f"Commit `{document['commit'][:10]}`{changed}"


def short_source(document: Mapping[str, Any]) -> str:
    when = datetime.fromisoformat(document["when"])
    return f"{_commit(document)}, {when.day} {when:%B %Y}, CPython {document['machine']['python']}."


def short_source_in_chinese(document: Mapping[str, Any]) -> str:
    when = datetime.fromisoformat(document["when"])
    changed = "（另有未提交的改动）" if document["changed"] else ""  # noqa: RUF001
    commit, python = document["commit"][:10], document["machine"]["python"]
    date = f"{when.year} 年 {when.month} 月 {when.day} 日"
    return f"提交 `{commit}`{changed}，{date}，CPython {python}。"  # noqa: RUF001


PARAGRAPHS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "source": source,
    "readme_source": short_source,
    "readme_source_zh": short_source_in_chinese,
}


def filled(text: str, run: Run) -> str:
    """A page with what this run found."""

    def fill(block: re.Match[str]) -> str:
        begin, name, inside, end = block.groups()
        if name in PARAGRAPHS:
            return f"{begin}{PARAGRAPHS[name](run.document)}\n{end}"
        return f"{begin}{''.join(_rows(name, inside, run))}{end}"

    return BLOCK.sub(fill, text)


def _rows(name: str, table: str, run: Run) -> Iterator[str]:
    head, rule, *rows = table.splitlines(keepends=True)
    yield from (head, rule)
    for row, cells in zip(rows, TABLES[name], strict=True):
        own = row.split("|")[1 : -1 - len(cells)]
        found = (f" {cell(run)} " for cell in cells)
        yield "|" + "|".join([*own, *found]) + "|\n"


def fill(run: Run) -> list[Path]:
    """Write the figures into the pages; gives those that have any."""
    pages = [ROOT / name for name in PAGES if BLOCK.search((ROOT / name).read_text("utf-8"))]
    for page in pages:
        page.write_text(filled(page.read_text("utf-8"), run), encoding="utf-8")
    return pages
