"""What commands print on a terminal."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from trio_muxado._command import output

from ..helpers.programs import DEADLINE
from .support import module, ordinary_module

ROWS = [("invalid/data-stream-zero", "docs/specification/v1.md#irregular-input", "[bold] none")]
HEADERS = ("vector", "section", "what")


def printed(monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, no_color=True)
    monkeypatch.setattr(output, "terminal", lambda: console)
    monkeypatch.setattr(sys, "stdout", file)
    output.print_table(ROWS, HEADERS)
    return file.getvalue()


def test_a_table_that_fits_has_lines(monkeypatch) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed(monkeypatch, 100))
    for cell in (*ROWS[0], *HEADERS):
        assert f" {cell} " in text


def test_a_narrow_terminal_gets_all_of_it(monkeypatch) -> None:
    name, section, what = ROWS[0]
    assert printed(monkeypatch, 60) == f"{name}  {section}\n    {what}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("no_color", [False, True])
def test_colours_on_a_terminal(no_color: bool) -> None:
    code, text = on_a_terminal("demo", "--streams", "2", no_color=no_color)
    assert code == 0
    assert "│ streams    │ 4 (2 from each side)" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    colours = re.findall(r"\x1b\[[0-9;]*3\d[0-9;]*m", text)
    assert bool(colours) is not no_color


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_ctrl_c_on_a_terminal_gives_the_cursor_back() -> None:
    code, text = on_a_terminal("demo", "--streams", "100000", interrupt=True)
    assert code == 130
    assert "interrupted" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Traceback" not in text


@pytest.mark.skipif(sys.platform == "win32", reason="it is done by a shell")
@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "arguments, code",
    [
        (["demo", "--streams", "2"], 0),
        (["demo", "--wire", "v3"], 2),
        (["ping", "--help"], 0),
        ([], 2),
    ],
)
def test_a_process_that_was_started_without_standard_streams(
    closed: str, arguments: list[str], code: int
) -> None:
    script = f'exec "$@" {closed}'
    command = ["sh", "-c", script, "sh", *ordinary_module(*arguments)]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def on_a_terminal(
    *arguments: str, no_color: bool = False, interrupt: bool = False
) -> tuple[int, str]:
    """Run a command on a terminal, and interrupt it when there is a progress bar."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    with subprocess.Popen(
        module(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        received = b""
        try:
            while chunk := os.read(ours, 4096):
                received += chunk
                if interrupt and b"streams" in received:
                    interrupt = False
                    process.send_signal(signal.SIGINT)
        except OSError:
            pass  # how Linux says that the other side has been closed
        finally:
            os.close(ours)
        return process.wait(DEADLINE), received.decode()
