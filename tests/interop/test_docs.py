"""The programs in Go and Rust that docs/ show, built and run as they stand there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ..helpers.pages import PAGES, Block, Page
from ..helpers.ports import free_port
from ..helpers.programs import matches, run_to_its_end, serving
from .build import CACHE, DEBIAN_GOPATH, HERE, OLDEST_CARGO, OLDEST_GO, go_for_v1, run, tool

pytestmark = pytest.mark.interop

PORT = "8765"


def build_go_v1(source: str, folder: Path) -> Path:
    (folder / "main.go").write_text(source, "utf-8")
    environment = {"GO111MODULE": "off", "GOPATH": str(DEBIAN_GOPATH), "GOFLAGS": ""}
    run([go_for_v1(), "build", "-o", "program", "main.go"], cwd=folder, **environment)
    return folder / "program"


def build_go_v2(source: str, folder: Path) -> Path:
    (folder / "main.go").write_text(source, "utf-8")
    for name in ("go.mod", "go.sum"):
        shutil.copy(HERE / "go_v2" / name, folder / name)
    go_mod = (folder / "go.mod").read_text("utf-8")
    ours = "replace interop.test/peer => ../go_peer"
    assert ours in go_mod
    moved = go_mod.replace("../go_peer", os.fspath(HERE / "go_peer"))
    (folder / "go.mod").write_text(moved, "utf-8")
    command = [tool("go", OLDEST_GO), "build", "-mod=mod", "-buildvcs=false", "-o", "program", "."]
    run(command, cwd=folder, GOFLAGS="", GOTOOLCHAIN="local")
    return folder / "program"


def build_rust(source: str, folder: Path) -> Path:
    """With the crates of the interop peer, which are built already."""
    (folder / "src").mkdir()
    (folder / "src" / "main.rs").write_text(source, "utf-8")
    shutil.copy(HERE / "rust" / "Cargo.toml", folder / "Cargo.toml")
    target = CACHE / "rust-target-docs"
    cargo = tool("cargo", OLDEST_CARGO)
    run([cargo, "build", "--release", "--target-dir", target], cwd=folder)
    return target / "release" / "muxado-interop-peer"


BUILDERS = {"go-v1": build_go_v1, "go-v2": build_go_v2, "rust": build_rust}

PROGRAMS = [
    pytest.param(page, block, id=str(block))
    for page in PAGES
    for block in page.blocks
    if "peer" in block.options
]


def test_each_kind_of_peer_has_a_program() -> None:
    kinds = {block.options.get("peer") for page in PAGES for block in page.blocks}
    assert BUILDERS.keys() <= kinds


@pytest.mark.parametrize("page, block", PROGRAMS)
def test_program(page: Page, block: Block, tmp_path: Path) -> None:
    port = str(free_port())
    server = page.last_server(block)
    path = tmp_path / "server.py"
    path.write_text(page.source(server).replace(PORT, port), "utf-8")
    folder = tmp_path / "peer"
    folder.mkdir()
    program = BUILDERS[block.options["peer"]](block.text.replace(PORT, port), folder)
    with serving(str(server), path, 1):
        printed = run_to_its_end([os.fspath(program)], folder)
    assert block.output is not None
    assert matches(block.output, printed), printed
