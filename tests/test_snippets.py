"""Every Python snippet of README.md and docs/ runs here: documentation that lies is a red test.

There is no way to skip one. What isn't meant to run isn't fenced as `python`.

A *program* runs as a script, in a process and an empty folder of its own, with warnings as
errors, and has to end well. A *fragment*, a snippet that awaits outside of any function, runs
as the body of an async function after `import trio` and `from trio_muxado import *`.

What a reader need not see stands in a comment right above the fence, which no renderer shows:

    <!-- snippet: server -->         a program that serves until it is stopped; its test is that
                                     it comes to listen
    <!-- snippet: client -->         runs while the last `server` above it on the page does
    <!-- snippet: client=echo -->    runs beside a server of our own that echoes every stream
    <!-- snippet: given=session -->  a fragment that takes these names (comma between two) as
                                     given: see `given()`; `given=` alone makes a fragment
                                     of what awaits nothing

    <!-- output -->                  above a fence: exactly what the snippet before it prints;
                                     `...` stands for anything within a line

The port of all examples is 8765; a snippet runs with one that the kernel has chosen. TLS
examples find `cert.pem` and `key.pem` (for localhost) and `ca.pem` in their folder.
"""

import ast
import contextlib
import inspect
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

import trio_muxado

ROOT = Path(__file__).parents[1]
PORT = "8765"
# A hang is a failure; no snippet comes near.
DEADLINE = 60


@dataclass
class Snippet:
    page: Path
    line: int  # of the first line of code, counted from 1
    code: str
    options: dict[str, str] = field(default_factory=dict)
    server: "Snippet | None" = None  # the last one above it on the page
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def source(self) -> str:
        """The code on the lines where the page has it, so that a traceback points there."""
        return "\n" * (self.line - 1) + self.code

    @property
    def is_fragment(self) -> bool:
        return "given" in self.options or self.compiled().co_flags & inspect.CO_COROUTINE != 0

    def compiled(self, port: str = PORT) -> Any:
        source = self.source.replace(PORT, port)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        return compile(source, str(self.page), "exec", flags, dont_inherit=True)


FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *(.*?) *$")
COMMENT = re.compile(r"^ *<!-- *(snippet|output|ci)(?:: *(.*?))? *-->$")
PYTHON = re.compile(r"^(python|python3|py|pycon|\{code-block\} *python|\{code\} *python)\b")
KNOWN_OPTIONS = {"server", "client", "given"}


def fences(page: Path) -> list[tuple[str, str, int, str]]:
    """Every fence of a page: the comment right above it, its language, first line and text."""
    found = []
    comment, opened = "", None
    body: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if opened is not None:
            indent, ticks, language, first = opened
            if fence and fence[2].startswith(ticks) and not fence[3]:
                text = "".join(f"{row[len(indent) :]}\n" for row in body)
                found.append((comment, language, first, text))
                comment, opened, body = "", None, []
            else:
                body.append(line)
        elif fence:
            opened = (fence[1], fence[2], fence[3], number + 1)
        elif COMMENT.match(line):
            comment = line.strip()
        elif line.strip():
            comment = ""
    assert opened is None, f"{page} ends inside a fence"
    return found


def snippets(page: Path) -> list[Snippet]:
    found: list[Snippet] = []
    server = None
    for comment, language, line, text in fences(page):
        mark = COMMENT.match(comment)
        kind, words = (mark[1], mark[2] or "") if mark else ("", "")
        if kind == "output":
            assert found, f"{page}:{line}: the output of which snippet?"
            found[-1].output = text
        if PYTHON.match(language):
            options = {w.partition("=")[0]: w.partition("=")[2] for w in words.split()}
            assert options.keys() <= KNOWN_OPTIONS, f"{page}:{line}: {comment}"
            snippet = Snippet(page, line, text, options, server)
            found.append(snippet)
            if "server" in options:
                server = snippet
        else:
            assert kind != "snippet", f"{page}:{line}: {comment} is not above a Python fence"
    return found


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPETS = [s for page in PAGES if "_build" not in page.parts for s in snippets(page)]


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    async with stream:
        async for chunk in stream:
            await stream.send_all(chunk)
        await stream.send_eof()


async def echo_streams(session: trio_muxado.MuxadoSession) -> None:
    await session.serve_streams(echo)


HIDDEN_SERVERS: dict[str, Callable[..., Any]] = {"echo": echo_streams}


@contextlib.asynccontextmanager
async def given(contexts: dict[str, ssl.SSLContext]) -> AsyncIterator[dict[str, Any]]:
    """What a fragment may take as given."""
    ours, theirs = trio.testing.memory_stream_pair()
    spare, spare_peer = trio.testing.memory_stream_pair()

    async def peer() -> None:
        async with trio_muxado.server_session(theirs) as session:
            await session.serve_streams(echo)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        async with trio_muxado.client_session(ours) as session:
            stream = await session.open_stream()
            yield {
                "session": session,  # a client's, whose peer echoes every stream
                "stream": stream,  # one of that session
                "transport": spare,  # a trio stream that leads to `peer_transport`
                "peer_transport": spare_peer,
                "nursery": nursery,
                "handle_stream": echo,
                "handle_session": echo_streams,
                **contexts,  # server_context and client_context, for TLS
            }
        nursery.cancel_scope.cancel()


# Runs a server's program and says which port it got, as soon as it accepts. Not earlier: a server
# may bind a port and give it up again, to have the same one for all families.
ANNOUNCE = """
import runpy, socket, sys, trio
accept = trio.SocketListener.accept
async def announce(self):
    if self.socket.family == socket.AF_INET:
        print("listening on", self.socket.getsockname()[1], flush=True)
    return await accept(self)
trio.SocketListener.accept = announce
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def script(snippet: Snippet, folder: Path, port: str) -> str:
    path = folder / f"line_{snippet.line}.py"
    path.write_text(snippet.source.replace(PORT, port), "utf-8")
    return str(path)


@contextlib.asynccontextmanager
async def serving(snippet: Snippet, folder: Path) -> AsyncIterator[str]:
    """A server's program, from when it listens; gives its port."""
    assert PORT in snippet.code, f"{snippet} does not listen on port {PORT}"
    command = [sys.executable, "-W", "error", "-c", ANNOUNCE, script(snippet, folder, "0")]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder
    )
    printed = bytearray()
    send, receive = trio.open_memory_channel[str](1)

    async def watch() -> None:
        assert process.stdout is not None
        async with send, process.stdout:
            async for chunk in process.stdout:
                printed.extend(chunk)
                if found := re.search(rb"^listening on (\d+)\r?$", printed, re.MULTILINE):
                    with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
                        send.send_nowait(found[1].decode())

    try:
        async with trio.open_nursery() as nursery, receive:
            nursery.start_soon(watch)
            try:
                port = await receive.receive()
            except trio.EndOfChannel:
                pytest.fail(f"{snippet} ended before it listened:\n{printed.decode()}")
            yield port
            ended = process.poll()
            process.kill()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    assert ended is None, f"{snippet} ended while it was used:\n{printed.decode()}"


@contextlib.asynccontextmanager
async def hidden_server(name: str) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        serve = partial(trio_muxado.serve_muxado, host="127.0.0.1")
        (listener, *_) = await nursery.start(serve, HIDDEN_SERVERS[name], 0)
        yield str(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def run_program(command: list[str], folder: Path) -> str:
    """Run it to its end and give what it printed; a bad end is a failure that shows everything."""
    done = await trio.run_process(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    printed = done.stdout.decode("utf-8").replace("\r\n", "\n")
    assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{printed}"
    return printed


async def run_fragment(
    snippet: Snippet, port: str, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> str:
    scope: dict[str, Any] = {"trio": trio, "trio_muxado": trio_muxado, "__name__": "snippet"}
    scope |= {name: getattr(trio_muxado, name) for name in trio_muxado.__all__} | names
    capsys.readouterr()
    running = eval(snippet.compiled(port), scope)
    if inspect.iscoroutine(running):
        await running
    return capsys.readouterr().out


def expect_output(expected: str, printed: str) -> None:
    pattern = re.escape(expected.strip()).replace(r"\.\.\.", ".*")
    assert re.fullmatch(pattern, printed.strip()), f"it printed:\n{printed}"


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """Where a program runs; with the certificates that TLS examples name."""
    leaf = authority.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=number > 0)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
async def test_snippet(
    snippet: Snippet,
    folder: Path,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(DEADLINE))
        port = PORT
        if "server" in snippet.options:
            await stack.enter_async_context(serving(snippet, folder))
            return
        if "client" in snippet.options:
            assert PORT in snippet.code, f"{snippet} does not connect to port {PORT}"
            if name := snippet.options["client"]:
                port = await stack.enter_async_context(hidden_server(name))
            else:
                assert snippet.server is not None, f"{snippet}: a client of which server?"
                port = await stack.enter_async_context(serving(snippet.server, folder))
        if snippet.is_fragment:
            names: dict[str, Any] = {}
            if wanted := snippet.options.get("given"):
                contexts = {"server_context": server_context, "client_context": client_context}
                known = await stack.enter_async_context(given(contexts))
                names = {name: known[name] for name in wanted.split(",")}
            monkeypatch.chdir(folder)
            printed = await run_fragment(snippet, port, names, capsys)
        else:
            command = [sys.executable, "-W", "error", script(snippet, folder, port)]
            printed = await run_program(command, folder)
        if snippet.output is not None:
            expect_output(snippet.output, printed)


def command_of_readme(name: str) -> str:
    """What .ci/run extracts, too: the fence below `<!-- ci: NAME -->`, which is there once."""
    (text,) = [t for comment, _, _, t in fences(PAGES[0]) if comment == f"<!-- ci: {name} -->"]
    return text


def test_the_readme_s_test_command_is_there_for_ci() -> None:
    assert "python -m pytest" in command_of_readme("test")


async def test_the_readme_s_demo_runs(folder: Path) -> None:
    """As it stands there; only the installation is CI's to try."""
    steps = re.split(r"&&|\n", command_of_readme("demo"))
    runs = [step.strip() for step in steps if "-m trio_muxado" in step]
    assert runs
    with trio.fail_after(DEADLINE):
        for run in runs:
            program, *arguments = shlex.split(run)
            assert program == "python"
            await run_program([sys.executable, "-W", "error", *arguments], folder)
