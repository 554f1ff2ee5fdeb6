"""The group of all commands: each is imported when it is called for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from .configuration import load
from .ending import DONE, MISTAKE, Interrupted, exit_code_of

COMMANDS = ("demo", "ping", "trace", "check", "relay", "expose", "forward")
"""Each is ``command`` in the module of its name, in this package."""


class Commands(click.Group):
    """Commands that end with one of the documented exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command and end the process."""
        run: Callable[..., Any] = super().main
        command = partial(run, args, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(exit_code_of(command))

    def invoke(self, ctx: click.Context) -> Any:
        """Run what was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # before it got to `run`
            raise Interrupted from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they are listed."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"{__package__}.{cmd_name}").command
        return command


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={
        "auto_envvar_prefix": "TRIO_MUXADO",
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(None, "-V", "--version", package_name="trio_muxado")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    is_eager=True,
    callback=load,
    help="Take options from a TOML file, which has a table for each command.",
)
@click.pass_context
def commands(ctx: click.Context, config: Path | None) -> int:
    """muxado: many streams over one connection.

    Each option of a command can also come from the environment or from the file of --config, under
    the same name: --streams of demo is TRIO_MUXADO_DEMO_STREAMS, or

    \b
        [demo]
        streams = 50

    The command line has precedence over the environment, and the environment over the file.

    Exit codes: 0 done, 1 failed because of the other side or the network, 2 wrong usage, 130
    Ctrl-C.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return MISTAKE
    return DONE
