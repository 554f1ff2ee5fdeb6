"""What `.ci/run` says of itself: its parts, and the minutes that they add up to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
COLUMNS = {"The gate": 1, "The longer run": 2}


def parts() -> list[list[str]]:
    table = re.search(r"^PARTS='\n(.*?)^'$", SCRIPT, re.MULTILINE | re.DOTALL)
    assert table
    return [row.split() for row in table[1].splitlines()]


@pytest.mark.parametrize("run", COLUMNS)
def test_the_minutes_add_up(run: str) -> None:
    minutes = [int(row[COLUMNS[run]]) for row in parts() if row[COLUMNS[run]] != "-"]
    said = re.search(rf"^# {run}: ([\d+]+) = (\d+) minutes, (\d+) in", SCRIPT, re.MULTILINE)
    assert said
    assert sum(map(int, said[1].split("+"))) == sum(minutes) == int(said[2])
    assert int(said[3]) == -(-sum(minutes) // 2)


def test_the_gate_is_half_an_hour_on_two_cores() -> None:
    assert sum(int(row[1]) for row in parts() if row[1] != "-") <= 60


def test_no_part_is_shorter_in_the_longer_run() -> None:
    for name, gate, long in parts():
        assert gate == "-" or int(gate) <= int(long), name


def test_the_longer_run_has_every_python() -> None:
    found = re.search(r"^PYTHONS = (\[.*\])$", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert found
    names = [row[0] for row in parts()]
    for version in re.findall(r"[\d.]+", found[1]):
        # The default one runs the command of the README.
        assert (f"tests-{version}" if version != "3.11" else "readme-test") in names
