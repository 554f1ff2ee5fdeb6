"""The picture for the docs: four of the works as bars, ours among the others.

It is drawn twice: with two panels side by side, and for narrow screens with one below the other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from docs.pictures.svg import SMALL, WIDTH, Canvas

from ._registry import (
    BULK,
    CLIENT_MEMORY,
    RATE,
    SERVER_MEMORY,
    TAIL,
    WORKS,
    Contender,
    Metric,
)
from ._report import OURS, Outcomes, Spread

BOTH_MEMORIES = Metric(
    "bytes/stream",
    lambda r: CLIENT_MEMORY.value(r) + SERVER_MEMORY.value(r),
    higher_is_better=False,
)
# The work, what is drawn of it, and its title.
PANELS: tuple[tuple[str, Metric, str], ...] = (
    ("a64", RATE, "Requests per second, 64 at once"),
    ("b", BULK, "Bulk on one stream, MB/s"),
    ("d10000", BOTH_MEMORIES, "Memory of an idle stream, both sides, bytes"),
    ("f", TAIL, "p99 of requests beside bulk, ms"),
)

LABELS, BARS = 272, 180  # units of a panel's width; what is left is for the figures
BAR, HEAD, FOOT_LINE = 26, 62, 22


class Bar(NamedTuple):
    """A contender in a panel."""

    title: str
    ours: bool
    spread: Spread


class Panel(NamedTuple):
    title: str
    better: str
    bars: list[Bar]

    @property
    def height(self) -> int:
        return HEAD + BAR * len(self.bars) + 24


def panels_of(outcomes: Mapping[str, Outcomes], contenders: Sequence[Contender]) -> list[Panel]:
    """What there is to draw, the best contender of each panel first."""
    titles = {contender.name: contender.title for contender in contenders}
    panels = []
    for work, metric, title in PANELS:
        bars = [
            Bar(titles[name], name in OURS, spread)
            for name, outcome in outcomes.get(work, {}).items()
            if (spread := Spread.of(outcome.values(metric)))
        ]
        bars.sort(key=lambda bar: bar.spread.median, reverse=metric.higher_is_better)
        if bars:
            better = "longer is better" if metric.higher_is_better else "shorter is better"
            panels.append(Panel(title, better, bars))
    return panels


def _draw_panel(canvas: Canvas, panel: Panel, x: float, y: float) -> None:
    canvas.text(x + 8, y + 16, panel.title, anchor="start", bold=True)
    canvas.text(x + 8, y + 40, panel.better, size=SMALL, anchor="start", colour="soft")
    scale = BARS / max(bar.spread.high for bar in panel.bars)
    start = x + LABELS
    for place, (title, ours, spread) in enumerate(panel.bars):
        top = y + HEAD + place * BAR
        middle = top + BAR / 2
        canvas.text(start - 8, middle, title, size=SMALL, anchor="end", bold=ours)
        colour = "ours" if ours else "theirs"
        canvas.bar(start, top + 4, max(1, spread.median * scale), BAR - 8, colour)
        canvas.whisker(start + spread.low * scale, start + spread.high * scale, middle)
        figure = f"{spread.median:,.{0 if spread.median >= 100 else 1}f}"
        end = start + spread.high * scale + 8
        canvas.text(end, middle, figure, size=SMALL, anchor="start", bold=ours)


def _sheet(panels: Sequence[Panel], columns: int, foot: str) -> Canvas:
    rows = [panels[index : index + columns] for index in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    lines = textwrap.wrap(foot, 60 * columns)
    titles = "; ".join(f"{panel.title} ({panel.better})" for panel in panels)
    height = sum(heights) + FOOT_LINE * len(lines) + 8
    canvas = Canvas(f"Bars of all contenders. {titles}. {foot}", height, WIDTH * columns)
    y = 0
    for row, tall in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            _draw_panel(canvas, panel, column * WIDTH, y)
        y += tall
    for index, line in enumerate(lines):
        place = y + FOOT_LINE * (index + 0.5)
        canvas.text(8, place, line, size=SMALL, anchor="start", colour="soft")
    return canvas


def draw(
    outcomes: Mapping[str, Outcomes], contenders: Sequence[Contender], foot: str, path: Path
) -> list[Path]:
    """Write ``path``, and beside it the form for narrow screens; nothing if nothing was run."""
    panels = panels_of(outcomes, contenders)
    written = []
    for columns, file in ((2, path), (1, path.with_stem(f"{path.stem}-narrow"))):
        if panels:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_sheet(panels, columns, foot).svg(), encoding="utf-8")
            written.append(file)
    return written


assert {panel[0] for panel in PANELS} <= {work.name for work in WORKS}
