"""What docs/which.md says of lost packets and large payloads: the model, and its figures."""

import json
import re

from benchmarks import lossy


def talk(way: str, loss: float) -> dict[str, float]:
    found: dict[str, float] = lossy.in_virtual_time(lossy.converse, lossy.WAYS[way], loss, 30)
    return found


def test_a_lost_packet_makes_all_streams_of_a_session_late() -> None:
    for way in lossy.WAYS:
        assert talk(way, 0)["late"] == 0
    plain = talk("a connection each", 0.03)["late"]
    assert plain > 0
    for version in ("v1", "v2"):
        assert talk(f"one session, {version}", 0.03)["late"] > 1.2 * plain


def test_a_window_that_has_to_grow_costs_round_trips() -> None:
    took = {
        name: lossy.in_virtual_time(lossy.upload, way, 1_000_000)
        for name, way in lossy.WAYS.items()
    }
    plain, v2, v1 = (took[name] for name in reversed(lossy.WAYS))
    assert plain + lossy.ROUND_TRIP / 2 < v2 < v1 - lossy.ROUND_TRIP


def test_the_page_has_the_figures_of_the_run() -> None:
    document = json.loads((lossy.ROOT / "docs" / "lossy.json").read_text("utf-8"))
    assert re.fullmatch("[0-9a-f]{40}", document["commit"])
    assert not document["changed"]
    text = lossy.PAGE.path.read_text("utf-8")
    assert lossy.PAGE.filled(text, document) == text
    assert {block[2] for block in lossy.PAGE.blocks.finditer(text)} == lossy.tables(document).keys()
