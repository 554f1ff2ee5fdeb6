"""One measurement: a fresh server, a fresh client, one line of JSON."""

from __future__ import annotations

import json
import resource
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _build
from ._registry import Contender, Work

START_TIMEOUT = 30.0
PATIENCE = 60.0  # beyond the time that a measurement is meant to take


@dataclass(frozen=True)
class Settings:
    rounds: int = 5
    seconds: float = 2.0
    bytes: int = 1 << 30


class Failed(Exception):
    """A contender did not come to a result; the message says why."""


def raise_file_limit() -> None:
    """10,000 TCP connections need as many descriptors; the processes inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def started(
    command: Sequence[str], cwd: Path, environ: Mapping[str, str] | None
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Run a program that speaks in lines; yields it, and what says why it failed."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

        def why() -> str:
            errors.seek(0)
            return _build.last_line(errors.read())

        try:
            yield process, why
        finally:
            _end(process)


def line_of(process: subprocess.Popen[str], timeout: float) -> str:
    """The next line that a program prints; empty where none comes in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    return process.stdout.readline() if ready else ""


@contextmanager
def serving(
    command: Sequence[str], *, cwd: Path = _build.ROOT, environ: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a contender's server; yields its port.  Raises Failed."""
    with started(command, cwd, environ) as (server, why):
        line = line_of(server, START_TIMEOUT)
        if not line.startswith("{"):
            raise Failed(f"the server did not start: {why()}")
        yield json.loads(line)["port"]


def measure(contender: Contender, work: Work, settings: Settings) -> dict[str, float]:
    """Run ``work`` once. Raises Failed, or Missing when it cannot run here at all."""
    command = contender.command()
    serve, request = [*command, "server"], [*command, "client", *work.arguments]
    if work.tls:
        certificate, trusted = _build.certificates()
        serve += ["--cert", certificate]
        request += ["--ca", trusted]
    if work.name in contender.at_once:
        request += ["--at-once", str(contender.at_once[work.name])]
    request += ["--seconds", str(settings.seconds), "--bytes", str(settings.bytes)]
    with serving(serve) as port:
        return _client([*request, "--port", str(port)], settings)


def _client(command: list[str], settings: Settings) -> dict[str, float]:
    limit = 2 * settings.seconds + PATIENCE
    try:
        done = subprocess.run(
            command, cwd=_build.ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no result within {limit:.0f} s") from None
    if done.returncode or not done.stdout.startswith("{"):
        raise Failed(_build.last_line(done.stderr))
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _end(process: subprocess.Popen[str]) -> None:
    """Closing its standard input ends a program; one that does not heed it is killed."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
