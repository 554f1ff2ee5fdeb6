"""``python -m trio_muxado demo``, the main job as a stranger sees it."""

import builtins
import subprocess
import sys

import pytest

from trio_muxado import MuxadoStream
from trio_muxado.__main__ import Demo, main


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "trio_muxado", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


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


def test_a_byte_that_comes_back_changed_is_seen(monkeypatch, capsys) -> None:
    async def send_something_else(stream: MuxadoStream, payload: bytes) -> None:
        await stream.send_all(payload[:-1] + bytes([payload[-1] ^ 1]))
        await stream.send_eof()

    monkeypatch.setattr(Demo, "_send", staticmethod(send_something_else))
    with pytest.raises(SystemExit, match=r"^6 streams did not come back as they were sent$"):
        main(["demo", "--streams", "3"])


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["demo", "--wire", "v3"], "argument --wire: invalid choice: 'v3'"),
        (["demo", "--streams", "0"], "argument --streams: '0' is not a number from 1 to 100000"),
        (["demo", "--streams", "many"], "argument --streams: 'many' is not a number"),
        (["demo", "more"], "unrecognized arguments: more"),
        (["dance"], "argument COMMAND: invalid choice: 'dance'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_bad_arguments_end_in_one_line_and_exit_code_2(arguments, complaint, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_what_is_not_installed_is_named(monkeypatch, capsys) -> None:
    real_import = builtins.__import__

    def without_rich(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "rich":
            raise ModuleNotFoundError("No module named 'rich'", name="rich")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_rich)
    with pytest.raises(SystemExit, match=r"the demo needs rich: python -m pip install"):
        main(["demo"])


def test_an_interrupt_is_no_traceback(monkeypatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trio_muxado.__main__._run_demo", interrupted)
    with pytest.raises(SystemExit) as left:
        main(["demo"])
    assert left.value.code == 130
