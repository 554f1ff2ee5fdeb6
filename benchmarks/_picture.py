"""The picture for the docs: four of the works as bars, ours among the others."""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
INK, PAPER, OUR_COLOUR, THEIR_COLOUR = "#1f2430", "#ffffff", "#0b6e4f", "#b4bcc8"


def _panel(
    axes: Axes, metric: Metric, title: str, outcomes: Outcomes, titles: Mapping[str, str]
) -> None:
    spreads = {
        name: spread
        for name, outcome in outcomes.items()
        if (spread := Spread.of(outcome.values(metric)))
    }
    order = sorted(spreads, key=lambda n: spreads[n].median, reverse=not metric.higher_is_better)
    middles = [spreads[name].median for name in order]
    reach = [
        [spreads[name].median - spreads[name].low for name in order],
        [spreads[name].high - spreads[name].median for name in order],
    ]
    colours = [OUR_COLOUR if name in OURS else THEIR_COLOUR for name in order]
    axes.barh(range(len(order)), middles, color=colours, height=0.72)
    axes.errorbar(
        middles, range(len(order)), xerr=reach, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2
    )
    for place, name in enumerate(order):
        middle = spreads[name].median
        digits = 0 if middle >= 100 else 1
        axes.annotate(
            f"{middle:,.{digits}f}",
            (spreads[name].high, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(range(len(order)), [titles[name] for name in order], fontsize=8.5, color=INK)
    for label, name in zip(axes.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if name in OURS else "normal")
    better = "longer is better" if metric.higher_is_better else "shorter is better"
    axes.set_title(f"{title}\n", loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.text(
        0,
        1.02,
        better,
        transform=axes.transAxes,
        fontsize=8.5,
        color=INK,
    )
    axes.margins(x=0.16, y=0.02)
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw(
    outcomes: Mapping[str, Outcomes], contenders: Sequence[Contender], foot: str, path: Path
) -> list[Path]:
    """Write ``path`` as .svg and .png; panels whose work was not run are left out."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "trio_muxado"  # the same figures, the same file
    mpl.rcParams["font.family"] = "DejaVu Sans"
    from matplotlib import pyplot

    panels = [panel for panel in PANELS if panel[0] in outcomes]
    if not panels:
        return []
    titles = {contender.name: contender.title for contender in contenders}
    rows, columns = (len(panels) + 1) // 2, min(2, len(panels))
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(6.4 * columns, 4.3 * rows), squeeze=False, facecolor=PAPER
    )
    places = list(grid.flat)
    for axes, (work, metric, title) in zip(places, panels, strict=False):
        _panel(axes, metric, title, outcomes[work], titles)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    figure.text(0.01, 0.005, foot, fontsize=8, color=INK)
    figure.tight_layout(rect=(0, 0.025, 1, 1), h_pad=2.5, w_pad=2)
    written = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    for file in written:
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=150, metadata=metadata)
    pyplot.close(figure)
    return written


assert {panel[0] for panel in PANELS} <= {work.name for work in WORKS}
