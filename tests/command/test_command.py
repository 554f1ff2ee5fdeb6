"""What all commands share: mistakes, exit codes, the environment and the file, and Ctrl-C."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import trio

from trio_muxado import _command
from trio_muxado._command import ending
from trio_muxado._command.group import COMMANDS, commands
from trio_muxado._command.options import ADDRESS, LISTEN_ADDRESS, Address

from ..helpers.fork_server import python
from ..helpers.programs import DEADLINE
from .support import invoke, run

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

EXPOSE = ["expose", "--relay", "localhost:80"]
FORWARD = ["forward", "--relay", "localhost:80"]


def test_the_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert version("trio_muxado") in result.stdout


def test_without_a_command_it_says_what_there_is() -> None:
    result = invoke()
    assert result.exit_code == 2
    assert not result.stdout
    for name in COMMANDS:
        assert f"\n  {name} " in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert f"    trio-muxado {name}" in result.stdout
    short = invoke("--help").stdout
    (line,) = [row for row in short.splitlines() if row.startswith(f"  {name} ")]
    assert not line.endswith("...")  # all of the summary is there


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["demo", "--wire", "v3"], "'--wire': 'v3' is not one of 'v1', 'v2'"),
        (["demo", "--streams", "0"], "'--streams': 0 is not in the range 1<=x<=100000"),
        (["demo", "--streams", "many"], "'--streams': 'many' is not a valid integer"),
        (["demo", "more"], "Got unexpected extra argument (more)"),
        (["demo", "--colour"], "No such option"),
        (["dance"], "No such command 'dance'"),
        (["--config", "/does/not/exist.toml", "demo"], "/does/not/exist.toml: No such file"),
        (["ping", "ex..ample:80"], "'ex..ample' is neither a name nor an address"),
        (["ping", "ex\udcffample:80"], "is neither a name nor an address"),
        (["ping", "localhost:" + 5000 * "9"], "the port must be from 1 to 65535"),
        (["trace", "ex..ample:80", "localhost:80"], "'ex..ample' is neither a name nor an address"),
        (["ping", "--timeout", "nan", "localhost:80"], "'nan' is no number of seconds"),
        (["ping", "--interval", "nan", "localhost:80"], "'nan' is no number of seconds"),
        (["check", "--timeout", "nan", "localhost:80"], "'nan' is no number of seconds"),
        (["relay", "--agents", "ex..ample:80"], "--agents must be HOST:PORT"),
        (["relay", "--agents", "[::1:80"], "--agents must be HOST:PORT"),
        (["relay", "--host", "ex..ample"], "--host must be a name or an address"),
        (["relay", "--drain-timeout", "nan"], "'nan' is no number of seconds"),
        ([*EXPOSE, "ex..ample:80"], "'ex..ample' is neither a name nor an address"),
        ([*EXPOSE, "localhost:" + 5000 * "9"], "the port must be from 1 to 65535"),
        ([*EXPOSE, "[::1:80"], "an IPv6 address stands in brackets"),
        ([*EXPOSE, "::1"], "an IPv6 address stands in brackets"),
        ([*EXPOSE, "80", "--idle-timeout", "inf"], "'inf' is no number of seconds"),
        ([*EXPOSE, "80", "--longest-pause", "inf"], "'inf' is no number of seconds"),
        ([*EXPOSE, "80", "--agent", "a" * 101], "at most 100 printable characters"),
        ([*EXPOSE, "80", "--agent", "a\nb"], "at most 100 printable characters"),
        ([*FORWARD, "::1:80", "db"], "an IPv6 address stands in brackets"),
        ([*FORWARD, "ex..ample:80", "db"], "'ex..ample' is neither a name nor an address"),
        ([*FORWARD, "9" * 5000, "db"], "the port must be from 0 to 65535"),
        ([*FORWARD, "80", "db", "--idle-timeout", "nan"], "'nan' is no number of seconds"),
    ],
)
def test_bad_arguments_end_in_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_MUXADO_TOKEN", "a token of the environment")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    assert complaint in line


@pytest.mark.parametrize("token", ["a\nb", "a" * 1025, "a" * 20 + "\x1b"])
@pytest.mark.parametrize("arguments", [[*EXPOSE, "80"], [*FORWARD, "0", "db"], ["relay"]])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_token_that_nobody_can_show(
    token: str,
    arguments: list[str],
    in_file: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if in_file:
        path = tmp_path / "token"
        is_relay = arguments == ["relay"]
        path.write_text(f"[[token]]\nsecret = {json.dumps(token)}\n" if is_relay else token)
        arguments = [*arguments, "--tokens-file" if is_relay else "--token-file", str(path)]
    else:
        monkeypatch.setenv("TRIO_MUXADO_TOKEN", token)
    result = invoke(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "token" in line.lower()
    assert token not in line


# ---- addresses


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("localhost:80", "localhost", 80),
        ("127.0.0.1:8765", "127.0.0.1", 8765),
        ("[::1]:80", "::1", 80),
        ("example.org:65535", "example.org", 65535),
    ],
)
def test_an_address(text: str, host: str, port: int) -> None:
    assert ADDRESS.convert(text, None, None) == Address(host, port)
    assert str(Address(host, port)) == text


def test_an_address_to_listen_on_may_leave_things_out() -> None:
    assert LISTEN_ADDRESS.convert(":0", None, None) == Address(None, 0)
    assert str(Address(None, 80)) == "*:80"


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("localhost", "no port"),
        ("8765", "no host: write localhost:8765"),
        ("localhost:", "the port must be a number"),
        ("localhost:http", "the port must be a number"),
        ("localhost:0", "from 1 to 65535"),
        ("localhost:65536", "from 1 to 65535"),
        (":80", "no host"),
        ("::1:80", "in brackets"),
        ("[::1]", "in brackets"),
        ("", "no port"),
    ],
)
def test_no_address(text: str, complaint: str) -> None:
    with pytest.raises(click.BadParameter, match=complaint):
        ADDRESS.convert(text, None, None)


# ---- the environment and the file


def test_the_environment_and_the_file_have_the_same_names(tmp_path: Path) -> None:
    file = tmp_path / "muxado.toml"
    file.write_text('[demo]\nstreams = 3\nwire = "v2"\n')
    config = ("--config", str(file))
    result = invoke(*config, "demo")
    assert result.exit_code == 0
    assert "6 (3 from each side)" in result.stdout
    assert "v2 over TCP" in result.stdout
    result = invoke(*config, "demo", env={"TRIO_MUXADO_DEMO_STREAMS": "4"})
    assert "8 (4 from each side)" in result.stdout
    result = invoke(*config, "demo", "--streams", "5", env={"TRIO_MUXADO_DEMO_STREAMS": "4"})
    assert "10 (5 from each side)" in result.stdout
    result = invoke("demo", env={"TRIO_MUXADO_CONFIG": str(file)})
    assert "6 (3 from each side)" in result.stdout


def test_arguments_have_names_as_well(tmp_path: Path) -> None:
    file = tmp_path / "muxado.toml"
    file.write_text('[ping]\naddress = "localhost"\n')
    result = invoke("--config", str(file), "ping")
    assert result.exit_code == 2
    assert f"'localhost' has no port: it must be HOST:PORT (from {file})" in result.stderr
    result = invoke("ping", env={"TRIO_MUXADO_PING_ADDRESS": "localhost"})
    assert result.exit_code == 2
    assert "(from the environment: TRIO_MUXADO_PING_ADDRESS)" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_the_same_name_everywhere(name: str) -> None:
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.name is not None
            assert f"--{param.name.replace('_', '-')}" in param.opts


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("[demo]\nstreams = 0\n", "0 is not in the range 1<=x<=100000 (from FILE)"),
        ("[demo]\ncolour = 3\n", "FILE: demo has no 'colour'; it has streams, tls, wire"),
        ("[dance]\n", "FILE: [dance] is not a command; there are demo, ping, trace, check"),
        ("demo = 3\n", "FILE: demo must be a table: [demo]"),
        ("[demo\n", "FILE: Expected "),
    ],
)
def test_a_mistake_in_the_file_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "muxado.toml"
    file.write_text(text)
    result = invoke("--config", str(file), "demo")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert complaint.replace("FILE", str(file)) in line


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail


VALUES = {
    "a boolean": "true",
    "a number": "-1",
    "a float": "1.5",
    "an infinite number": "1e400",
    "a huge number": "9" * 100,
    "a string": '"\\u0001"',
    "the character 0": '"\\u0000"',
    "an array": '["x"]',
    "an array of arrays": "[[]]",
    "a table": "{a = 1}",
    "an array of tables": '[{service = [], port = "x"}]',
    "a date": "1979-05-27",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_any_value_of_a_file_is_used_or_refused_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "muxado.toml"
    monkeypatch.setattr(trio, "run", raising(OSError("nothing is run here")))
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    needed = {p.name: "127.0.0.1:1" for p in command.params if p.required}
    for param in command.params:
        others = {key: address for key, address in needed.items() if key != param.name}
        env = {f"TRIO_MUXADO_{name}_{key}".upper(): address for key, address in others.items()}
        env["TRIO_MUXADO_TOKEN"] = "a token that is long enough"
        for what, value in VALUES.items():
            file.write_text(f"[{name}]\n{param.name} = {value}\n")
            result = invoke("--config", str(file), name, env=env)
            assert result.exit_code in (0, 1, 2), (param.name, what)
            assert len(result.stderr.splitlines()) <= 1, (param.name, what)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("tls = 1", "tls of ping must be true or false, not 1"),
        ("ca = 3", "File '3' does not exist"),
        ("ca = true", "ca of ping must be a string or a number, not True"),
        ('ca = "\\u0000"', "ca of ping must not have the character 0"),
        ("timeout = [1]", "timeout of ping must be a string or a number, not [1]"),
        ("timeout = true", "timeout of ping must be a string or a number, not True"),
        ("count = 2.5", "'2.5' is not a valid integer"),
        (f"count = {'9' * 5000}", "muxado.toml: "),
        (f"count = {'[' * 5000}", "muxado.toml: "),
    ],
)
def test_a_value_of_the_wrong_type(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "muxado.toml"
    file.write_text(f"[ping]\n{text}\n")
    result = invoke("--config", str(file), "ping", "127.0.0.1:1")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert complaint in line


def test_what_can_be_repeated_is_an_array_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "muxado.toml"
    file.write_text('[relay]\nallow-targets = "127.0.0.1:80"\n')
    result = invoke("--config", str(file), "relay")
    assert result.exit_code == 2
    assert "allow-targets of relay must be an array, not '127.0.0.1:80'" in result.stderr


def test_a_mistake_in_the_environment_says_where() -> None:
    result = invoke("demo", env={"TRIO_MUXADO_DEMO_STREAMS": "many"})
    assert result.exit_code == 2
    assert "(from the environment: TRIO_MUXADO_DEMO_STREAMS)" in result.stderr


# ---- how it ends


def ended_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> tuple[int, str]:
    monkeypatch.setattr("trio_muxado._command.demo.run", raising(error))
    result = invoke("demo")
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    "error, line",
    [
        (ConnectionRefusedError(111, "Connection refused"), "trio-muxado: Connection refused\n"),
        (trio.BrokenResourceError("cut\nhere"), "trio-muxado: cut here\n"),
        (trio.TooSlowError(), "trio-muxado: TooSlowError\n"),
        (
            ExceptionGroup("two", [ExceptionGroup("one", [OSError("lost")]), OSError("more")]),
            "trio-muxado: lost\n",
        ),
        (ending.Failed("it is over"), "trio-muxado: it is over\n"),
    ],
)
def test_what_the_network_does_is_one_line(monkeypatch, error, line) -> None:
    assert ended_with(monkeypatch, error) == (1, line)


def test_a_bug_is_raised_bare(monkeypatch) -> None:
    bug = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError) as raised:
        ended_with(monkeypatch, ExceptionGroup("one", [bug]))
    assert raised.value is bug
    with pytest.raises(ModuleNotFoundError):
        ended_with(monkeypatch, ModuleNotFoundError("No module named 'x'", name="x"))


def test_an_interrupt_of_whatever_runs_is_one_line(monkeypatch) -> None:
    assert ended_with(monkeypatch, KeyboardInterrupt()) == (130, "interrupted\n")


def start(code: str) -> subprocess.Popen[str]:
    """A process that runs a command of our own, once it has said that it does."""
    process = subprocess.Popen(
        python("-W", "error", "-c", code),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


COMMAND = """
import time, trio
from trio_muxado._command import ending
async def work():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        print("running", flush=True)
        try:
            await trio.sleep_forever()
        finally:
            {clean_up}
raise SystemExit(ending.exit_code_of(lambda: ending.run(work)))
"""


@pytest.mark.parametrize(
    "clean_up",
    ["pass", "with trio.CancelScope(shield=True): await trio.sleep_forever()", "time.sleep(60)"],
    ids=["nothing", "shielded", "blocking"],
)
def test_ctrl_c_ends_it_at_once(clean_up: str) -> None:
    process = start(COMMAND.format(clean_up=clean_up))
    with process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_ctrl_c_ends_the_demo() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "trio_muxado", "demo", "--streams", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # It has to be within the demo, and says nothing until that is done: its port says so.
        while not [c for c in connections(process.pid) if process.poll() is None]:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def connections(pid: int) -> list[str]:
    """The sockets of a process."""
    found = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            found.append(target)
    return found


def test_a_reader_that_leaves_is_not_told_of() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "trio_muxado", "demo", "--streams", "2"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


# ---- without click


def test_without_click_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; import trio_muxado._command as c; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr == (
        "trio-muxado needs click: python -m pip install 'trio_muxado[cli]' installs it\n"
    )


def test_an_interrupt_while_commands_are_imported_is_one_line() -> None:
    code = """
import sys, trio_muxado._command as command

class Interrupted:
    def find_spec(self, name, *args):
        if name == "click":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
command.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 130
    assert not done.stdout
    assert done.stderr == "interrupted\n"


def test_a_shell_completes_commands() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "trio-muxado"],
        env={
            **os.environ,
            "_TRIO_MUXADO_COMPLETE": "bash_complete",
            "COMP_WORDS": "trio-muxado ch",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "plain,check\n"


def test_the_library_does_not_import_click() -> None:
    code = "import sys, trio_muxado, trio_muxado.testing; assert 'click' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE)


def test_the_script_and_the_module_are_the_same() -> None:
    as_module = run("--version")
    script = Path(sys.executable).parent / "trio-muxado"
    as_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert as_module.stdout.rpartition(" ")[2] == as_script.stdout.rpartition(" ")[2]
    assert callable(_command.main)
    assert commands.name


def test_a_command_leaves_the_logs_of_the_program_around_it_alone(tmp_path: Path) -> None:
    logger = logging.getLogger("trio_muxado")
    before = logger.level, logger.propagate, logger.handlers[:]
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("no TOML", encoding="utf-8")
    result = invoke("relay", "--tokens-file", str(tokens))
    assert result.exit_code == 2
    assert (logger.level, logger.propagate, logger.handlers) == before
