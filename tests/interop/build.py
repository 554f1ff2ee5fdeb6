"""Building the peers: each once, into a folder that git does not see.

What is built is kept under the digest of its sources, so a second run of the tests starts at
once and a changed peer is never mistaken for the old one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
CACHE = HERE / ".build"

# Where Debian's packages of Go sources are unpacked.
DEBIAN_GOPATH = Path("/usr/share/gocode")
DEBIAN_MUXADO_V1 = "golang-github-inconshreveable-muxado-dev"

# What muxado v2 and the Rust crate ask for.  `.ci/run` says the same.
OLDEST_GO = (1, 21)
OLDEST_CARGO = (1, 85)

BUILD_TIMEOUT = 900
"""Seconds.  The first build of a toolchain compiles its standard library, too."""


@dataclass(frozen=True)
class Peer:
    """A program of ours around somebody else's muxado."""

    name: str
    title: str
    wire: Literal["v1", "v2"]
    sources: tuple[str, ...]
    build: Callable[[Path], None]
    backlog: int
    """Streams that may wait until it accepts them.  One more is refused, or stops its reader."""

    @property
    def typed_sessions(self) -> bool:
        """Whether types are a matter of the whole session: ``--typed`` on both sides."""
        return self.wire == "v2"


@cache
def binary_of(peer: Peer) -> Path:
    """The built program; skips the test where it cannot be built, and fails it in CI."""
    digest = hashlib.sha256()
    for path in sorted(_files(peer.sources)):
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    binary = CACHE / f"{peer.name}-{digest.hexdigest()[:12]}"
    if not binary.exists():
        CACHE.mkdir(exist_ok=True)
        for stale in CACHE.glob(f"{peer.name}-{'?' * 12}"):
            stale.unlink()
        peer.build(binary)
    return binary


def _files(sources: tuple[str, ...]) -> Iterator[Path]:
    for source in sources:
        path = HERE / source
        if path.is_file():
            yield path
        else:
            yield from (p for p in path.rglob("*") if p.is_file() and "target" not in p.parts)


def _missing(what: str) -> None:
    message = f"interop: {what}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def tool(name: str, oldest: tuple[int, int]) -> str:
    """A compiler; skips the test where it is missing or too old, and fails it in CI."""
    path = shutil.which(name)
    wanted = f"{name} {oldest[0]}.{oldest[1]} or newer"
    if path is None:
        _missing(f"{wanted} is wanted, and none is on PATH")
    said = subprocess.run([str(path), "version"], capture_output=True, text=True, check=False)
    version = re.search(r"(\d+)\.(\d+)", said.stdout)
    if version is None or tuple(map(int, version.groups())) < oldest:
        _missing(f"{wanted} is wanted; {path} says {said.stdout.strip()!r}")
    return str(path)


def run(command: Sequence[str | Path], *, cwd: Path, **environment: str) -> None:
    """A command that builds something; the test fails with what it says."""
    done = subprocess.run(  # the tests' own toolchain
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{command[0]} could not build {cwd.name}:\n{done.stdout}", pytrace=False)


def go_for_v1() -> str:
    """A Go compiler; skips the test where Debian's package of v1 is missing, and fails it in CI."""
    if not (DEBIAN_GOPATH / "src/github.com/inconshreveable/muxado").is_dir():
        _missing(f"muxado v1 is not here: apt-get install {DEBIAN_MUXADO_V1}")
    return tool("go", OLDEST_GO)


def _build_go_v1(binary: Path) -> None:
    """In GOPATH mode: v1 is older than modules, and is in no module proxy."""
    go = go_for_v1()
    gopath = CACHE / "gopath"
    # A copy: a tool that walks the repository would find the folder twice by a link to it, and
    # hatchling, which takes each once, would leave the one that counts out of the sdist.
    copy = gopath / "src" / "interop.test" / "peer"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(HERE / "go_peer", copy)
    run(
        [go, "build", "-o", binary, "main.go"],
        cwd=HERE / "go_v1",
        GO111MODULE="off",
        GOFLAGS="",
        GOPATH=f"{gopath}{os.pathsep}{DEBIAN_GOPATH}",
        GOTOOLCHAIN="local",
    )


def build_go_module(folder: Path, binary: Path, modfile: str = "go.mod") -> None:
    """Build a program whose dependencies come from the module proxy."""
    go = tool("go", OLDEST_GO)
    run(
        [go, "build", "-buildvcs=false", f"-modfile={modfile}", "-o", binary, "."],
        cwd=folder,
        GOFLAGS="",
        GOTOOLCHAIN="local",
    )


def _build_go_v2(binary: Path, modfile: str = "go.mod") -> None:
    build_go_module(HERE / "go_v2", binary, modfile)


def _build_go_v2_old(binary: Path) -> None:
    _build_go_v2(binary, "go.old.mod")


def _build_rust(binary: Path) -> None:
    target = CACHE / "rust-target"
    run(
        [tool("cargo", OLDEST_CARGO), "build", "--release", "--target-dir", target],
        cwd=HERE / "rust",
    )
    shutil.copy2(target / "release" / "muxado-interop-peer", binary)


PEERS = [
    Peer("go_v1", "Go v1", "v1", ("go_v1", "go_peer"), _build_go_v1, 100),
    Peer("go_v2", "Go v2", "v2", ("go_v2", "go_peer"), _build_go_v2, 128),
    # The last release that reads GOAWAY 8 bytes too far, and what most programs still run.
    Peer("go_v2_old", "Go v2.0.1", "v2", ("go_v2", "go_peer"), _build_go_v2_old, 128),
    Peer("rust", "Rust", "v2", ("rust",), _build_rust, 64),
]
