"""A client that stays: it does one work after the other, each as a line says.

A process of its own for every measurement makes them seconds apart. `benchmarks.against` has the
processes of two versions wait side by side, and lets them work by turns, a moment each.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from ._common import Peer, arguments, run, together_trio
from ._measure import PATIENCE, Failed, line_of, started
from ._registry import Result


async def steps(peer: Peer, sessions: Peer) -> None:
    """In the client's process: do each work that standard input names, and print its result."""
    parser = arguments()
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        args = parser.parse_args(["client", *shlex.split(line)])
        result = await run(sessions if args.sessions else peer, together_trio, args)
        print(json.dumps(result), flush=True)
    os._exit(0)


class Client:
    """In the harness: the process that answers the lines."""

    def __init__(self, process: subprocess.Popen[str], why: Callable[[], str]) -> None:
        self._process = process
        self._why = why

    def work(self, arguments: Sequence[str], seconds: float) -> Result:
        """Have it do a work.  Raises Failed."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then it has said why
            self._process.stdin.write(shlex.join([*arguments, "--seconds", str(seconds)]) + "\n")
            self._process.stdin.flush()
        line = line_of(self._process, 2 * seconds + PATIENCE)
        if not line.startswith("{"):
            raise Failed(f"no result of {shlex.join(arguments)}: {self._why()}")
        result: Result = json.loads(line)
        return result


@contextmanager
def client(command: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> Iterator[Client]:
    """Start such a client, and end it."""
    with started(command, cwd, environ) as (process, why):
        yield Client(process, why)
