"""What is public is listed, says what it is, and looks as if it were defined where it's imported.

A user never needs a name with an underscore: not in an import, not in a traceback, not in the
documentation.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import trio_muxado

ROOT = Path(__file__).parents[1]
REFERENCE = [ROOT / "docs" / name for name in ("reference.md", "exceptions.md")]
PUBLIC_MODULES = [
    name
    for name in ("trio_muxado", "trio_muxado.testing", "trio_muxado.http", "trio_muxado.tunnel")
    if importlib.util.find_spec(name)
]
EXPORTS = [
    (module, name) for module in PUBLIC_MODULES for name in importlib.import_module(module).__all__
]
CONFIGURATIONS = {"MuxadoConfig", "RelayConfig"}
"""With so many fields that each has a docstring of its own, in the reference."""
CORE = {"Connection", "Engine", "ReceiveChannel", "Stream"}
"""Types of the core, as annotations name them.  Those of trio have a dot."""


def public_members(cls: type) -> Iterator[tuple[str, object]]:
    """The methods and properties that a class of ours adds or overrides."""
    for name, member in vars(cls).items():
        if isinstance(member, classmethod | staticmethod):
            member = member.__func__
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
            yield name, member


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_all_is_the_whole_truth(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert len(set(module.__all__)) == len(module.__all__)
    visible = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    if module_name == "trio_muxado":  # the package imports nothing but its own names
        assert visible == {name for name in module.__all__ if not name.startswith("_")}
    else:
        assert visible >= set(module.__all__)


@pytest.mark.parametrize("module_name, name", EXPORTS)
def test_a_public_name_belongs_to_its_public_module(module_name: str, name: str) -> None:
    value = getattr(importlib.import_module(module_name), name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return  # a constant or a type alias has no home to tell of
    assert value.__module__ == module_name
    assert value.__qualname__ == name


@pytest.mark.parametrize("module_name, name", EXPORTS)
def test_a_public_name_says_what_it_is(module_name: str, name: str) -> None:
    value = getattr(importlib.import_module(module_name), name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    own = value.__doc__ or ""
    # A dataclass without a docstring gets its own signature as one.
    assert own.strip(), f"{name} has no docstring"
    assert not own.startswith(f"{name}("), f"{name} has no docstring"
    if inspect.isclass(value):
        # An override may leave its docstring to the interface that it fulfils, as trio's do.
        silent = [
            member_name
            for member_name, member in public_members(value)
            if not inspect.getdoc(member) and not inspect.getdoc(getattr(value, member_name))
        ]
        assert not silent, f"{name} has undocumented members"


@pytest.mark.parametrize("module_name, name", EXPORTS)
def test_a_public_class_says_what_its_fields_are(module_name: str, name: str) -> None:
    """``help()`` shows the docstring of a class, and none of its fields."""
    value = getattr(importlib.import_module(module_name), name)
    if not dataclasses.is_dataclass(value) or name in CONFIGURATIONS:
        return
    said = value.__doc__ or ""
    assert not [field.name for field in dataclasses.fields(value) if field.name not in said]


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_a_public_module_says_what_it_is(module_name: str) -> None:
    assert importlib.import_module(module_name).__doc__


@pytest.mark.parametrize("module_name, name", EXPORTS)
def test_the_reference_has_every_public_name(module_name: str, name: str) -> None:
    page = "\n".join(page.read_text("utf-8") for page in REFERENCE)
    directives = re.findall(r"^\.\. (?:auto\w+|py:\w+):: *([\w.]+)", page, re.MULTILINE)
    qualified = name if module_name == "trio_muxado" else f"{module_name.split('.')[-1]}.{name}"
    assert {name, qualified, f"{module_name}.{name}"} & set(directives)


def test_the_version_is_the_distribution_s() -> None:
    """Everywhere it stands: the project's own, and the one under which its news are released."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    stated = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    assert stated == [version("trio_muxado")] * 2
    assert trio_muxado.__version__ == version("trio_muxado")


def test_only_who_asks_for_the_version_pays_for_it() -> None:
    """In a process of its own: this one has everything loaded."""
    program = """
import sys, trio
had = "importlib.metadata" in sys.modules
import trio_muxado
assert had or "importlib.metadata" not in sys.modules
assert trio_muxado.__version__
assert "importlib.metadata" in sys.modules
assert not hasattr(trio_muxado, "__versions__")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


IN_ANOTHER = {"ForwardedDirection", "TracedFrame", "ProxyHeaderError"}
"""Names that the help of another name mentions."""


def test_help_begins_with_a_screen_that_says_what_there_is() -> None:
    text = pydoc.plain(pydoc.render_doc(trio_muxado))
    screen, _, _ = text.partition("\nPACKAGE CONTENTS")
    assert len(screen.splitlines()) <= 25
    named = set(re.findall(r"\w+", screen))
    errors = {
        name
        for name in trio_muxado.__all__
        if name != "MuxadoError"
        and isinstance(cls := getattr(trio_muxado, name), type)
        and issubclass(cls, trio_muxado.MuxadoError)
    }
    assert set(trio_muxado.__all__) - named == errors | IN_ANOTHER


@pytest.mark.parametrize("module_name, name", EXPORTS)
def test_help_shows_no_method_of_the_core(module_name: str, name: str) -> None:
    """Its parameters would be of types that nobody can import."""
    value = getattr(importlib.import_module(module_name), name)
    for member_name, member in public_members(value) if inspect.isclass(value) else ():
        if not inspect.isfunction(member):
            continue
        for parameter in list(inspect.signature(member).parameters.values())[1:]:
            assert parameter.annotation not in CORE, f"{name}.{member_name}"
