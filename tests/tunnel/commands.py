"""The tunnel's commands as processes, until a test is done with them."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from ..command.support import module
from ..helpers.programs import DEADLINE, ENVIRONMENT
from .support import HOST

SECRET = "a secret of the tests"
TOKEN = {"TRIO_MUXADO_TOKEN": SECRET}


APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
"""
"""How a program's ASGI application begins; what it answers follows."""


class Running:
    """A command that runs, and what it says on standard error."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""
        self._seen = 0

    async def expect(self, pattern: str) -> re.Match[str]:
        """Wait until it says a line that matches; what was matched before doesn't count."""
        assert self.process.stderr is not None
        while not (found := re.search(pattern, self.said[self._seen :])):
            chunk = await self.process.stderr.receive_some()
            assert chunk, f"it ended without {pattern!r}:\n{self.said}"
            self.said += chunk.decode()
        self._seen += found.end()
        return found

    async def wait(self) -> tuple[int, str]:
        """Its exit code, and all that it said."""
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.said += chunk.decode()
        return await self.process.wait(), self.said


@contextlib.asynccontextmanager
async def running(
    *arguments: object,
    env: Mapping[str, str] = TOKEN,
    cwd: Path | None = None,
    start: Callable[..., list[str]] = module,
) -> AsyncGenerator[Running, None]:
    """A command, until it is not needed any more."""
    process = await trio.lowlevel.open_process(
        start(*map(str, arguments)),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**ENVIRONMENT, **env},
        cwd=cwd,
    )
    try:
        with trio.fail_after(DEADLINE):
            yield Running(process)
    finally:
        await terminated(process)
        assert process.stderr is not None
        with trio.CancelScope(shield=True):
            await process.stderr.aclose()


@contextlib.asynccontextmanager
async def relaying(*arguments: object, **options: Any) -> AsyncGenerator[tuple[Running, str], None]:
    """A relay; the agents' address as well."""
    async with running("relay", "--agents", f"{HOST}:0", *arguments, **options) as relay:
        yield relay, (await relay.expect(r"listening: .*agents ([\d.]+:\d+)"))[1]


async def terminated(process: trio.Process) -> None:
    """End a program as its user would, so that it leaves nothing, nor loses its coverage.

    A relay and an agent wait for their visitors, and end at once when they are asked again.  What
    still runs is killed.  Nobody reads what it says.
    """
    with trio.CancelScope(shield=True):
        for _ in range(2):
            if process.poll() is None:
                process.terminate()
            with trio.move_on_after(2):
                await process.wait()
        process.kill()
        await process.wait()
