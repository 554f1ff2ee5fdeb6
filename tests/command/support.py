"""Commands, run within this process or as one of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from click.testing import CliRunner, Result

from trio_muxado import MuxadoConfig, MuxadoSession, MuxadoStream, serve_muxado
from trio_muxado._command.group import commands
from trio_muxado._command.options import ADDRESS, Address

from ..helpers.fork_server import python
from ..helpers.programs import DEADLINE

MODULE = ("-W", "error", "-m", "trio_muxado")


def module(*arguments: str) -> list[str]:
    """How a command is run as a process of its own."""
    return python(*MODULE, *arguments)


def ordinary_module(*arguments: str) -> list[str]:
    """The same, where the process that was started has to be the one that runs it."""
    return [sys.executable, *MODULE, *arguments]


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run a command here; an error that is a bug comes out."""
    result = CliRunner().invoke(commands, list(arguments), env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process."""
    return subprocess.run(
        module(*arguments), capture_output=True, text=True, timeout=DEADLINE, check=False
    )


async def run_beside(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process, beside what this test serves."""
    with trio.fail_after(DEADLINE):
        done = await trio.run_process(
            module(*arguments), capture_stdout=True, capture_stderr=True, check=False
        )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


async def echo(stream: MuxadoStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def echo_streams(session: MuxadoSession) -> None:
    await session.serve_streams(echo)


@asynccontextmanager
async def serving(
    handle: Callable[[MuxadoSession], Any] = echo_streams,
    *,
    config: MuxadoConfig | None = None,
    **options: Any,
) -> AsyncGenerator[str, None]:
    """A muxado server; its address."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_muxado, host="127.0.0.1", config=config or MuxadoConfig(), **options)
        (listener, *_) = await nursery.start(serve, handle, 0)
        listener = getattr(listener, "transport_listener", listener)
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    received = b""
    while end not in received:
        chunk = await stream.receive_some()
        assert chunk, received
        received += chunk
    return received


@asynccontextmanager
async def tracer_process(
    target: str, *options: str, started_by: Callable[..., list[str]] = module
) -> AsyncGenerator[tuple[trio.Process, Address], None]:
    """``trio-muxado trace``, once it listens."""
    process = await trio.lowlevel.open_process(
        started_by("trace", "127.0.0.1:0", target, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with trio.fail_after(DEADLINE):
            async with process.stdout, process.stderr:
                said = (await read_until(process.stderr, b"\n")).decode()
                assert said.startswith("listening on 127.0.0.1:")
                yield process, ADDRESS.convert(said.split()[2].rstrip(","), None, None)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
