"""Standard error that nobody reads: a pipe that is full."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_muxado._command.stderr import PIECE, Stderr

from ..helpers.ports import free_port
from ..helpers.programs import DEADLINE, ENVIRONMENT
from ..tunnel.commands import TOKEN, terminated
from ..tunnel.support import HOST, ask, reverse, service
from .support import ordinary_module

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a pipe cannot be asked there")


@contextlib.contextmanager
def full_pipe() -> Generator[tuple[int, int], None, None]:
    """Both sides of a pipe that takes nothing more; whoever writes to it waits."""
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sink, bytes(PIECE))
    os.set_blocking(sink, True)
    try:
        yield source, sink
    finally:
        os.close(source)
        os.close(sink)


def test_what_does_not_fit_is_dropped_once_nothing_waits() -> None:
    with full_pipe() as (source, sink):
        stderr = Stderr(sink)
        stderr.waits = False
        assert stderr.write(b"lost") == 4
        assert os.read(source, 1 << 20).strip(b"\0") == b""
        line = b"kept" * PIECE
        assert stderr.write(line) == len(line)
        assert os.read(source, 1 << 20) == line


def test_all_of_it_is_written_where_it_waits(tmp_path: Path) -> None:
    source, sink = os.pipe()
    line = bytes(range(256)) * 4096  # more than a pipe holds
    with (
        (tmp_path / "copy").open("wb") as copy,
        subprocess.Popen(["cat"], stdin=source, stdout=copy),
    ):
        os.close(source)
        assert Stderr(sink).write(line) == len(line)
        os.close(sink)
    assert (tmp_path / "copy").read_bytes() == line


async def answer(port: int, data: bytes) -> bytes:
    """Of the service, once its tunnel is there."""
    while True:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            if found := await ask(port, data):
                return found
        await trio.sleep(0.05)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_tunnel_whose_log_nobody_reads(number: signal.Signals, code: int) -> None:
    agents, port = f"{HOST}:{free_port()}", str(free_port())
    with full_pipe() as (_, sink):
        async with service(reverse) as behind, contextlib.AsyncExitStack() as stack:
            start = partial(started, sink)
            relay = await stack.enter_async_context(
                start("relay", "--agents", agents, "--ports", port)
            )
            agent = await stack.enter_async_context(
                start("expose", str(behind.port), "--relay", agents, "--port", port)
            )
            assert await answer(int(port), b"abc") == b"cba"
            for _ in range(20):
                assert await ask(int(port), b"abc") == b"cba"
            for program in (agent, relay):
                program.send_signal(number)
                assert await program.wait() == code


@contextlib.asynccontextmanager
async def started(stderr: int, *command: str) -> AsyncGenerator[trio.Process, None]:
    process = await trio.lowlevel.open_process(
        ordinary_module(*command, "--log-level", "debug"),
        stderr=stderr,
        stdin=subprocess.DEVNULL,
        env={**ENVIRONMENT, **TOKEN},
    )
    try:
        with trio.fail_after(DEADLINE):
            yield process
    finally:
        await terminated(process)
