"""Records of what was measured once, a request's profile, and attacks: on the pages."""

import json
import re
from datetime import date
from typing import Any

import pytest

from benchmarks import attacks, measured, where
from benchmarks._attacks import ATTACKS
from benchmarks._blocks import Page

RECORDS: dict[str, list[dict[str, Any]]] = json.loads(measured.RECORDS.read_text("utf-8"))


@pytest.mark.parametrize("page", measured.PAGES, ids=lambda page: page.path.stem)
def test_a_page_has_what_the_records_say(page: Page) -> None:
    text = page.path.read_text("utf-8")
    assert page.filled(text, RECORDS) == text
    assert [block[2] for block in page.blocks.finditer(text)] == list(page.tables(RECORDS))


def test_every_record_names_its_commit_and_stands_on_a_page() -> None:
    tables = "".join(text for page in measured.PAGES for text in page.tables(RECORDS).values())
    for record in (record for records in RECORDS.values() for record in records):
        assert re.fullmatch("[0-9a-f]{40}", record["commit"])
        assert date.fromisoformat(record["when"])
        row = f"| {record.get('what') or record['change']} |"
        (line,) = (line for line in tables.splitlines() if line.startswith(row))
        assert line.endswith(f"| `{record['commit'][:7]}` |")


def test_arithmetic_follows_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"each": 1e-3, "kept": 1e-5, "redis": 1e-4, "files": 2e-3}
    monkeypatch.setattr(measured, "relay_seconds", seconds.__getitem__)
    assert "| 1,000 µs | about 1,000 a second |" in measured.carries()
    assert "| 2,000 µs | about 500 MB a second |" in measured.carries()
    said = " ".join(measured.worked(3, 2).split())
    assert "500 of 1,000 µs and 2,000 of 100 µs are 0.70 of a core" in said
    assert "0.70 times 2.00, or 0.70 of a core for each of the two" in said
    assert "20,000 of 1,000 µs and 200 of 2,000 µs are 20.4 cores" in said
    assert "has one agent: 61 cores" in said  # 20 x 3 and 0.4 x 2
    assert "is 102 relays, on 13 machines" in said
    assert "would be 34 relays" in said


def test_the_profile_of_a_request() -> None:
    assert where.share("run (trio/_core/_run.py:1)") == "trio: switching tasks"
    assert where.share("send (trio_muxado/_protocol/stream.py:1)") == "the protocol core"
    assert where.share("run (trio_muxado/_writer.py:1)") == "reader, writer and nurseries"
    assert where.share("wait (trio/_channel.py:1)") == "the rest of trio"
    assert where.share("dumps (json/__init__.py:1)") == where.REST


@pytest.mark.parametrize("name, page", [("where", where.PAGE), ("attacks", attacks.PAGE)])
def test_a_page_has_the_figures_of_the_run(name: str, page: Page) -> None:
    document = json.loads((page.path.parent / f"{name}.json").read_text("utf-8"))
    assert re.fullmatch("[0-9a-f]{40}", document["commit"])
    assert not document["changed"]
    text = page.path.read_text("utf-8")
    assert page.filled(text, document) == text
    assert [block[2] for block in page.blocks.finditer(text)] == list(page.tables(document))


def test_the_run_of_attacks_has_all_of_them_and_no_harm() -> None:
    run = json.loads((attacks.PAGE.path.parent / "attacks.json").read_text("utf-8"))
    played = [(result["attack"], result["wire"]) for result in run["results"]]
    assert played == [(attack.name, wire) for attack in ATTACKS for wire in attack.wires]
    assert not any(result["faults"] for result in run["results"])
