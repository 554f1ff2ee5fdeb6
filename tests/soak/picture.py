"""The picture of a soak: memory, files and tasks over the streams that it ran."""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .account import MIB

INK, PAPER, COLOURS = "#1f2430", "#ffffff", ("#0b6e4f", "#b3541e", "#3a5a98", "#7a3b8f")


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the lines of ``soak.jsonl`` into an SVG file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "soak"  # the same run is the same file
    from matplotlib import pyplot

    rounds = [line for line in lines if line["kind"] == "round"]
    verdict = lines[-1]
    minutes = [line["seconds"] / 60 for line in rounds]
    figure, (memory, held, done) = pyplot.subplots(
        3, 1, figsize=(8, 7.5), sharex=True, facecolor=PAPER, layout="constrained"
    )
    memory.plot(minutes, [line["resident"] / MIB for line in rounds], color=COLOURS[0])
    memory.set_ylim(0, None)
    memory.set_ylabel("resident memory, MiB", color=INK)
    memory.set_title(
        f"{verdict['streams']:,} streams in {verdict['sessions']:,} sessions; "
        "each point is a moment in which no session lives",
        loc="left",
        fontsize=10,
        color=INK,
    )
    for colour, name in zip(COLOURS, ("tasks", "files", "objects"), strict=False):
        held.plot(minutes, [line[name] for line in rounds], color=colour, label=name)
    held.set_ylim(0, None)
    held.set_ylabel("held between sessions", color=INK)
    held.legend(frameon=False, ncols=3, fontsize=8)
    for colour, name in zip(COLOURS, ("streams", "sessions"), strict=False):
        done.plot(minutes, [line[name] for line in rounds], color=colour, label=name)
    done.set_yscale("log")
    done.set_ylabel("so far", color=INK)
    done.set_xlabel("minutes", color=INK)
    done.legend(frameon=False, ncols=2, fontsize=8)
    for axes in (memory, held, done):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8)
    figure.savefig(path, metadata={"Date": None})
