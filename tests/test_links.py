"""Links, pictures and tables of every Markdown file lead somewhere, and are whole."""

import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = {".nox", ".venv", "venv", "_build", ".build", "node_modules", "target", "results"}
PAGES = sorted(
    path
    for path in (*ROOT.rglob("*.md"), *ROOT.glob(".github/**/*.md"))
    if not SKIPPED.intersection(path.relative_to(ROOT).parts[:-1])
)
CODE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$|(?<!`)(`+)(?!`).+?(?<!`)\3(?!`)", re.M | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HTML = re.compile(r"(?:href|src|srcset)=\"([^\"\s]+)")


def prose(page: Path) -> str:
    """A page without its code, in which brackets mean other things."""
    return CODE.sub("", page.read_text("utf-8"))


def targets(page: Path) -> list[str]:
    text = re.sub(r"`[^`]*`", "", prose(page))
    return [*LINK.findall(text), *HTML.findall(text)]


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, by the rule of GitHub, which MyST follows."""
    found: dict[str, int] = {}
    names = set()
    fence = None
    for line in page.read_text("utf-8").splitlines():
        if mark := re.match(r" *(```+|~~~+)", line):
            fence = None if fence and mark[1].startswith(fence) else fence or mark[1]
        elif not fence and (heading := re.match(r"#{1,6} +(.*?)[ #]*$", line)):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            kept = (c for c in words if c in " -_" or unicodedata.category(c)[0] in "LNM")
            name = "".join(kept).replace(" ", "-")
            count = found[name] = found.get(name, -1) + 1
            names.add(f"{name}-{count}" if count else name)
        elif not fence:
            names.update(re.findall(r"^\((\S+)\)=$|<a (?:id|name)=\"(\S+?)\"", line))
    return {name if isinstance(name, str) else next(filter(None, name)) for name in names}


LINKS = [(page, target) for page in PAGES for target in targets(page)]


def test_there_are_links_to_check() -> None:
    assert len(PAGES) > 20
    assert len(LINKS) > 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in targets(page):
        if re.match(r"[a-z][a-z+.-]*:", target):
            assert target.startswith(("https://", "http://localhost", "mailto:")), target
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.is_relative_to(ROOT) or not path.exists():
            broken.append(f"{target}: no such file")
        elif anchor and (path.suffix != ".md" or anchor not in anchors(path)):
            broken.append(f"{target}: no such heading")
    assert not broken


def cells(row: str) -> int:
    """How many cells a line of a table has; a bar in code or after a backslash is text."""
    bare = re.sub(r"`[^`]*`|\\.", "", row.strip())
    return len(bare.strip("|").split("|"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_of_a_table_has_its_cells(page: Path) -> None:
    """A row that was wrapped like prose takes the rest of the table with it."""
    fences = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$", re.M | re.DOTALL)
    lines = fences.sub("", page.read_text("utf-8")).splitlines()
    torn = []
    for start, line in enumerate(lines):
        if not re.fullmatch(r" *\|( *:?-+:? *\|)+", line):
            continue
        for row in [lines[start - 1], *lines[start + 1 :]]:
            if not row.strip():
                break
            if not row.strip().startswith("|") or cells(row) != cells(line):
                torn.append(row)
    assert not torn


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_picture_says_what_it_shows(page: Path) -> None:
    assert not re.findall(r"!\[\s*\]\([^)]*\)", prose(page))
