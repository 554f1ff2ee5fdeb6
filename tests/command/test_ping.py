"""``trio-muxado ping``.  Over TCP, as commands connect."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
from pathlib import Path

import pytest
import trio
import trustme

from trio_muxado import Heartbeat, MuxadoConfig, MuxadoSession

from ..helpers.ports import free_port
from .support import invoke, module, run_beside, serving


async def test_it_says_how_long_each_took() -> None:
    async with serving() as address:
        done = await run_beside("ping", address, "--count", "3", "--interval", "0")
    assert (done.returncode, done.stderr) == (0, "")
    first, *pings, summary = done.stdout.splitlines()
    assert first == f"{address} speaks muxado v1 over TCP"
    assert [bool(re.fullmatch(rf"{i}: \d+\.\d+ ms", ping)) for i, ping in enumerate(pings, 1)] == [
        True
    ] * 3
    number = r"\d+\.\d+ ms"
    assert re.fullmatch(rf"3 sent, 0 lost; min {number}, median {number}, max {number}", summary)


async def test_it_finds_the_version_out() -> None:
    async with serving(config=MuxadoConfig(wire="v2", typed=True)) as address:
        done = await run_beside("ping", address, "--count", "1", "--timeout", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{address} speaks muxado v2 over TCP\n1: ")


async def test_over_tls(server_context: ssl.SSLContext, authority: trustme.CA, tmp_path: Path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with serving(ssl_context=server_context) as address:
        ping = ("ping", address, "--count", "1")
        done = await run_beside(*ping, "--ca", str(tmp_path / "ca.pem"))
        assert (done.returncode, done.stderr) == (0, "")
        assert "speaks muxado v1 over TLS" in done.stdout
        refused = await run_beside(*ping, "--tls")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert f"no TLS with {address}: " in line
    assert "certificate verify failed" in line


async def test_a_ping_that_is_lost() -> None:
    """The peer freezes after the first answer."""

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"

        async def answer_once(stream: trio.SocketStream) -> None:
            async with stream:
                # Any v1 heartbeat stream: SYN with its type, and then DATA of four bytes.
                received = b""
                while b"\x00\x04\x00\x03" not in received or len(received) % 4:
                    received += await stream.receive_some()
                await stream.send_all(received[received.index(b"\x00\x04\x00\x03") :][:12])
                await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, answer_once, [listener])
        ping = ("ping", "--wire", "v1", "--count", "2", "--interval", "0", "--timeout", "0.2")
        done = await run_beside(*ping, address)
        nursery.cancel_scope.cancel()
    assert (done.returncode, done.stderr) == (1, "")
    assert "\n2: lost, nothing came within 0.2 s\n2 sent, 1 lost; min " in done.stdout


async def test_a_session_that_ends_between() -> None:
    async def leave(session: MuxadoSession) -> None:
        await session.ping()

    async with serving(leave, config=MuxadoConfig(heartbeat=Heartbeat(interval=60))) as address:
        done = await run_beside("ping", address, "--count", "1000", "--interval", "0.1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("the session ended: ")
    assert " lost; min " in done.stdout


def test_nobody_listens() -> None:
    with_nobody = free_port()
    result = invoke("ping", f"127.0.0.1:{with_nobody}")
    assert result.exit_code == 1
    assert result.stderr == (
        f"trio-muxado: no connection to 127.0.0.1:{with_nobody}: Connection refused\n"
    )
    result = invoke("ping", f"localhost:{with_nobody}")
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr


async def test_who_does_not_speak_muxado() -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"

        async def speak(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.send_all(b"SSH-2.0-OpenSSH_9.2p1\r\n")
                await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, speak, [listener])
        done = await run_beside("ping", address)
        nursery.cancel_scope.cancel()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"trio-muxado: no answer from {address} in muxado v1: ")
    assert "; v2: " in line
    assert line.endswith(" (are its sessions untyped? does it want TLS?)")


async def test_ctrl_c_still_sums_up() -> None:
    async with serving() as address:
        process = await trio.lowlevel.open_process(
            module("ping", address, "--count", "1000", "--interval", "1000"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        with trio.fail_after(60):
            async with process.stdout, process.stderr:
                out = b""
                while b"\n1: " not in out or not out.endswith(b"\n"):
                    out += await process.stdout.receive_some()
                process.send_signal(signal.SIGINT)
                out += b"".join([chunk async for chunk in process.stdout])
                err = b"".join([chunk async for chunk in process.stderr])
                await process.wait()
    assert (process.returncode, err) == (130, b"interrupted\n")
    assert b"1 sent, 0 lost; min " in out


@pytest.mark.parametrize("option, value", [("--count", "0"), ("--interval", "-1")])
def test_mistakes(option: str, value: str) -> None:
    assert invoke("ping", "localhost:1", option, value).exit_code == 2
