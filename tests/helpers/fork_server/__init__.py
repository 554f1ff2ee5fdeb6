"""Programs of tests, from a Python that has imported trio and trio_muxado already.

Most of these programs take less time than Python takes to start and to import what they use.  So
`python()` gives the command of a small one, ``program.py``, which asks a fork server,
``server.py``, for the program and stands for it: the program has a process, a folder,
an environment, standard streams and a ``__main__`` of its own, gets the signals, and ends as it
would elsewhere.

What this cannot show is what an import does, and what is true of the process that was started: for
that a test starts `sys.executable`.  All programs start in the ordinary way where there is no fork,
where coverage measures them (each gate does that), and where FORK_SERVER=0 is in the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

ORDINARY = (
    not hasattr(os, "fork")
    or sys.implementation.name != "cpython"
    or os.environ.get("FORK_SERVER") == "0"
    or any(name.startswith("COVERAGE_PROCESS_") for name in os.environ)
)


class ForkServer:
    """The server's process, from the first program to the end of the tests."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fork-server-")
        address = str(Path(self._folder.name, "socket"))
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"listening\n"
        # Isolated, and without site-packages: it starts in a tenth of the time.
        self.command = [sys.executable, "-I", "-S", str(HERE / "program.py"), address]

    def end(self) -> None:
        """End it, and what it still runs."""
        self._process.communicate()
        self._folder.cleanup()


_servers: list[ForkServer] = []


def python(*arguments: str) -> list[str]:
    """The command for what ``python ARGUMENTS`` does, in a process of its own.

    Of Python's own options it knows ``-W error``, ``-m`` and ``-c``.
    """
    if ORDINARY:
        return [sys.executable, *arguments]
    if not _servers:
        _servers.append(ForkServer())
    return [*_servers[0].command, *arguments]


def end_fork_server() -> None:
    """The tests are over."""
    while _servers:
        _servers.pop().end()
