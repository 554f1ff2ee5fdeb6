"""The TOML file of ``--config``: a table for each command, with its options under their names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import click


def load(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Read the file, and make what it says the defaults of the commands."""
    if path is not None:
        ctx.default_map = _checked(ctx, path, read_toml(path))
    return path


def read_toml(path: Path) -> Mapping[str, Any]:
    """What a TOML file has.

    Raises:
      click.BadParameter: it cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # no UTF-8, no TOML, or too much of it
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception, hint: str | None = None) -> click.BadParameter:
    """What is wrong with a file, which the message names once; ``hint`` is the option's name."""
    reason = error.strerror if isinstance(error, OSError) else error
    return click.BadParameter(f"{path}: {reason}", param_hint=hint)


def _checked(ctx: click.Context, path: Path, tables: Mapping[str, Any]) -> dict[str, Any]:
    group = ctx.command
    assert isinstance(group, click.Group)
    defaults: dict[str, Any] = {}
    for name, table in tables.items():
        command = group.get_command(ctx, name)
        if command is None:
            known = ", ".join(group.list_commands(ctx))
            raise click.BadParameter(f"{path}: [{name}] is not a command; there are {known}")
        if not isinstance(table, dict):
            raise click.BadParameter(f"{path}: {name} must be a table: [{name}]")
        defaults[name] = _of_command(path, name, command, cast("dict[str, Any]", table))
    return defaults


def _of_command(
    path: Path, name: str, command: click.Command, table: Mapping[str, Any]
) -> dict[str, Any]:
    known = {param.name: param for param in command.params if param.name}
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        name_in_python = key.replace("-", "_")
        parameter = known.get(name_in_python)
        if parameter is None:
            names = ", ".join(sorted(word.replace("_", "-") for word in known))
            raise click.BadParameter(f"{path}: {name} has no {key!r}; it has {names}")
        try:
            defaults[name_in_python] = _as_typed_in(parameter, value)
        except ValueError as error:
            raise click.BadParameter(f"{path}: {key} of {name} {error}") from None
    return defaults


def _as_typed_in(parameter: click.Parameter, value: object) -> object:
    """What click makes of a value depends on its type, and of some it makes an exception.  So each
    becomes what a user would type, but for what nobody types: yes, no, and tables.

    Raises:
      ValueError: the value is none of those that the parameter takes.
    """
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {value!r}")
        return value
    if not parameter.multiple:
        return _text_of(value)
    if not isinstance(value, list):
        raise ValueError(f"must be an array, not {value!r}")
    takes_tables = getattr(parameter.type, "takes_tables", False)
    each: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    return [one if takes_tables and isinstance(one, dict) else _text_of(one) for one in each]  # pyright: ignore[reportUnknownVariableType]


def _text_of(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a string or a number, not {value!r}")
    text = str(value)
    if "\0" in text:  # of which the system wants to hear in no path and no name
        raise ValueError("must not have the character 0")
    return text
