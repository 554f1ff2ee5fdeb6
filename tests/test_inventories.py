"""The names that the documentation links to exist, and the reference names nothing twice."""

import pkgutil
import re
from pathlib import Path

import pytest

import trio_muxado

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("inventory", ["trio", "python"])
def test_each_name_of_an_inventory_exists(inventory: str) -> None:
    for line in (DOCS / "inventories" / f"{inventory}.txt").read_text("utf-8").splitlines():
        name, role, page = line.split()
        assert re.fullmatch(r"py:(class|function|exception|method)", role)
        assert page.endswith(".html")
        name = name if "." in name else f"builtins.{name}"
        assert callable(pkgutil.resolve_name(name)), name


def test_each_public_name_is_documented_once() -> None:
    """On the reference, or on the page of exceptions."""
    text = "".join((DOCS / name).read_text("utf-8") for name in ("reference.md", "exceptions.md"))
    named = re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)", text, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(trio_muxado.__all__) - {"__version__"} <= set(named)


def test_a_configuration_shows_what_is_not_the_default() -> None:
    """So that signatures, which have one as a default, can be read."""
    assert repr(trio_muxado.MuxadoConfig()) == "MuxadoConfig()"
    heartbeat = trio_muxado.Heartbeat(interval=1)
    config = trio_muxado.MuxadoConfig(wire="v2", heartbeat=heartbeat, max_outbound_streams=None)
    assert eval(repr(config), vars(trio_muxado)) == config
    assert len(repr(config)) < 120
