"""What the documentation shows of a run: a few lines, and its picture.

``python -m tests.soak.page`` fills them in from the summary that is kept, docs/soak.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks._blocks import Page

from .picture import draw, title

DOCS = Path(__file__).parents[2] / "docs"
SUMMARY, PICTURE = DOCS / "soak.json", DOCS / "soak.svg"


def tables(document: dict[str, Any]) -> dict[str, str]:
    """The block of the page."""
    verdict = document["verdict"]
    outcomes = verdict["outcomes"]
    done, all_uses = (
        outcomes["done"],
        sum(
            count for name, count in outcomes.items() if not name.startswith(("session ", "killed"))
        ),
    )
    ran = (
        f"The last long run took {document['rounds']['seconds'][-1] / 60:.0f} minutes, at commit "
        f"`{document['commit'][:10]}`. It had {verdict['streams']:,} streams in "
        f"{verdict['sessions']:,} sessions, and started {verdict['peers']:,} programs of other "
        f"implementations. {done / all_uses:.0%} of the uses of streams ended as their "
        "application wanted; the others were cancelled, reset, left unread or broken."
    )
    came_of_it = (
        f"Memory grew by {verdict['mib_per_100000_streams']} MiB for each 100,000 streams, and "
        f"there were {len(verdict['faults']) or 'no'} faults."
    )
    paragraphs = (fill(text, 104) for text in (ran, came_of_it))
    picture = f"![{title(document)}]({PICTURE.name})\n"
    return {"run": "\n\n".join([*paragraphs, picture])}


PAGE = Page(DOCS / "proofs.md", "soak", tables)


def publish(document: dict[str, Any]) -> None:
    """Keep a run, draw it, and fill in the page."""
    SUMMARY.write_text(json.dumps(document) + "\n", "utf-8")
    PICTURE.write_text(draw(document), "utf-8")
    PAGE.path.write_text(PAGE.filled(PAGE.path.read_text("utf-8"), document), "utf-8")


if __name__ == "__main__":
    publish(json.loads(SUMMARY.read_text("utf-8")))
