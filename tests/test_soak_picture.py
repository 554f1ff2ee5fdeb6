"""What the documentation shows of a soak."""

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

from docs.pictures.svg import SMALL
from tests.helpers.drawings import check_it_reads
from tests.soak.account import MIB
from tests.soak.page import PAGE, PICTURE, SUMMARY, tables
from tests.soak.picture import draw, summary, title


def a_run() -> dict[str, Any]:
    rounds = [
        {
            "kind": "round",
            "seconds": 60.0 * minute,
            "streams": 500_000 * minute,
            "resident": (50 + minute) * MIB,
            "files": 12,
            "tasks": 11,
            "objects": 0,
        }
        for minute in range(1, 31)
    ]
    verdict = {
        "kind": "verdict",
        "streams": 150_000,
        "sessions": 3000,
        "peers": 400,
        "outcomes": {"done": 3, "reset here": 1, "session closed": 100, "killed peer": 100},
        "mib_per_100000_streams": 0.5,
        "faults": [],
    }
    kept = summary([{"kind": "sample"}, *rounds, verdict])
    return {"commit": "0123456789" * 4, "changed": False, **kept}


def test_the_page_says_what_was_run_and_what_came_of_it() -> None:
    text = " ".join(tables(a_run())["run"].split())
    assert text.startswith("The last long run took 30 minutes, at commit `0123456789`.")
    assert "150,000 streams in 3,000 sessions, and started 400 programs" in text
    assert "75% of the uses" in text
    assert "0.5 MiB for each 100,000 streams, and there were no faults" in text
    assert f"![{title(a_run())}](soak.svg)" in text


def test_the_page_and_the_picture_are_those_of_the_run_that_is_kept() -> None:
    document = json.loads(SUMMARY.read_text("utf-8"))
    assert re.fullmatch("[0-9a-f]{40}", document["commit"])
    assert not document["changed"]
    assert document["verdict"]["passed"]
    assert PICTURE.read_text("utf-8") == draw(document)
    page = PAGE.path.read_text("utf-8")
    assert PAGE.filled(page, document) == page
    assert [block[2] for block in PAGE.blocks.finditer(page)] == ["run"]


def test_the_picture_has_a_line_for_each_thing_that_is_held() -> None:
    root = ET.fromstring(draw(a_run()))
    curves = [path for path in root.iter() if path.get("class") == "curve"]
    assert [path.get("d", "").count("L") for path in curves] == [29] * 5
    texts = {text.text: text for text in root.iterfind(".//{*}text")}
    assert {"12 files", "11 tasks", "0 objects", "Resident memory, MiB"} <= texts.keys()
    heights = sorted(float(texts[f"{name}"].get("y", "")) for name in ("12 files", "11 tasks"))
    assert heights[1] - heights[0] > SMALL, "one name lies on the other"


def test_the_picture_reads_in_the_dark_and_on_a_phone() -> None:
    drawing = draw(a_run())
    check_it_reads(drawing)
    assert ET.fromstring(drawing).findtext("{*}title") == title(a_run())
