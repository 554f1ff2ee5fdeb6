"""`python -m benchmarks.against`: two versions beside each other."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import _versions, against
from benchmarks._compared import COMPARED, Compared, table
from benchmarks._registry import Result

ROOT = Path(__file__).parents[1]

# Opening a stream takes a call more, and that is entered once more after its checkpoint.
SLOWER = """

async def _slower(self, **choices):
    return await _open_stream(self, **choices)


_open_stream, MuxadoSession.open_stream = MuxadoSession.open_stream, _slower
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit of the library as it is, and a working tree that is a bit slower."""
    shutil.copytree(
        ROOT / "trio_muxado",
        tmp_path / "trio_muxado",
        ignore=shutil.ignore_patterns("__pycache__"),
    )

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "before")
    with (tmp_path / "trio_muxado" / "__init__.py").open("a") as file:
        file.write(SLOWER)
    monkeypatch.setattr(_versions, "SOURCE", tmp_path)
    return tmp_path


def test_a_change_shows(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each side runs its own library, and the rest is equal."""
    file = repository / "against.json"
    arguments = "HEAD --wire v2 --rounds 1 --seconds 0.3 --work counts,a64,idle-sessions"
    against.main([*arguments.split(), "--json", str(file)])
    lines = capsys.readouterr().out.splitlines()
    document = json.loads(file.read_text())
    assert document["new"]["changed"]
    assert document["new"]["commit"] == document["old"]["commit"]
    old, new = (document["counts"][which]["v2"] for which in ("old", "new"))
    assert old.keys() == new.keys() == {"request, 1 at once", "request, 64 at once", "session"}
    for what in old:
        more = {name: new[what][name] - old[what][name] for name in old[what]}
        calls = {"calls, ours": pytest.approx(2), "calls": pytest.approx(2)}
        assert more == {**dict.fromkeys(more, 0), **calls}
    assert sum(line.endswith("equal") for line in lines) == 10
    rows = {line.strip().partition("  ")[0] for line in lines}
    assert {"v2 requests/s", "v2 client CPU us/request", "v2 server bytes/session"} <= rows
    (requests, memory) = document["rounds"]
    assert [len(requests["rounds"][0]), len(memory["rounds"][0])] == [2, 1]
    for old_slice, new_slice in requests["rounds"][0]:
        assert old_slice["requests"] > 0
        assert new_slice["requests"] > 0


def test_ratios_are_of_neighbours_in_time() -> None:
    """A slice in which the machine was busy, and a round, change no median."""
    work = COMPARED[0]

    def result(rate: float) -> Result:
        return {"requests": rate, "seconds": 1, "client_cpu": 1, "server_cpu": 1}

    steady = (result(1000), result(1100))
    disturbed = (result(500), result(1100))
    compared = Compared(work, "v2")
    compared.rounds += [[steady, disturbed, steady]] * 4 + [[disturbed] * 3]
    assert compared.ratios(work.metrics[0]) == pytest.approx([1.1] * 4 + [2.2])
    lines = table(("old", "new"), [compared], ({}, {})).splitlines()
    assert lines[2].split(maxsplit=5)[1:] == [
        "requests/s",
        "1,000",
        "1,100",
        "1.100",
        "(1.100 - 1.100)",
    ]


def test_unknown_work_is_named() -> None:
    with pytest.raises(SystemExit, match="no such work: a65 "):
        against.main(["HEAD", "--work", "a65"])


def test_unknown_commit_is_named(repository: Path) -> None:
    with pytest.raises(SystemExit, match="git rev-parse: "):
        against.main(["no-such-commit", "--work", "counts"])
