"""Programs that people use, for the tests here: `nox -s applications` installs what is missing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ..helpers import fork_server

PACKAGES = {
    "haproxy": "haproxy",
    "nc": "netcat-openbsd",
    "chromium": "chromium",
    "curl": "curl",
    "docker-compose": "docker-compose",
    "git": "git",
    "go": "golang-go",
    "postgres": "postgresql",
    "psql": "postgresql-client",
    "redis-benchmark": "redis-tools",
    "redis-server": "redis-server",
    "sshd": "openssh-server",
    "systemd-analyze": "systemd",
    "wrk": "wrk",
}
"""Of Debian, by the program that each is needed for."""


def find(name: str) -> str | None:
    """Where a program is, also where only root looks by default."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [os.environ["PATH"], "/usr/sbin", *map(str, versions)]
    return shutil.which(name, path=os.pathsep.join(folders))


@pytest.fixture(autouse=True)
def ordinary_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs here is killed, frozen and looked into, so each program is its own process."""
    monkeypatch.setattr(fork_server, "ORDINARY", True)


@pytest.fixture
def program() -> Callable[[str], str]:
    """The path of a program; without it the test is skipped, which is a failure in CI."""

    def path_of(name: str) -> str:
        path = find(name)
        if path is None:
            pytest.skip(f"{name} is missing: it is in Debian's package {PACKAGES[name]}")
        return path

    return path_of
