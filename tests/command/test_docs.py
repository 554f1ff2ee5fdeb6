"""What docs/command.md shows of the proxy: two commands, one beside the other.

All else on that page is run as the snippets of every page are.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from pathlib import Path

from trio_muxado._command.group import COMMANDS

from ..helpers.pages import ROOT, Block, read_page
from ..helpers.programs import DEADLINE, ENVIRONMENT, matches, run_to_its_end
from ..test_snippets import Stage
from .support import module

PAGE = read_page(ROOT / "docs" / "command.md")


def test_every_command_has_a_section() -> None:
    headings = re.findall(r"^## (\S+)$", PAGE.path.read_text("utf-8"), re.MULTILINE)
    assert [name for name in headings if name in COMMANDS] == list(COMMANDS)


def command_and_output(block: Block) -> tuple[list[str], str]:
    line, _, output = block.text.partition("\n")
    program, *words = shlex.split(line.removeprefix("$ "))
    assert program == "trio-muxado"
    return words, output


def test_the_proxy_prints_what_the_page_shows(tmp_path: Path) -> None:
    trace, ping = [b for b in PAGE.blocks if b.text.startswith("$ ") and ":8766" in b.text]
    stage = Stage(PAGE, trace, tmp_path)
    with stage.stack:
        stage.serve(PAGE.last_server(trace))
        words, expected = command_and_output(trace)
        process = subprocess.Popen(
            module(*map(stage.on_our_ports, words)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            text=True,
        )
        assert process.stdout is not None
        printed = process.stdout.readline()  # that it listens
        words, answer = command_and_output(ping)
        came = run_to_its_end(module(*map(stage.on_our_ports, words)), tmp_path)
        assert matches(stage.on_our_ports(answer), came), came
        while " ended " not in printed:
            printed += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=DEADLINE)
    assert rest == "interrupted\n"
    printed = "\n".join(line.rstrip() for line in printed.splitlines())
    assert matches(stage.on_our_ports(expected), printed), printed
