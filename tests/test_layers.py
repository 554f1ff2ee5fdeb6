"""Imports run one way, and the protocol knows no I/O.

The order is written down once, here. A new module fails these tests until it has a place.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "trio_muxado"

# From the ground up: a module imports from the rows above its own, and sideways within its row
# as long as nothing goes in a circle.
ROWS = (
    ("_protocol.checks", "_protocol.errors", "_protocol.byte_queue"),
    ("_protocol.frames", "_protocol.limits", "_protocol.guards", "_protocol.counts"),
    ("_protocol.codec",),
    ("_protocol.decoder", "_protocol.windows", "_protocol.states"),
    ("_protocol.wire_v1", "_protocol.wire_v2"),
    ("_protocol.wire", "_protocol.stream"),
    ("_protocol.events", "_protocol.scheduler", "_protocol.session", "_protocol.budget"),
    ("_protocol.outbox",),
    ("_protocol.streams",),
    ("_protocol.inbound",),
    ("_protocol.connection",),
    ("_protocol",),
    (
        "_breaks",
        "_checks",
        "_errors",
        "_keepalive",
        "_lazy_event",
        "_nursery",
        "_receive_channel",
        "_send_room",
    ),
    ("_tcp",),
    ("_statistics", "_transport"),
    ("_backlog", "_ending", "_half_open", "_patience", "_slots", "_trace"),
    ("_blame", "_config"),
    ("_reader", "_writer"),
    ("_steps", "_timeouts"),
    ("_heartbeat",),
    ("_engine",),
    ("_stream_steps",),
    ("_stream",),
    ("_session",),
    ("_connect",),
    ("_server",),
    ("_serve",),
    ("_backoff", "_breaking", "_copying", "_line", "_proxy_protocol"),
    ("_dial_loss", "_forward", "_pool", "_proxy_reading"),
    ("_dial",),
    ("_forward_streams",),
    ("",),
    ("testing", "http", "_check", "tunnel"),
    ("_command",),
    ("__main__",),
)
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}

# The two generations never know each other.
STRANGERS = {("_protocol.wire_v1", "_protocol.wire_v2"), ("_protocol.wire_v2", "_protocol.wire_v1")}

# These stand on the public names only, as a user's own module would.
ON_PUBLIC_NAMES = ("http", "tunnel", "_check", "_command", "__main__")

# What else of the package they use.
BESIDES = {"_command": {"_check", "_protocol", "_tcp", "_trace"}, "__main__": {"_command"}}

WHOLE_FOLDERS = {"_transport", *ON_PUBLIC_NAMES}

# Public types that name each other: a configuration has handlers of streams, a stream its session.
UPWARD_TYPES = {
    ("_config", "_stream"),
    ("_stream", "_session"),
    ("_stream_steps", "_session"),
}

# The protocol is driven by calls: it has no other way to learn of bytes or of time.
NO_IO = {"asyncio", "logging", "select", "selectors", "socket", "ssl", "threading", "time", "trio"}


class Import(NamedTuple):
    importer: str  # within the package: "_stream", "_protocol.frames", "" for the package itself
    target: str  # the same for a module of ours, else the full dotted name
    ours: bool
    line: int
    for_checker: bool  # under `if TYPE_CHECKING:`


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def row_of(module: str) -> int:
    """A module's row; some folders have one row for all that's in them."""
    folder = module.split(".")[0]
    place = folder if folder in WHOLE_FOLDERS else module
    assert place in ROW_OF, f"{module} has no place in ROWS: give it one"
    return ROW_OF[place]


def imported_names(node: ast.Import | ast.ImportFrom, importer: str) -> Iterator[str]:
    """The dotted names that a statement may import, relative ones made absolute."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        here = [PACKAGE, *importer.split(".")] if importer else [PACKAGE]
        is_package = MODULES[importer].name == "__init__.py"
        keep = len(here) - node.level + (1 if is_package else 0)
        base = ".".join([*here[:keep], *([base] if base else [])])
    for alias in node.names:
        # `from ._protocol import frames` imports a module, `from .frames import Data` a name.
        inner = f"{base}.{alias.name}"
        yield inner if inner.removeprefix(f"{PACKAGE}.") in MODULES else base


@cache
def imports_of(importer: str) -> tuple[Import, ...]:
    return tuple(_imports_of(importer))


def _imports_of(importer: str) -> Iterator[Import]:
    tree = ast.parse(MODULES[importer].read_text("utf-8"))
    for_checker = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name in dict.fromkeys(imported_names(node, importer)):
            ours = name == PACKAGE or name.startswith(f"{PACKAGE}.")
            target = name.removeprefix(PACKAGE).removeprefix(".") if ours else name
            yield Import(importer, target, ours, node.lineno, node in for_checker)


def where(found: Import) -> str:
    return f"{MODULES[found.importer].relative_to(ROOT)}:{found.line} imports {found.target}"


def test_there_is_something_to_look_at() -> None:
    assert {"", "_protocol", "_protocol.connection", "_session"} <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    own_row = row_of(module)
    named = [
        i
        for i in imports_of(module)
        if i.ours and not (i.for_checker and (module, i.target) in UPWARD_TYPES)
    ]
    up = [where(i) for i in named if row_of(i.target) > own_row]
    assert not up


def test_no_import_goes_in_a_circle() -> None:
    graph = {
        module: {i.target for i in imports_of(module) if i.ours}
        - {target for importer, target in UPWARD_TYPES if importer == module}
        for module in MODULES
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_the_two_wires_never_know_each_other() -> None:
    known = [where(i) for m in MODULES for i in imports_of(m) if (m, i.target) in STRANGERS]
    assert not known


def in_protocol(module: str) -> bool:
    return module == "_protocol" or module.startswith("_protocol.")


@pytest.mark.parametrize("module", [m for m in MODULES if in_protocol(m)])
def test_the_protocol_knows_no_io(module: str) -> None:
    outside = [i for i in imports_of(module) if not i.ours]
    assert not [where(i) for i in outside if i.target.split(".")[0] in NO_IO]
    # Nor anything that might do it on its behalf.
    assert not [where(i) for i in outside if i.target.split(".")[0] not in sys.stdlib_module_names]
    assert not [where(i) for i in imports_of(module) if i.ours and not in_protocol(i.target)]


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in ON_PUBLIC_NAMES])
def test_integrations_stand_on_the_public_names(module: str) -> None:
    folder = module.split(".")[0]
    private = [
        where(i)
        for i in imports_of(module)
        if i.ours
        and i.target.startswith("_")
        and i.target.split(".")[0] not in {folder, *BESIDES.get(folder, ())}
    ]
    assert not private


def test_private_attributes_stay_in_their_module() -> None:
    """Pyright holds this to the class; where a line says otherwise, its module has the class."""
    reaches: list[str] = []
    for module, path in MODULES.items():
        text = path.read_text("utf-8")
        defined = {
            name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ClassDef)
            for inner in ast.walk(node)
            for name in names_given(inner)
        }
        for number, line in enumerate(text.splitlines(), 1):
            if "reportPrivateUsage" in line:
                used = set(re.findall(r"\._(?!_)\w+", line.partition("#")[0]))
                if not used or not used <= {f".{name}" for name in defined}:
                    reaches.append(f"{module}:{number}")
    assert not reaches


def names_given(node: ast.AST) -> Iterator[str]:
    """The names of a method, or of an attribute that a method sets."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr


def test_importing_the_package_does_not_import_the_integrations() -> None:
    """Nobody pays for HTTP, a test kit or a command line that they don't use."""
    extras = {name for name in MODULES if name and row_of(name) > ROW_OF[""]}
    assert not [
        where(i) for m in MODULES if m not in extras for i in imports_of(m) if i.target in extras
    ]
