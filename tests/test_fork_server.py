"""A program that the fork server runs can't tell, and whoever started it can't either."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .helpers.fork_server import ORDINARY, python
from .helpers.programs import DEADLINE

pytestmark = pytest.mark.skipif(ORDINARY, reason="all programs start in the ordinary way here")

WHAT_IT_SEES = """
import ctypes, os, signal, sys, warnings  # libffi keeps a file of its own open
print(sys.argv, sys.path[0], __name__, globals().get("__file__"))
print(os.getcwd(), dict(os.environ), sys.stdin.read(), sys.warnoptions)
print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGCHLD), signal.set_wakeup_fd(-1))
print(sorted(os.listdir("/proc/self/fd")) if sys.platform == "linux" else "")
print(sys.stdout.encoding, sys.stdout.errors, sys.stdout.write_through, sys.stdout.line_buffering)
print(sys.stderr.encoding, sys.stderr.errors, sys.stderr.write_through, sys.stderr.line_buffering)
print([name for name in sys.modules if name.startswith(("tests", "trio_muxado._command"))])
warnings.warn("of a test")
"""
ENDS = {
    "well": "print('done')",
    "code": "raise SystemExit(3)",
    "words": "raise SystemExit('words')",
    "error": "1 / 0",
    "interrupted": "raise KeyboardInterrupt",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "aborted": "import os; os.abort()",
    "with a thread": "import threading; threading.Timer(0, print, ['later']).start()",
    "at exit": "import atexit; atexit.register(print, 'at exit')",
    "unclosed": "file = open('program.py')",
}


def ordinary(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def outcome(command: list[str], folder: Path, **options: Any) -> tuple[int, str, str]:
    run = partial(subprocess.run, capture_output=True, text=True, timeout=DEADLINE, check=False)
    done = run(command, cwd=folder, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["", "unbuffered"])
@pytest.mark.parametrize("options", [(), ("-W", "error")], ids=["", "strict"])
@pytest.mark.parametrize("how", ["script", "-m", "-c"])
def test_it_sees_the_same(
    how: str, options: tuple[str, ...], unbuffered: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(WHAT_IT_SEES)
    what = {"script": ["program.py"], "-m": ["-m", "program"], "-c": ["-c", WHAT_IT_SEES]}[how]

    def seen_by(start: Callable[..., list[str]]) -> tuple[int, str, str]:
        command = start(*options, *what, "one", "two words")
        return outcome(command, tmp_path, env={"A": "b", **unbuffered}, input="typed")

    code, printed, said = seen_by(ordinary)
    assert code == bool(options), said
    assert seen_by(python)[:2] == (code, printed)


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_in_the_same_way(end: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(ENDS[end])
    code, printed, said = outcome(python("-W", "error", "program.py"), tmp_path)
    ordinary_code, as_printed, as_said = outcome(ordinary("-W", "error", "program.py"), tmp_path)
    assert (code, printed) == (ordinary_code, as_printed)
    assert said.splitlines()[-1:] == as_said.splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_it(number: int) -> None:
    """And when the signal has ended it, its streams are closed, as they are with the process."""
    code = "import time; print(flush=True); time.sleep(1000)"
    process = subprocess.Popen(python("-c", code), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == -number
    assert (b"KeyboardInterrupt" in said) is (number == signal.SIGINT)


def test_programs_have_random_numbers_of_their_own() -> None:
    """Trio's order of tasks is one."""
    code = "import random, trio; print(random.random(), trio._core._run._r.random())"
    numbers = {
        number for _ in range(2) for number in outcome(python("-c", code), Path())[1].split()
    }
    assert len(numbers) == 4
