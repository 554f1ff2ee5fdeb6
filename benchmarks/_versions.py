"""Two versions of the library side by side, each in a folder of its own.

A process that runs in such a folder imports the library from there, and the benchmarks, which
are the same for both, from the working tree.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import trio

from ._build import BUILD, ROOT

PACKAGE = "trio_muxado"
SOURCE = ROOT
"""The repository that the library comes from."""
CONTENDER = "benchmarks.contenders.ours"


@dataclass(frozen=True)
class Version:
    title: str
    commit: str
    folder: Path
    python: str
    changed: bool = False  # the working tree's library is not what its commit has

    def command(self, module: str, *arguments: str) -> list[str]:
        return [self.python, "-m", module, *arguments]

    def environ(self, seed: int) -> dict[str, str]:
        """For its processes. ``seed`` decides the order of sets, so it is the same for both."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}

    def counts(self, wires: Sequence[str]) -> dict[str, Any]:
        """What `_counting` prints for it."""
        done = subprocess.run(
            self.command("benchmarks._counting", *wires),
            cwd=self.folder,
            env=self.environ(0),
            stdout=subprocess.PIPE,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise SystemExit(f"{self.title}: its library does not run the workload, see above")
        report: dict[str, Any] = json.loads(done.stdout)
        if Path(report.pop("library")) != self.folder / PACKAGE:
            raise SystemExit(f"{self.title}: another library was imported than that in its folder")
        return report


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=SOURCE, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def _committed(rev: str, folder: Path, python: str) -> Version:
    commit = _git("rev-parse", "--verify", f"{rev}^{{commit}}").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, PACKAGE))) as archive:
        # Python 3.11.2, which Debian 12 has, knows no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        archive.extractall(folder)
    return Version(rev, commit, folder, python)


def head() -> tuple[str, bool]:
    """The commit of the working tree, and whether its library is another than the commit's."""
    if not (SOURCE / ".git").exists():
        return "unknown", False  # an unpacked sdist
    changed = bool(_git("status", "--porcelain", "--", PACKAGE))
    return _git("rev-parse", "HEAD").decode().strip(), changed


def provenance() -> dict[str, Any]:
    """What a run's file says of itself: what was measured, when, and with which versions."""
    commit, changed = head()
    return {
        "commit": commit,
        "changed": changed,
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "trio": trio.__version__,
    }


def _working_tree(folder: Path, python: str) -> Version:
    commit, changed = head()
    shutil.copytree(
        SOURCE / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
    )
    return Version("working tree", commit, folder, python, changed)


@contextmanager
def versions(rev: str, python: str) -> Iterator[tuple[Version, Version]]:
    """The library as a commit has it, and a copy of what it is now.

    A copy, so that one can go on with the work while they are compared.
    """
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="against-") as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        old.mkdir()
        yield _committed(rev, old, python), _working_tree(new, python)
