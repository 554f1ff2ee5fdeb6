"""What stands in more than one of the project's files is the same in all of them."""

import re
from dataclasses import fields
from pathlib import Path

from trio_muxado import MuxadoConfig

ROOT = Path(__file__).parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


WORKFLOW = text(".github/workflows/ci.yml")
SESSIONS = set(re.findall(r"^@nox\.session.*\ndef (\w+)", text("noxfile.py"), re.MULTILINE))


def test_pre_commit_has_the_linter_of_the_lint_session() -> None:
    pinned = re.search(r'"ruff == ([\d.]+)"', text("pyproject.toml"))
    assert pinned
    assert set(re.findall(r"ruff==([\d.]+)", text(".pre-commit-config.yaml"))) == {pinned[1]}


def test_the_workflow_has_every_python() -> None:
    known = re.search(r"^PYTHONS = \[(.*)\]$", text("noxfile.py"), re.MULTILINE)
    assert known
    tests = WORKFLOW[WORKFLOW.index("  tests:") : WORKFLOW.index("  checks:")]
    assert set(re.findall(r'"(3\.\d+)"', tests)) == set(re.findall(r'"(3\.\d+)"', known[1]))


def test_the_workflow_runs_sessions_that_there_are() -> None:
    named = {
        session
        for names in re.findall(r"^ *session: \[(.*)\]$", WORKFLOW, re.MULTILINE)
        for session in names.split(", ")
    }
    named |= set(re.findall(r"--session (\w+)$", WORKFLOW, re.MULTILINE))
    assert len(named) > 8
    assert named <= SESSIONS


def test_contributing_names_sessions_that_there_are() -> None:
    page = text("CONTRIBUTING.md")
    named = {name for names in re.findall(r"nox -s ([\w ]+)`", page) for name in names.split()}
    assert len(named) > 4
    assert named <= SESSIONS
    folders = re.findall(r"`((?:tests|docs|benchmarks|trio_muxado|newsfragments)/[\w/.]*)`", page)
    assert len(folders) > 8
    for name in set(folders) - {"docs/_build/html"}:
        assert (ROOT / name).exists(), name


def test_the_page_on_security_has_every_limit() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", text("docs/security.md"), re.MULTILINE))
    no_limits = {"wire", "typed", "extensions", "tracer"}
    assert {field.name for field in fields(MuxadoConfig)} - no_limits <= rows


def test_the_changelog_tells_of_this_version() -> None:
    (version,) = set(re.findall(r'^version = "(.+)"$', text("pyproject.toml"), re.MULTILINE))
    latest = re.search(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)
    assert latest
    assert latest[1] == version


def test_the_first_release_is_told_once() -> None:
    """Until it is out, its section of the changelog says all of it: no fragments beside it."""
    fragments = {path.name for path in (ROOT / "newsfragments").iterdir()} - {"README.md"}
    assert not fragments or "(not released yet)" not in text("CHANGELOG.md")
