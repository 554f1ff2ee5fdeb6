"""One measurement: a fresh server, a fresh client, one line of JSON."""

from __future__ import annotations

import json
import resource
import select
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO, Any

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


def _said(errors: IO[str]) -> str:
    errors.seek(0)
    return _build.last_line(errors.read())


def _first_line(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    ready, _, _ = select.select([server.stdout], [], [], START_TIMEOUT)
    return server.stdout.readline() if ready else ""


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
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen(
            serve,
            cwd=_build.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            line = _first_line(server)
            if not line.startswith("{"):
                raise Failed(f"the server did not start: {_said(errors)}")
            return _client([*request, "--port", str(json.loads(line)["port"])], settings)
        finally:
            _end(server)


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


def _end(server: subprocess.Popen[str]) -> None:
    """Closing its standard input ends a server; one that does not heed it is killed."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    try:
        server.wait(2)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    server.stdout.close()
