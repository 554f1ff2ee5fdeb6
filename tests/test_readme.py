"""README.md in two languages, and what a package index makes of it."""

import re
from pathlib import Path

from hatch_build import readable_outside

from .helpers.pages import read_page

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def lines(page: Path) -> list[str]:
    """A page's lines of prose: fences are left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return text.splitlines()


def headings(page: Path) -> list[int]:
    """The level of each."""
    return [len(line) - len(line.lstrip("#")) for line in lines(page) if line.startswith("#")]


def sections(page: Path) -> list[str]:
    """What stands below each heading of the second level, the first part included."""
    return re.split(r"^## .*$", "\n".join(lines(page)), flags=re.MULTILINE)


def test_both_have_the_same_headings() -> None:
    assert headings(ENGLISH) == headings(CHINESE)


def test_both_have_the_same_code() -> None:
    """With the comment above each, and so the commands that CI reads."""

    def code(page: Path) -> list[tuple[str, str, str, str]]:
        return [(b.kind, b.words, b.language, b.text) for b in read_page(page).blocks]

    assert code(ENGLISH) == code(CHINESE)


def test_both_link_to_the_same_pages() -> None:
    """In the same section, in whatever order the language wants."""
    for english, chinese in zip(sections(ENGLISH), sections(CHINESE), strict=True):
        assert sorted(LINK.findall(english)) == sorted(LINK.findall(chinese))


def test_both_name_the_same_things_in_code() -> None:
    for english, chinese in zip(sections(ENGLISH), sections(CHINESE), strict=True):
        named = [sorted(set(re.findall(r"`[^`]+`", part))) for part in (english, chinese)]
        # `serve_muxado` may be named once more where the sentence needs it.
        assert named[0] == named[1]


def test_both_have_the_same_lists_and_tables() -> None:
    for english, chinese in zip(sections(ENGLISH), sections(CHINESE), strict=True):
        assert english.count("\n- ") == chinese.count("\n- ")
        figures = [re.findall(r"(?<=\|) *([\d.]*)(?= *\|)", part) for part in (english, chinese)]
        assert figures[0] == figures[1]


# What a package index shows is README.md as hatch_build.py changes it.

RELATIVE = re.compile(r"\]\((?![a-z]+:|#)")


def on_an_index(repository: str | None) -> str:
    return readable_outside(ENGLISH.read_text("utf-8"), repository)


def test_without_a_repository_no_link_leads_nowhere() -> None:
    shown = on_an_index(None)
    assert not RELATIVE.search(shown)
    assert "](https://trio.readthedocs.io/)" in shown
    assert "[Performance](docs" not in shown
    assert "\nPerformance has all figures" in shown
    assert "![" not in shown


def test_with_a_repository_every_link_leads_there() -> None:
    shown = on_an_index("https://example.org/trio_muxado/")
    assert not RELATIVE.search(shown)
    assert "[Performance](https://example.org/trio_muxado/blob/main/docs/performance.md)" in shown
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", shown)
    assert pictures
    assert all(url.startswith("https://example.org/trio_muxado/raw/main/") for url in pictures)


def test_only_links_change() -> None:
    bare = [
        re.sub(r"\]\([^)]*\)", "]", t)
        for t in (on_an_index("https://a"), ENGLISH.read_text("utf-8"))
    ]
    assert bare[0] == bare[1]
