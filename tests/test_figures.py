"""The figures of speed on the pages, and the picture: from one run, by a program."""

import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import _pages, _versions, run
from benchmarks._picture import draw
from benchmarks._registry import CONTENDERS, WORKS
from benchmarks._report import Outcome, Outcomes
from docs.pictures.svg import WIDTH

ROOT = Path(__file__).parents[1]


def a_run() -> dict[str, Outcomes]:
    """Three rounds of everything, in which each contender is slower than the one before it."""
    outcomes: dict[str, Outcomes] = {}
    for work in WORKS:
        outcomes[work.name] = {}
        for place, contender in enumerate(CONTENDERS):
            if contender.why_not(work):
                continue
            rounds: list[dict[str, float] | None] = [
                {
                    "requests": 1e5 * turn,
                    "bytes": 1e9 * turn,
                    "seconds": 1.0 + place,
                    "p50": 1e-3 * (1 + place),
                    "p99": 2e-3 * (1 + place),
                    "client_cpu": 1.0,
                    "server_cpu": 1.0,
                    "client_memory": 1000.0 * (1 + place),
                    "server_memory": 2000.0 * (1 + place),
                    "beside_bytes": 1e9,
                    "beside_seconds": 1.0,
                }
                for turn in (1, 2, 3)
            ]
            outcomes[work.name][contender.name] = Outcome(rounds)
    return outcomes


@pytest.mark.parametrize("page", _pages.PAGES)
def test_a_page_is_filled_in_from_a_run(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    filled = _pages.filled(text, a_run())
    assert filled != text
    assert _pages.filled(filled, a_run()) == filled
    (block,) = _pages.BLOCK.finditer(filled)
    assert "6.0" in block[3]
    # Nothing but figures changes, and none is lost.
    bare = [re.sub(r"\d+(\.\d+)?", "N", t) for t in (text, filled)]
    assert bare[0] == bare[1]


def test_what_the_figures_mean() -> None:
    """Ours on v1 comes first in the registry, on v2 second; Go v1 is sixth, and Go v2 seventh."""
    rows = _pages.TABLES["results"]
    cells = [[cell(a_run()) for cell in row] for row in rows]
    assert cells[0] == ["6.0 (6.0 to 6.0)"]
    assert cells[1] == ["3.5 (3.5 to 3.5)"]
    assert cells[12] == ["1.00 (1.00 to 1.00) and 1.00 (1.00 to 1.00)"]


@pytest.mark.parametrize("page", _pages.PAGES)
def test_the_pages_have_the_figures_of_the_run(page: str) -> None:
    """As soon as the run that they tell of is in the repository."""
    for source in (path for path in (_pages.SOURCE,) if path.exists()):
        document, outcomes = run.load(source)
        assert re.fullmatch("[0-9a-f]{40}", str(document["commit"]))
        text = (ROOT / page).read_text("utf-8")
        assert _pages.filled(text, outcomes) == text


def test_the_readme_agrees_with_the_page() -> None:
    """Each of its figures is a median there."""

    def block(page: str) -> str:
        (found,) = _pages.BLOCK.finditer((ROOT / page).read_text("utf-8"))
        return found[3]

    page = set(
        re.findall(r"\d+(?:\.\d+)?", re.sub(r"\(\d[^)]*\)", "", block("docs/performance.md")))
    )
    for line in block("README.md").splitlines()[2:]:
        for cell in line.split("|")[3:-1]:
            assert cell.strip() in page | {""}, line


def test_the_picture_is_drawn_for_both_widths(tmp_path: Path) -> None:
    wide, narrow = draw(a_run(), CONTENDERS, "where and how. " * 12, tmp_path / "bars.svg")
    assert (wide.name, narrow.name) == ("bars.svg", "bars-narrow.svg")
    shapes = []
    for file in (wide, narrow):
        root = ET.fromstring(file.read_text("utf-8"))
        width, height = (float(root.get(side, "")) for side in ("width", "height"))
        shapes.append((width, height))
        for rect in root.iterfind(".//{*}rect"):
            right = float(rect.get("x", "")) + float(rect.get("width", ""))
            assert right < width
            assert float(rect.get("width", "")) < width / 2  # no slab behind it
        for text in root.iterfind(".//{*}text"):
            assert 0 < float(text.get("y", "")) < height
            if text.get("text-anchor") == "end":  # a name, beside its panel's left edge
                reach = 0.54 * float(text.get("font-size", "")) * len(text.text or "")
                assert float(text.get("x", "")) % WIDTH > reach, text.text
        style = root.findtext("{*}style")
        assert style
        assert "prefers-color-scheme:dark" in style
        assert sum(rect.get("class") == "ours" for rect in root.iterfind(".//{*}rect")) == 8
    assert shapes[0][0] > shapes[1][0]
    assert shapes[0][1] < shapes[1][1]


def test_a_run_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages need it to say what was measured. An unpacked sdist has none."""
    monkeypatch.setattr(_versions, "SOURCE", tmp_path)
    assert _versions.head() == ("unknown", False)

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    library = tmp_path / "trio_muxado" / "__init__.py"
    library.parent.mkdir()
    library.touch()
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    assert _versions.head() == (git("rev-parse", "HEAD"), False)
    library.write_text("changed = True")
    assert _versions.head() == (git("rev-parse", "HEAD"), True)
