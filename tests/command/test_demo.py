"""``trio-muxado demo``, the main job as a stranger sees it."""

from __future__ import annotations

import builtins

import pytest

from trio_muxado import MuxadoStream
from trio_muxado._command.demo import Demo

from .support import invoke, run


@pytest.mark.parametrize("wire", ["v1", "v2"])
@pytest.mark.parametrize("tls", [(), ("--tls",)], ids=["tcp", "tls"])
def test_it_checks_every_byte_and_ends_with_a_table(wire, tls) -> None:
    done = run("demo", "--wire", wire, "--streams", "20", *tls)
    assert (done.returncode, done.stderr) == (0, "")
    sizes = [1 + number * 7919 % (32 * 1024) for number in range(20)]
    for fact in (
        f"{wire} over {'TLS' if tls else 'TCP'}",
        "40 (20 from each side)",
        f"{4 * sum(sizes):,} there and back",
        "streams/s",
        "ms (heartbeat)",
    ):
        assert fact in done.stdout
    # Without a terminal it is plain text.
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


def test_a_byte_that_comes_back_changed_is_seen(monkeypatch) -> None:
    async def send_something_else(stream: MuxadoStream, payload: bytes) -> None:
        await stream.send_all(payload[:-1] + bytes([payload[-1] ^ 1]))
        await stream.send_eof()

    monkeypatch.setattr(Demo, "_send", staticmethod(send_something_else))
    result = invoke("demo", "--streams", "3")
    assert result.exit_code == 1
    assert result.stderr == "trio-muxado: 6 streams did not come back as they were sent\n"


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=package)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_tls_says_what_is_not_installed(monkeypatch) -> None:
    without(monkeypatch, "trustme")
    result = invoke("demo", "--tls")
    assert result.exit_code == 2
    assert result.stderr == (
        "trio-muxado needs trustme for this: "
        "python -m pip install 'trio_muxado[demo]' installs it\n"
    )


def test_it_does_without_rich(monkeypatch) -> None:
    without(monkeypatch, "rich")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    result = invoke("demo", "--streams", "3")
    assert result.exit_code == 0
    assert "6 (3 from each side)" in result.stdout
