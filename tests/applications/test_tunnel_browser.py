"""A real browser loads a page of an application that listens nowhere, through `relay`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trustme

from ..tunnel.commands import relaying, running, terminated
from ..tunnel.support import HOST

pytestmark = pytest.mark.applications

DEADLINE = 120
APP = Path(__file__).with_name("browser_app.py")


def listening_sockets(pid: int) -> set[str]:
    """The sockets of a process that listen, by their inodes."""
    listening: set[str] = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                listening.add(words[9])
    own: set[str] = set()
    for link in Path("/proc", str(pid), "fd").iterdir():
        if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
            own.add(found[1])
    return listening & own


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux tells which sockets listen")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls-http2"])
async def test_chromium_uses_all_of_an_application_without_a_port(
    tls: bool, program: Callable[[str], str], tmp_path: Path
) -> None:
    pytest.importorskip("fastapi")
    chromium = program("chromium")
    answers = tmp_path / "answers.json"
    (tmp_path / "browser_app.py").write_text(APP.read_text())
    front: tuple[str, ...] = ("--http", f"{HOST}:0")
    if tls:
        chain = tmp_path / "chain.pem"
        certificate = trustme.CA().issue_cert("app.test")
        certificate.private_key_and_cert_chain_pem.write_to_path(chain)
        front = ("--https", f"{HOST}:0", "--https-cert", str(chain))
    async with relaying(*front) as (relay, agents):
        found = re.search(r"https? [\d.]+:(\d+)", relay.said)
        assert found
        options = ("--relay", agents, "--host", "app.test")
        env = {"TRIO_MUXADO_TOKEN": "a secret of the tests", "ANSWERS": str(answers)}
        expose = ("expose", "browser_app:app", *options)
        async with running(*expose, env=env, cwd=tmp_path) as agent:
            await agent.expect("is at http")
            assert not listening_sockets(agent.process.pid)
            assert listening_sockets(relay.process.pid)
            url = f"{'https' if tls else 'http'}://app.test:{found[1]}/"
            await browse(chromium, url, tmp_path, answers)
            agent.process.send_signal(signal.SIGTERM)
            assert (await agent.wait())[0] == 0
    said = json.loads(answers.read_text())
    assert said == {
        "images": 30,
        "fetched": list(range(20)),
        "uploaded": 3_000_000,
        "downloaded": 5_000_000,
        "events": ["one", "two", "three"],
        "websocket": ["olleh", "dlrow"],
        "closed": [1000, True],
        "protocol": "h2" if tls else "http/1.1",
        "scheme": "https" if tls else "http",
        "client": HOST,
    }


def is_there(path: Path) -> bool:
    return path.exists()


async def browse(chromium: str, url: str, folder: Path, answers: Path) -> None:
    """Have the browser load the page, until the page has said what it found."""
    command = [
        chromium,
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", f"--user-data-dir={folder / 'profile'}", "--no-proxy-server"),
        *("--ignore-certificate-errors", f"--host-resolver-rules=MAP app.test {HOST}"),
        *("--remote-debugging-port=0", url),
    ]
    with (folder / "chromium.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        with trio.move_on_after(DEADLINE):
            while not is_there(answers):
                await trio.sleep(0.1)
        assert is_there(answers), (folder / "chromium.log").read_text(errors="replace")[-3000:]
    finally:
        await terminated(process)
