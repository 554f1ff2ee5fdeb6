"""Making the contenders runnable: compilers, environments, certificates.

Everything that is made goes to `.build`, which git ignores. What cannot be made raises
`Missing`: its contender is skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / ".build"
LIBP2P = "libp2p == 0.8.1"
BORE = "bore-cli@0.6.0"
GOCODE = Path("/usr/share/gocode")  # where Debian's Go packages put their sources
V1_PACKAGE = "golang-github-inconshreveable-muxado-dev"


class Missing(Exception):
    """A toolchain or a package that a contender needs is not there."""


def _run(command: list[str], cwd: Path, environ: Mapping[str, str] | None = None) -> None:
    tool = shutil.which(command[0])
    if tool is None:
        raise Missing(f"no {command[0]} on this machine")
    done = subprocess.run(
        [tool, *command[1:]],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Missing(f"{Path(command[0]).name} failed: {last_line(done.stdout)}")


def last_line(text: str) -> str:
    """What a program said last: of a traceback, the error."""
    lines = [line.strip(" |+-") for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "no reason given")


def _module(interpreter: str, module: str, *options: str) -> list[str]:
    """The command of a Python contender, once its imports are known to work."""
    name = f"benchmarks.contenders.{module}"
    try:
        _run([interpreter, "-c", f"import {name}"], ROOT)
    except Missing as error:
        raise Missing(str(error).partition(": ")[2]) from None
    return [interpreter, "-m", name, *options]


def python(module: str, *options: str) -> Callable[[], list[str]]:
    return cache(lambda: _module(sys.executable, module, *options))


@cache
def _libp2p_environment() -> str:
    folder = BUILD / "libp2p"
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], ROOT)
        _run([str(interpreter), "-m", "pip", "install", "--quiet", LIBP2P], ROOT)
        (folder / "complete").touch()
    return str(interpreter)


def libp2p(module: str) -> Callable[[], list[str]]:
    return cache(lambda: _module(_libp2p_environment(), module))


@cache
def _go_program() -> str:
    program = BUILD / "bench-go"
    _run(["go", "build", "-o", str(program), "."], HERE / "go")
    return str(program)


def go(name: str) -> Callable[[], list[str]]:
    return lambda: [_go_program(), name]


@cache
def _go_v1_program() -> str:
    """The peer of the first generation predates modules: GOPATH mode, a copied source."""
    if not (GOCODE / "src/github.com/inconshreveable/muxado").is_dir():
        raise Missing(f"Debian's package {V1_PACKAGE} is not installed")
    program, source = BUILD / "bench-go-v1", BUILD / "gopath/src/bench"
    source.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "go" / "common.go", source)
    shutil.copy(HERE / "go_v1" / "muxado_v1.go", source)
    environ = {
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": f"{BUILD / 'gopath'}{os.pathsep}{GOCODE}",
    }
    _run(["go", "build", "-o", str(program), "."], source, environ)
    return str(program)


def go_v1(name: str) -> Callable[[], list[str]]:
    return lambda: [_go_v1_program(), name]


@cache
def _rust_program() -> str:
    """Built from a copy: cargo writes its lock file beside the manifest."""
    source, target = BUILD / "rust", BUILD / "rust" / "target"
    shutil.copytree(HERE / "rust", source, dirs_exist_ok=True)
    _run(["cargo", "build", "--release", "--quiet"], source, {"CARGO_TARGET_DIR": str(target)})
    return str(target / "release" / "bench-rust")


def rust() -> Callable[[], list[str]]:
    return lambda: [_rust_program()]


@cache
def tunnel_service() -> str:
    """What is behind the tunnels of `benchmarks.tunnels`."""
    program = BUILD / "tunnel-service"
    _run(["go", "build", "-o", str(program), "main.go"], HERE / "tunnel_service")
    return str(program)


@cache
def bore() -> str:
    folder = BUILD / "bore"
    program = folder / "bin" / "bore"
    if not program.exists():
        _run(["cargo", "install", "--quiet", "--locked", "--root", str(folder), BORE], ROOT)
    return str(program)


def installed(name: str) -> str:
    """A program of the system's.  Debian has servers where not every user's PATH leads."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is None:
        raise Missing(f"no {name} on this machine")
    return found


@cache
def certificates() -> tuple[str, str]:
    """PEM files for TLS on loopback: the server's chain with its key, and whom to trust."""
    try:
        import trustme
    except ImportError:
        raise Missing("trustme is not installed") from None
    BUILD.mkdir(exist_ok=True)
    server, trusted = BUILD / "server.pem", BUILD / "ca.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(trusted)
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        server
    )
    return str(server), str(trusted)
