"""What examples/deployment/ says exists, and means what the commands understand."""

import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import trio
import trio.testing

from trio_muxado._command.configuration import load
from trio_muxado._command.expose import tunnels_of
from trio_muxado._command.group import COMMANDS, commands
from trio_muxado._command.options import Address
from trio_muxado._command.relay import OF_THE_LIBRARY
from trio_muxado._command.status import serve_status
from trio_muxado._command.tunnels import load_tokens
from trio_muxado.tunnel import Relay, RelayConfig, Token

from .helpers.ports import free_port

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "deployment"


def options_of(name: str) -> set[str]:
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    return {param.name for param in command.params if param.name}


def defaults_of(file: str) -> dict[str, Any]:
    """The options of a file's one table; a wrong name is an error."""
    ctx = click.Context(commands)
    load(ctx, click.Option(["--config"]), FOLDER / file)
    assert ctx.default_map is not None
    ((_, options),) = ctx.default_map.items()
    return options


def test_a_relays_file() -> None:
    options = defaults_of("relay.toml")
    config = RelayConfig(**{key: options[key] for key in OF_THE_LIBRARY if key in options})
    assert config.relay_address == "relay1.internal:4440"
    assert "registry" in options


def test_the_file_of_tokens_allows_what_the_agents_file_claims() -> None:
    tokens = load_tokens(FOLDER / "tokens.toml")
    assert [token.label for token in tokens if token.relay] == ["relays"]
    (office,) = [token for token in tokens if not token.relay]
    single = dict.fromkeys(("port", "host", "proxy_protocol"))
    tunnels = tunnels_of(None, tuple(defaults_of("expose.toml")["tunnels"]), 1.0, **single)
    assert len(tunnels) == 2
    for tunnel in tunnels:
        assert office.why_not(tunnel) is None


@pytest.mark.parametrize("unit", sorted(FOLDER.glob("*.service")), ids=lambda path: path.stem)
def test_a_unit_runs_a_command_with_a_file_that_is_here(unit: Path) -> None:
    (line,) = re.findall("^ExecStart=(.*)$", unit.read_text("utf-8"), re.MULTILINE)
    program, option, file, command = line.split()
    assert (program, option) == ("/opt/trio-muxado/bin/trio-muxado", "--config")
    assert unit.stem == f"trio-muxado-{command}"
    assert command in COMMANDS
    assert defaults_of(Path(file).name)
    assert Path(file).parent == Path("/etc/trio-muxado")


def test_the_image_gets_what_the_wheel_is_made_of_and_nothing_else(tmp_path: Path) -> None:
    """What hatchling is told to read is there, in a folder that has just what the image gets."""
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    for line in re.findall("^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, target = line.split()
        assert target.startswith("/src/")
        for source in sources:
            path, copy = ROOT / source, tmp_path / target.removeprefix("/src/")
            if path.is_dir():
                shutil.copytree(path, copy)
            else:
                shutil.copy(path, copy / source)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["LICENSE", "README.md", "hatch_build.py", "pyproject.toml", "trio_muxado"]
    )
    project = (tmp_path / "pyproject.toml").read_text("utf-8")
    assert 'packages = ["trio_muxado"]' in project
    assert 'license-files = ["LICENSE"]' in project
    assert "/src[cli,http,relays]" in text
    for extra in ("cli", "http", "relays"):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


def test_the_compose_file_s_options_exist() -> None:
    text = (FOLDER / "compose.yaml").read_text("utf-8")
    variables = re.findall("TRIO_MUXADO_RELAY_([A-Z_]+):", text)
    flags = re.findall(r"command: relay --([a-z-]+) ", text)
    assert len(variables) >= 7
    assert len(flags) == 2
    names = {name.lower() for name in variables} | {flag.replace("-", "_") for flag in flags}
    assert names <= options_of("relay")


def test_no_two_services_build_one_image() -> None:
    """Docker builds them in parallel, and one of the builds then fails or is lost."""
    text = (FOLDER / "compose.yaml").read_text("utf-8")
    (shared,) = re.findall("^x-relay:.*?^services:", text, re.MULTILINE | re.DOTALL)
    assert "\n  build:\n" in shared
    assert "image:" not in shared


async def test_the_check_of_a_container_s_health() -> None:
    """As compose.yaml has it, but for the port: it fails from SIGTERM on."""
    text = (FOLDER / "compose.yaml").read_text("utf-8")
    (line,) = re.findall("^ +test: (.*)$", text, re.MULTILINE)
    program, *arguments = shlex.split(line)
    assert program == "python"
    port = free_port()
    check = [sys.executable, *(each.replace(":9100/", f":{port}/") for each in arguments)]
    stop = trio.Event()
    run = partial(trio.run_process, check, check=False, stderr=subprocess.DEVNULL)
    config = RelayConfig(agents="127.0.0.1:0", ports=str(free_port()))
    relay = Relay(config, [Token(secret="a secret of the tests")])
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, relay, Address("127.0.0.1", port))
        await nursery.start(partial(relay.run, stop=stop))
        assert (await run()).returncode == 0
        stop.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (await run()).returncode != 0
        nursery.cancel_scope.cancel()
    assert (await run()).returncode != 0


def test_all_speak_of_the_same_ports() -> None:
    proxy = (FOLDER / "haproxy.cfg").read_text("utf-8")
    compose = (FOLDER / "compose.yaml").read_text("utf-8")
    options = defaults_of("relay.toml")
    for key in ("agents", "http", "status"):
        port = options[key].rpartition(":")[2]
        assert re.search(rf"(:|port ){port}\b", proxy)
        assert f"TRIO_MUXADO_RELAY_{key.upper()}: 0.0.0.0:{port}\n" in compose
    assert f"bind :{options['ports']}\n" in proxy
    assert f"TRIO_MUXADO_RELAY_PORTS: {options['ports']}\n" in compose
    assert proxy.count("send-proxy-v2") == 4
    assert options["accept_proxy_protocol"] is True


def test_every_file_is_in_the_index() -> None:
    index = (FOLDER / "README.md").read_text("utf-8")
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or f"({path.name})" in index
    assert "(deployment/README.md)" in (FOLDER.parent / "README.md").read_text("utf-8")
