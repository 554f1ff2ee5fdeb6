"""Running the peers: each as a process of its own, bounded in time, ended with its test."""

from __future__ import annotations

import json
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

START_TIMEOUT = 20
END_TIMEOUT = 10
SCENARIO_TIMEOUT = 60


class PeerFailed(AssertionError):
    """A peer said FAIL, or could not even say that."""


class ServingPeer:
    """A peer that serves sessions."""

    def __init__(
        self,
        port: int,
        endings: trio.MemoryReceiveChannel[dict[str, Any]],
        kill: Callable[[], None],
    ) -> None:
        self.port = port
        self.kill = kill
        """End the process at once, whatever it does."""
        self._endings = endings

    async def next_ending(self) -> dict[str, Any]:
        """How the next session ended, as the peer's library saw it."""
        with trio.fail_after(END_TIMEOUT):
            return await self._endings.receive()


@asynccontextmanager
async def serving_peer(binary: Path, *options: str) -> AsyncIterator[ServingPeer]:
    """Runs ``peer serve`` as long as the body lasts."""
    process = await trio.lowlevel.open_process(
        [binary, "serve", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said = bytearray()
    send_port, receive_port = trio.open_memory_channel[int](1)
    send_ending, receive_ending = trio.open_memory_channel[dict[str, Any]](1000)
    try:
        async with process.stdin, process.stdout, process.stderr, trio.open_nursery() as nursery:
            nursery.start_soon(_listen, process.stdout, send_port, send_ending)
            nursery.start_soon(_keep, process.stderr, said)
            with trio.fail_after(START_TIMEOUT):
                port = await receive_port.receive()
            try:
                yield ServingPeer(port, receive_ending, process.kill)
            except BaseException as error:
                _annotate(error, said)
                raise
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
        receive_port.close()
        receive_ending.close()


async def dial_from_peer(
    binary: Path, port: int, scenario: str, *options: str, timeout: float = SCENARIO_TIMEOUT
) -> dict[str, Any]:
    """Runs one scenario of the peer against us, and returns what it has to tell."""
    name, *arguments = scenario.split()
    where = ("--addr", f"127.0.0.1:{port}", "--timeout", f"{timeout:.0f}s")
    with trio.fail_after(timeout + END_TIMEOUT):
        done = await trio.run_process(
            [binary, "dial", *where, *options, name, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    said = done.stdout.decode().strip()
    if done.returncode or not said.startswith("OK "):
        raise PeerFailed(f"{scenario!r}: {said or done.returncode}\n{done.stderr.decode()}")
    result: dict[str, Any] = json.loads(said.removeprefix("OK "))
    return result


async def _listen(
    stdout: trio.abc.ReceiveStream,
    port: trio.MemorySendChannel[int],
    endings: trio.MemorySendChannel[dict[str, Any]],
) -> None:
    with port, endings:
        rest = b""
        async for chunk in stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                word, _, text = line.decode().partition(" ")
                if word == "LISTENING":
                    port.send_nowait(int(text))
                elif word == "SESSION-END":
                    endings.send_nowait(json.loads(text))


async def _keep(stderr: trio.abc.ReceiveStream, said: bytearray) -> None:
    async for chunk in stderr:
        said += chunk


async def _end(process: trio.Process) -> None:
    """Its standard input is closed by now, at which it ends by itself."""
    with trio.move_on_after(END_TIMEOUT):
        await process.wait()
        return
    process.kill()
    await process.wait()


def _annotate(error: BaseException, said: bytearray) -> None:
    # add_note is of Python 3.11.
    if said and hasattr(error, "add_note"):
        error.add_note("the peer's standard error:\n" + said.decode(errors="replace")[-3000:])
