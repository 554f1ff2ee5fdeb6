"""The Go program in examples/, against the echo server beside it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trio

from ..test_examples import EXAMPLES, HOST, running
from .build import build_go_module
from .ours import TEST_TIMEOUT

pytestmark = pytest.mark.interop


async def test_the_go_peer_of_the_examples(tmp_path: Path) -> None:
    program = tmp_path / "go_peer"
    build_go_module(EXAMPLES / "go_peer", program)
    async with running("echo_server.py", 0) as server:
        (port,) = await server.expect(r"listening on port (\d+)")
        with trio.fail_after(TEST_TIMEOUT):
            done = await trio.run_process(
                [program, f"{HOST}:{port}", "hello", "muxado"],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert (done.returncode, done.stdout) == (0, b"hello\nmuxado\n")
