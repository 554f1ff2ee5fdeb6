"""What the benchmark of tunnels makes of its figures."""

import json
import re

import pytest

from benchmarks import tunnels
from benchmarks._tunnels import KINDS, NotStartedError


def test_what_wrk_prints() -> None:
    said = "  1054 requests in 1.01s, 226.48KB read\n"
    assert tunnels.wrk_figures(said) == {"requests": 1054, "seconds": 1.01, "errors": 0}
    said = "  9 requests in 900.00ms, 1KB read\n"
    said += "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
    said += "  Non-2xx or 3xx responses: 5\n"
    assert tunnels.wrk_figures(said) == {"requests": 9, "seconds": 0.9, "errors": 15}
    with pytest.raises(NotStartedError, match="no result: 'unable to connect'"):
        tunnels.wrk_figures("unable to connect")


def test_ratios_are_of_the_same_round() -> None:
    of = [{"requests": 10.0, "seconds": 1.0}, {"requests": 9.0, "seconds": 3.0}]
    to = [{"requests": 20.0, "seconds": 1.0}, {"requests": 1.0, "seconds": 1.0}]
    assert tunnels.ratios(of, to) == [0.5, 3.0]


def test_the_tables_have_all_tunnels_and_loads() -> None:
    figures = {"requests": 100.0, "seconds": 1.0, "errors": 0.0, "p50": 3e-4, "p99": 1e-3}
    figures |= {"relay_cpu": 0.05, "agent_cpu": 0.04}
    results = {load.name: {kind.name: [figures] for kind in KINDS} for load in tunnels.LOADS}
    about = {"commit": "0" * 40, "python": "3.11.2", "trio": "0.35.0", "bore": "0.6.0", "rounds": 1}
    found = tunnels.tables({"results": results, **about})
    loads = len(tunnels.LOADS)
    for name, rows in (
        ("rates", loads - 1),
        ("cpu", loads),
        ("plain", loads - 1),
        ("latency", len(KINDS)),
    ):
        head, _, *body = found[name].splitlines()
        assert len(body) == rows
        assert {line.count("|") for line in body} == {head.count("|")}
    assert "| 1.00 (1.00 to 1.00) |" in found["rates"]
    assert "| 500 + 400 |" in found["cpu"]
    page = "<!-- tunnels: about -->\n\nold\n\n<!-- end of tunnels -->"
    assert "bore 0.6.0; 1 rounds." in tunnels.PAGE.filled(page, {"results": results, **about})


def test_the_page_has_the_figures_of_the_run() -> None:
    document = json.loads((tunnels.PAGE.path.parent / "tunnels.json").read_text("utf-8"))
    assert re.fullmatch("[0-9a-f]{40}", document["commit"])
    assert not document["changed"]
    assert document["rounds"] >= 9
    text = tunnels.PAGE.path.read_text("utf-8")
    assert tunnels.PAGE.filled(text, document) == text
    assert {block[2] for block in tunnels.PAGE.blocks.finditer(text)} == tunnels.tables(
        document
    ).keys()
    requests = (load for name, load in document["results"].items() if name != "redis")
    assert not [
        each for load in requests for rounds in load.values() for each in rounds if each["errors"]
    ]
