"""Every Python block of README.md and docs/ runs here: documentation that lies is a red test.

There is no way to skip one. What isn't meant to run isn't fenced as `python`. A block is a
*program*: pasted into a file, with the blocks above it that it names, it runs as a script with
warnings as errors, in a folder of its own, and has to end well. `helpers/pages.py` has the comments
that say how; blocks of `sh` run too, where they are not `pip install`.

The ports of all examples are in `PORTS`; a program runs with free ones instead.
"""

import contextlib
import io
import os
import re
import shlex
import signal
import sys
import types
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_muxado import StreamResetError, open_muxado_session

from .helpers.fork_server import python
from .helpers.pages import PAGES, ROOT, Block, Page
from .helpers.ports import free_ports
from .helpers.programs import DEADLINE, matches, run_to_its_end, serving

PORT = "8765"
PORTS = [PORT, "8766", "8080", "8000"]
"""Of sessions, of a proxy for them, of visitors, of a service."""

NEEDS_A_PROCESS = re.compile(r"__file__|sys\.argv|logging\.basicConfig|signal|asyncio|uvicorn")
"""What a program does that it can't do within pytest."""

INSTALLS = re.compile(r"(python -m )?(pip|nox|git)\b")
"""How a line begins that no test runs: it changes the machine, or needs the network."""


def blocks(wanted: Callable[[Block], bool]) -> list[Any]:
    return [
        pytest.param(
            page,
            block,
            id=str(block),
            marks=[pytest.mark.applications] if "extra" in block.options else [],
        )
        for page in PAGES
        for block in page.blocks
        if wanted(block)
    ]


class Stage:
    """Where the programs of a test run: a folder, with ports that stand for those of the page."""

    def __init__(self, page: Page, block: Block, folder: Path) -> None:
        self.page = page
        self.block = block
        self.folder = folder
        self.stack = contextlib.ExitStack()
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.prepared: set[str] = set()
        for other in page.above(block):
            if name := other.options.get("file"):
                (folder / name).write_text(self.on_our_ports(other.text), "utf-8")

    def on_our_ports(self, text: str) -> str:
        return re.sub("|".join(PORTS), lambda found: self.ports[found[0]], text)

    def source(self, block: Block) -> str:
        return self.on_our_ports(self.page.source(block))

    def write(self, block: Block) -> Path:
        path = self.folder / f"line_{block.line}.py"
        path.write_text(self.source(block), "utf-8")
        return path

    def prepare(self, block: Block) -> None:
        """Run the programs that have to come first."""
        for name in block.named("first"):
            if name not in self.prepared:
                self.prepared.add(name)
                first = self.page.find(name, block)
                self.prepare(first)
                self.run(first)

    def run(self, block: Block) -> str:
        if block.is_shell:
            script = self.folder / f"line_{block.line}.sh"
            script.write_text(self.on_our_ports(block.text), "utf-8")
            return run_to_its_end(["sh", "-e", script.name], self.folder)
        if "pytest" in block.options:
            path = self.folder / f"test_line_{block.line}.py"
            path.write_text(self.source(block), "utf-8")
            options = ["-q", "-p", "no:cacheprovider", "--rootdir", ".", "-p", "pytest_trio.plugin"]
            return run_to_its_end(
                python("-m", "pytest", *options, path.name),
                self.folder,
                # The plugins of the environment, hypothesis among them, take longer than the tests.
                PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            )
        imports = any("file" in other.options for other in self.page.above(block))
        if imports or NEEDS_A_PROCESS.search(self.page.source(block)):
            return run_to_its_end(python("-W", "error", self.write(block).name), self.folder)
        return run_here(compile(self.source(block), str(block.page), "exec"), self.folder)

    def serve(self, block: Block) -> None:
        self.prepare(block)
        ports = int(block.options["server"] or 1)
        program = self.stack.enter_context(serving(str(block), self.write(block), ports))
        if block.output is not None:
            # What it prints is complete when the programs that it serves have ended.
            expected = self.on_our_ports(block.output)
            if block is not self.block:
                self.stack.callback(program.expect, expected)


def run_here(code: types.CodeType, folder: Path) -> str:
    """Run a program in this process, which is ten times as fast as in one of its own."""
    printed = io.StringIO()
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        with deadline(), contextlib.redirect_stdout(printed):
            exec(code, names)
    finally:
        os.chdir(before)
    return printed.getvalue()


@contextlib.contextmanager
def deadline() -> Generator[None, None, None]:
    """A program that hangs fails its test. Elsewhere pytest ends the run, some minutes later."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(*_: object) -> None:
        raise TimeoutError(f"it has run for {DEADLINE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(DEADLINE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("page, block", blocks(lambda b: b.is_python or "shell" in b.options))
def test_program(page: Page, block: Block, tmp_path: Path) -> None:
    stage = Stage(page, block, tmp_path)
    with stage.stack:
        stage.prepare(block)
        if "client" in block.options:
            stage.serve(page.last_server(block))
        for name in block.named("with"):
            stage.serve(page.find(name, block))
        if "server" in block.options:
            stage.serve(block)
        else:
            printed = stage.run(block)
            if block.output is not None:
                expected = stage.on_our_ports(block.output)
                assert matches(expected, printed), f"it printed:\n{printed}"


MANY = b"9" * 4300
"""Digits of the longest number that Python reads. The sum of two is too long to be written."""

BODIES = [
    b"",
    b"\xff\xff\xff\xff",
    b"null",
    b'["words"]',
    b"[NaN]",
    b"[1e999]",
    b"[%b, %b]" % (MANY, MANY),
    b"[" * 100_000,
    b'{"numbers": 1}',
    b'{"numbers": [%b, %b]}' % (MANY, MANY),
]
NONSENSE = [*BODIES, *(len(body).to_bytes(4, "big") + body for body in BODIES)]
"""What no server expects, alone and with its length before it (docs/howto/messages.md)."""


async def send_nonsense(port: int) -> None:
    """One stream for each, to a server that ends if its handler raises for any of them."""
    async with open_muxado_session("127.0.0.1", port) as session:
        for data in NONSENSE:
            stream = await session.open_stream()
            with contextlib.suppress(StreamResetError):
                await stream.send_all(data)
                await stream.send_eof()
        for _ in range(50):  # each takes a pass of the server's loop, so its handlers have run
            await session.ping()


async def answer_nonsense(port: int) -> None:
    """The same, to a server that opens the streams."""
    for _ in range(2):  # had the first one ended the server, the second would not end cleanly
        async with open_muxado_session("127.0.0.1", port) as session:
            async for stream in session:
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(b"nonsense\r\n\r\n")
                    await stream.send_eof()
                    async for _ in stream:
                        pass


@pytest.mark.parametrize(
    "page, block",
    blocks(
        lambda b: (
            b.options.get("server") == ""
            and not b.options.keys() & {"first", "extra"}
            and "serve_muxado" in b.text
            and 'wire="v2"' not in b.text
        )
    ),
)
def test_no_client_ends_a_server(page: Page, block: Block, tmp_path: Path) -> None:
    """Servers of the pages do what the pages say: a bad request ends a stream, and nothing else."""
    stage = Stage(page, block, tmp_path)
    with stage.stack:
        stage.stack.enter_context(serving(str(block), stage.write(block), 1))
        attack = send_nonsense if "serve_streams" in block.text else answer_nonsense
        trio.run(attack, int(stage.ports[PORT]))


def test_no_option_stands_above_another_block() -> None:
    for page in PAGES:
        for block in page.blocks:
            runs = block.is_python or block.options.keys() <= {"file"} or "peer" in block.options
            assert runs or (block.is_shell and "shell" in block.options), f"{block} does not run"


def test_shell_commands_run_or_install() -> None:
    for page in PAGES:
        for block in page.blocks:
            if not block.is_shell or "shell" in block.options or block.kind == "ci":
                continue
            for line in block.text.splitlines():
                assert INSTALLS.match(line) or not line, f"{block}: nobody runs {line!r}"


def test_what_is_installed_exists() -> None:
    """Extras that pages name are extras of the package."""
    known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M))
    for page in PAGES:
        for block in page.blocks:
            if block.is_shell:
                for extras in re.findall(r"(?:\.|trio_muxado)\[([\w,]+)\]", block.text):
                    assert set(extras.split(",")) <= known, f"{block}: {extras}"


# ---- README.md


def command_of_readme(name: str) -> str:
    """What .ci/run extracts, too: the fence below `<!-- ci: NAME -->`, which is there once."""
    (text,) = [b.text for b in PAGES[0].blocks if b.kind == "ci" and b.words == name]
    return text


def test_the_readme_s_test_command_is_there_for_ci() -> None:
    assert "python -m pytest" in command_of_readme("test")


def test_the_readme_s_demo_runs(tmp_path: Path) -> None:
    """As it stands there; only the installation is CI's to try."""
    steps = re.split(r"&&|\n", command_of_readme("demo"))
    runs = [step.strip() for step in steps if "-m trio_muxado" in step]
    assert runs
    for run in runs:
        program, *arguments = shlex.split(run)
        assert program == "python"
        run_to_its_end([sys.executable, "-W", "error", *arguments], tmp_path)
