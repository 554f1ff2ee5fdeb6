"""The picture of a soak: memory, files and tasks over the time that it ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from docs.pictures.svg import SMALL, WIDTH, Canvas

from .account import MIB

LEFT, RIGHT = 76, 110  # units beside a chart: figures of its axis, names of its lines
TALL, HEAD, GAP = 130, 40, 26
LABEL = 22  # units that the name of a line takes
HELD = ("files", "tasks", "objects")


class Line(NamedTuple):
    name: str
    values: Sequence[float]


class Chart(NamedTuple):
    title: str
    lines: Sequence[Line]


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of the lines of ``soak.jsonl``: the verdict, and a figure of each round."""
    rounds = [line for line in lines if line["kind"] == "round"]
    names = ("seconds", "streams", "resident", *HELD)
    return {
        "verdict": {name: value for name, value in lines[-1].items() if name != "kind"},
        "rounds": {name: [line[name] for line in rounds] for name in names},
    }


def charts_of(rounds: dict[str, list[float]]) -> list[Chart]:
    """What is drawn, from above."""
    return [
        Chart("Resident memory, MiB", [Line("", [size / MIB for size in rounds["resident"]])]),
        Chart(
            "Held while no session lives",
            [Line(f"{rounds[name][-1]} {name}", rounds[name]) for name in HELD],
        ),
        Chart("Streams so far, thousands", [Line("", [n / 1000 for n in rounds["streams"]])]),
    ]


def title(document: dict[str, Any]) -> str:
    """The picture in words, for those who do not see it."""
    rounds = document["rounds"]
    words = (
        f"{chart.title}: {', '.join(described(line) for line in chart.lines)}"
        for chart in charts_of(rounds)
    )
    return f"Lines over {rounds['seconds'][-1] / 60:.0f} minutes. {'. '.join(words)}."


def draw(document: dict[str, Any]) -> str:
    """Draw what ``summary`` has kept, as an SVG file."""
    minutes = [seconds / 60 for seconds in document["rounds"]["seconds"]]
    charts = charts_of(document["rounds"])
    canvas = Canvas(title(document), len(charts) * (HEAD + TALL + GAP) + 24)
    for place, chart in enumerate(charts):
        _draw_chart(canvas, chart, minutes, HEAD + place * (HEAD + TALL + GAP))
    canvas.text(WIDTH - RIGHT, canvas.height - 14, "minutes", size=SMALL, anchor="end")
    return canvas.svg()


def described(line: Line) -> str:
    if line.name:
        return line.name
    return f"{line.values[0]:,.0f} at first, {line.values[-1]:,.0f} at last"


def _draw_chart(canvas: Canvas, chart: Chart, minutes: Sequence[float], top: float) -> None:
    bottom, width = top + TALL, WIDTH - LEFT - RIGHT
    most = max(max(line.values) for line in chart.lines) * 1.1 or 1
    canvas.text(8, top - 22, chart.title, anchor="start", bold=True)
    canvas.path(f"M{LEFT} {top}V{bottom}H{LEFT + width}")
    for value in (0, most / 1.1):
        y = bottom - TALL * value / most
        canvas.text(LEFT - 8, y, f"{value:,.0f}", size=SMALL, anchor="end", colour="soft")
    for part in range(5):
        x = LEFT + width * part / 4
        minute = f"{minutes[-1] * part / 4:.0f}"
        canvas.text(x, bottom + 14, minute, size=SMALL, colour="soft")
    above = bottom + LABEL
    for line in sorted(chart.lines, key=lambda line: line.values[-1]):
        points = (
            f"{LEFT + width * minute / minutes[-1]:.1f} {bottom - TALL * value / most:.1f}"
            for minute, value in zip(minutes, line.values, strict=True)
        )
        canvas.path("M" + "L".join(points), colour="curve")
        # Names of lines that lie close together keep clear of each other.
        above = min(above - LABEL, bottom - TALL * line.values[-1] / most)
        canvas.text(LEFT + width + 8, above, line.name, size=SMALL, anchor="start")
