"""Figures that were measured once and noted: from docs/measured.json into the pages.

    python -m benchmarks.measured          fills docs/performance.md and docs/capacity.md

Nothing is measured here.  Each record has the commit that first wrote its figure down, and the
day of that commit.  What docs/capacity.md computes comes from these records and from
docs/tunnels.json, the run of `benchmarks.tunnels`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import fill
from typing import Any

from . import tunnels
from ._blocks import Page
from ._build import ROOT

RECORDS = ROOT / "docs" / "measured.json"
NOTED = "noted in"

Record = Mapping[str, Any]


def noted(record: Record) -> str:
    return f"`{record['commit'][:7]}`"


def rows(records: Sequence[Record], *columns: str) -> str:
    """A table of them: these columns, then the commit."""
    body = [[*(record[key] for key in columns), noted(record)] for record in records]
    heads = ["" if key in ("what", "change") else key for key in columns]
    return tunnels.table([[*heads, NOTED], *body])


def performance(document: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    return {
        "interpreters": rows(document["interpreters"], "what", "v1", "v2"),
        "helped": rows(document["helped"], "change", "result"),
        "in_vain": rows(document["in_vain"], "change", "result"),
        "alone": rows(document["alone"], "what", "result"),
    }


def relay_seconds(load: str) -> float:
    """The relay's CPU time for each request, in a load of `benchmarks.tunnels`."""
    run = json.loads((ROOT / "docs" / "tunnels.json").read_text("utf-8"))
    rounds = run["results"][load]["ours-v2"]
    return tunnels.median(rounds, lambda of: of["relay_cpu"] / of["requests"])


def capacity(document: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    records = [{**record, "result": shown(record)} for record in document["relay"]]
    connection, megabyte = (
        (record["low"] + record["high"]) / 2 for record in records if "low" in record
    )
    return {
        "carries": carries(),
        "relay": rows(
            [{**record, "result": shown(record)} for record in records], "what", "result"
        ),
        "worked": worked(connection, megabyte),
    }


def shown(record: Record) -> str:
    return record.get("result") or f"{record['low']} to {record['high']}"


def carries() -> str:
    table = [["what", "CPU time", "so one core does at most"]]
    for title, load, unit in (
        ("a visitor's connection with one small request, 16 at once", "each", "a second"),
        ("a small request on a connection that is kept, 16 at once", "kept", "a second"),
        ("a small request on a connection that is kept, one after the other", "redis", "a second"),
        ("a megabyte to a visitor", "files", "MB a second"),
    ):
        took = relay_seconds(load)
        table.append([title, tunnels.microseconds(took), f"about {about(1 / took)} {unit}"])
    return tunnels.table(table)


def about(number: float) -> str:
    """With two digits that count."""
    places = len(str(int(number))) - 2
    return f"{round(number, -places):,.0f}"


def worked(passed_connection: float, passed_megabyte: float) -> str:
    """What three sites need, by arithmetic with the figures above it."""
    connection, request, megabyte = (relay_seconds(name) for name in ("each", "redis", "files"))
    ten = 500 * connection + 2000 * request
    half = (1 + passed_connection) / 2
    connections, bulk = 20_000 * connection, 200 * megabyte
    passed = connections * passed_connection + bulk * passed_megabyte
    relays = ceil(passed / 0.6)
    paragraphs = (
        "*One agent*, for a few hundred visitors at once: one relay, no Redis, no HAProxy. If the "
        "machine dies, nobody reaches the service. A second relay with HAProxy and Redis prevents "
        "that. The load doesn't need it.",
        "*Ten agents*, 500 new connections and 2,000 small requests on kept connections a second: "
        f"500 of {tunnels.microseconds(connection)} and 2,000 of {tunnels.microseconds(request)} "
        f"are {ten:.2f} of a core. One relay can carry that, with little to spare. With two relays "
        "and one agent for each name, half of the visitors are passed on, which makes it "
        f"{ten:.2f} times {half:.2f}, or {ten * half / 2:.2f} of a core for each of the two. If "
        f"one fails, the other needs {ten:.2f} of a core, and passes nothing on.",
        "*A thousand agents*, 20,000 new connections a second and 200 MB a second: "
        f"20,000 of {tunnels.microseconds(connection)} and 200 of {tunnels.microseconds(megabyte)} "
        f"are {connections + bulk:.1f} cores. With dozens of relays nearly every visitor is passed "
        f"on if each name has one agent: {passed:.0f} cores. At 60 % of each core that is {relays} "
        f"relays, on {ceil(relays / 8)} machines of eight cores, and one more machine in case "
        f"one fails. With an agent of each name at every relay ({relays} connections from each "
        f"agent's machine) it would be {ceil((connections + bulk) / 0.6)} relays.",
    )
    return "\n\n".join(fill(text, 105) for text in paragraphs) + "\n"


PAGES = (
    Page(ROOT / "docs" / "performance.md", "measured", performance),
    Page(ROOT / "docs" / "capacity.md", "measured", capacity),
)


def main() -> None:
    document = json.loads(RECORDS.read_text("utf-8"))
    for page in PAGES:
        page.path.write_text(page.filled(page.path.read_text("utf-8"), document), "utf-8")


if __name__ == "__main__":
    main()
