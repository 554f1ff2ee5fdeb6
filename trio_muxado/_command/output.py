"""Tables, for a terminal and for whoever reads without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console


def terminal() -> Console | None:
    """rich's console, where standard output is a terminal that rich can do something for."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console()


@contextmanager
def progress(
    what: str, total: int, *, hidden: bool = False
) -> Generator[Callable[[], None], None, None]:
    """A bar on a terminal, and nothing elsewhere; what it gives is called for each step."""
    console = None if hidden else terminal()
    if console is None:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        yield partial(bar.advance, bar.add_task(what, total=total))


def print_table(rows: Sequence[Sequence[str]], headers: Sequence[str] | None = None) -> None:
    """Print a table: with lines on a terminal, else aligned by spaces.

    Where a terminal is too narrow the last column has lines of its own: nothing is left out.
    """
    console = terminal()
    lines = [*([headers] if headers else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if console is None:
        for row in lines:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
        return
    if sum(widths) + 3 * len(widths) + 1 > console.width:
        for *first, last in rows:
            click.echo(f"{'  '.join(first)}\n    {last}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(*(headers or ()), show_header=headers is not None)
    for row in rows:
        table.add_row(*map(Text, row))  # brackets in it are no markup
    console.print(table)
