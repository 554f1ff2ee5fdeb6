"""The Pythons that we say we support are those that the tests run on."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def nox_pythons() -> list[str]:
    """``PYTHONS`` of noxfile.py."""
    found = re.search(r"^PYTHONS = (\[.*?\])$", text("noxfile.py"), re.MULTILINE | re.DOTALL)
    assert found
    versions = ast.literal_eval(found[1])
    assert isinstance(versions, list)
    return versions


def test_the_classifiers_name_them() -> None:
    pyproject = text("pyproject.toml")
    assert re.findall(r'"Programming Language :: Python :: (3\.\d+)"', pyproject) == nox_pythons()
    assert f'requires-python = ">= {nox_pythons()[0]}"' in pyproject


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_the_documentation_names_them(page: str) -> None:
    oldest, *_, newest = nox_pythons()
    assert f"CPython {oldest} to {newest}" in " ".join(text(page).split())
