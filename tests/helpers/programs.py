"""Programs that pages show, each as a process that its test starts and ends."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

from .fork_server import python

DEADLINE = 240
"""Seconds in which a program has to do what it is for: only a hang takes as long, on a machine with
other work as well.  What waits for each other ends before the five minutes of tests/conftest.py."""

LISTENS = "listening-4b1d"
"""What a program says in its tests when one of its ports accepts."""

# Not earlier than when it accepts: a server may bind a port and give it up again, to have the same
# one for all families.
_ANNOUNCE = f"""
import runpy, sys, trio
accept, told = trio.SocketListener.accept, set()
async def announce(self):
    port = self.socket.getsockname()[1]
    if port not in told:
        told.add(port)
        print("{LISTENS}", port, flush=True)
    return await accept(self)
trio.SocketListener.accept = announce
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

ENVIRONMENT = {
    **os.environ,
    "PYTHONIOENCODING": "utf-8",
    "PYTHONUNBUFFERED": "1",
    # The commands of this environment come first, whether it is activated or not.
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
}


class Serving:
    """A program that runs until its test is done, and what it prints."""

    def __init__(self, what: str, path: Path) -> None:
        self.what = what
        self.printed = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            python("-W", "error", "-c", _ANNOUNCE, path.name),
            cwd=path.parent,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _next_line(self, timeout: float) -> str:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"{self.what} is late:\n{self.printed}") from None
        assert line is not None, f"{self.what} has ended:\n{self.printed}"
        return line

    def wait_until_it_listens(self, ports: int) -> None:
        while ports:
            line = self._next_line(DEADLINE)
            if line.startswith(LISTENS):
                ports -= 1
            else:
                self.printed += line

    def expect(self, output: str) -> None:
        """Wait until it has printed this."""
        while not matches(output, self.printed):
            line = self._next_line(DEADLINE)
            if not line.startswith(LISTENS):
                self.printed += line

    def end(self) -> None:
        """Kill it; it must still run."""
        ended = self.process.poll()
        self.process.kill()
        self.process.wait()
        self._reading.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self.printed += self._lines.get_nowait() or ""
        assert ended is None, f"{self.what} ended while it was used:\n{self.printed}"


@contextlib.contextmanager
def serving(what: str, path: Path, ports: int) -> Generator[Serving, None, None]:
    """A program, from when it listens on so many ports."""
    program = Serving(what, path)
    try:
        program.wait_until_it_listens(ports)
        yield program
    except BaseException:
        program.process.kill()
        with contextlib.suppress(AssertionError):
            program.end()
        raise
    program.end()


def run_to_its_end(command: list[str], folder: Path, **environment: str) -> str:
    """What it printed; a bad end is a failure that shows everything."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    shown = shlex.join(command)
    assert done.returncode == 0, f"{shown} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def matches(expected: str, printed: str) -> bool:
    pattern = re.escape(expected.strip()).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, printed.strip()) is not None
