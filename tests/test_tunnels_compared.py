"""What the benchmark of tunnels makes of its figures."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import pytest

from benchmarks import tunnels
from benchmarks._tunnels import KINDS, Kind, NotStartedError, Running


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
    every = {kind.name: [figures] for kind in KINDS}
    without = {name: found for name, found in every.items() if name != "ours-app"}
    results = {
        load.name: every if load.service == "application" else without for load in tunnels.LOADS
    }
    about = {"commit": "0" * 40, "python": "3.11.2", "trio": "0.35.0", "bore": "0.6.0", "rounds": 1}
    found = tunnels.tables({"results": results, **about})
    applications = [load for load in tunnels.LOADS if load.service == "application"]
    loads = len(tunnels.LOADS) - len(applications)
    for name, rows in (
        ("rates", loads - 1),
        ("cpu", loads),
        ("plain", loads - 1),
        ("application", len(KINDS)),  # bore's row has rates
        ("latency", len(without)),
    ):
        head, _, *body = found[name].splitlines()
        assert len(body) == rows
        assert {line.count("|") for line in body} == {head.count("|")}
    assert "| 1.00 (1.00 to 1.00) |" in found["rates"]
    assert "| 500 + 400 |" in found["cpu"]
    assert "`expose module:app` | 1.00 (1.00 to 1.00) |" in found["application"]
    assert "| requests a second with `bore` | 100 | 100 | 100 |" in found["application"]
    # The application runs in the agent there, whose CPU time is not that of a tunnel.
    assert "module:app" not in found["cpu"] + found["plain"] + found["rates"]
    page = "<!-- tunnels: about -->\n\nold\n\n<!-- end of tunnels -->"
    assert "bore 0.6.0; 1 rounds." in tunnels.PAGE.filled(page, {"results": results, **about})
    earlier = {name: load for name, load in results.items() if not name.startswith("app-")}
    assert "Not measured yet" in tunnels.tables({"results": earlier, **about})["application"]


def test_a_tunnel_without_the_service_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"requests": 1.0, "seconds": 1.0}

    @contextmanager
    def services() -> Iterator[dict[str, int]]:
        yield {"http": 1, "application": 2}

    @contextmanager
    def start(names: tuple[str, ...], ports: Mapping[str, int]) -> Iterator[Running]:
        yield Running({name: ports[name] for name in names})

    monkeypatch.setattr(tunnels, "services", services)
    monkeypatch.setattr(tunnels, "wait_for", lambda running: None)
    monkeypatch.setattr(tunnels, "provenance", dict)
    monkeypatch.setattr(tunnels.Load, "run", lambda self, running: figures)
    loads = tunnels.Load("a", "", "", 1), tunnels.Load("b", "", "", 1, service="application")
    monkeypatch.setattr(tunnels, "LOADS", loads)
    kinds = (
        Kind("all", "", partial(start, ("http", "application"))),
        Kind("app", "", partial(start, ("application",))),
    )
    found = tunnels.measure(kinds, 2)["results"]
    assert found == {"a": {"all": [figures] * 2}, "b": {"all": [figures] * 2, "app": [figures] * 2}}


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
