"""What ``relay``, ``expose`` and ``forward`` have in common: tokens, logs, and how they stop."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import trio

from trio_muxado import DialLoss
from trio_muxado.tunnel import Token, TunnelRefusedError

from .configuration import read_toml, unreadable
from .ending import Failed, tell, without_openssl
from .options import FILE, FINITE_SECONDS, SECONDS
from .stderr import do_not_wait

F = TypeVar("F", bound=Callable[..., Any])

LOG_INTERVAL = 1.0
"""Seconds between two lines that say that no connection can be accepted."""

LONGEST_TOKEN = 1024
"""Characters."""

TOKEN_VARIABLE = "TRIO_MUXADO_TOKEN"
"""A secret in the environment, for whoever has one token: it is never on a command line."""


# ---- tokens


def secret_of(path: Path | None) -> str:
    """The secret with which this side shows who it is, out of a file or the environment.

    Raises:
      click.UsageError: there is none.
    """
    if path is not None:
        try:
            secret = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(path, error, "'--token-file'") from None
        if not secret:
            raise click.BadParameter(f"{path} is empty", param_hint="'--token-file'")
        whence = str(path)
    else:
        secret, whence = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if not secret:
            raise click.UsageError(f"a token is needed: --token-file, or {TOKEN_VARIABLE}")
    if not secret.isprintable() or len(secret) > LONGEST_TOKEN:
        raise click.UsageError(
            f"{whence} has no token: {LONGEST_TOKEN} printable characters at most"
        )
    return secret


def load_tokens(path: Path | None) -> list[Token]:
    """The tokens of a relay; that of the environment may claim everything.

    Raises:
      click.UsageError: there are none, or one is not what it should be.
    """
    if path is None:
        secret = os.environ.get(TOKEN_VARIABLE, "")
        if not secret:
            raise click.UsageError(f"tokens are needed: --tokens-file, or {TOKEN_VARIABLE}")
        try:
            return [
                Token(
                    secret=secret,
                    label=TOKEN_VARIABLE,
                    names=("*",),
                    hosts=("*",),
                    ports=("1-65535",),
                    targets=("*",),
                    relay=True,
                )
            ]
        except ValueError as error:
            raise click.UsageError(f"{TOKEN_VARIABLE}: {error}") from None
    try:
        tables = read_toml(path)
    except click.BadParameter as error:
        error.param_hint = "'--tokens-file'"
        raise
    found = tables.get("token", [])
    unknown = sorted(set(tables) - {"token"})
    if unknown or not isinstance(found, list) or not found:
        what = f"no {unknown[0]!r}" if unknown else "at least one table [[token]]"
        raise click.BadParameter(f"{path} must have {what}", param_hint="'--tokens-file'")
    return [_token(path, number, each) for number, each in enumerate(found, 1)]  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]


def _token(path: Path, number: int, fields: object) -> Token:
    try:
        if not isinstance(fields, Mapping):
            raise TypeError("must be a table")
        return Token.from_mapping(fields)  # pyright: ignore[reportUnknownArgumentType]
    except (TypeError, ValueError) as error:
        message = f"{path}: token {number}: {error}"
        raise click.BadParameter(message, param_hint="'--tokens-file'") from None


def token_file_option(function: F) -> F:
    """``--token-file``: what this side is known by."""
    return click.option(
        "--token-file",
        type=FILE,
        help=f"File of the token that the relay knows.  [{TOKEN_VARIABLE}]",
    )(function)


def idle_timeout_option(function: F) -> F:
    """``--idle-timeout``: how long a connection may be silent."""
    return click.option(
        "--idle-timeout",
        type=FINITE_SECONDS,
        default=600.0,
        metavar="SECONDS",
        help="Time without data after which a connection is cut.",
    )(function)


def drain_timeout_option(function: F) -> F:
    """``--drain-timeout``: how long connections may take to finish."""
    return click.option(
        "--drain-timeout",
        type=SECONDS,
        default=30.0,
        metavar="SECONDS",
        help="How long connections may go on after SIGTERM.",
    )(function)


# ---- logs


def log_options(function: F) -> F:
    """``--log-format`` and ``--log-level``."""
    function = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="How much is logged. debug logs each visitor.",
    )(function)
    return click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="text is for people. json is one object per line.",
    )(function)


def set_up_logs(log_format: str, log_level: str) -> None:
    """Log to standard error, until the command ends, and never wait for whoever reads that."""
    do_not_wait()
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(
            JsonFormatter(
                ["asctime", "levelname", "name", "message"],
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log_level.upper()
    context = click.get_current_context()
    context.with_resource(_logging_to(handler, "trio_muxado", level))
    context.with_resource(_logging_to(handler, "trio.serve_listeners", level, _Overload()))


class _Overload(logging.Filter):
    """Shortens what trio says of a port that can't accept: ten times a second, with a traceback."""

    _said_at = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """One line a second at most."""
        is_due = record.created - self._said_at >= LOG_INTERVAL
        if is_due:
            self._said_at = record.created
            record.exc_info = None
        return is_due


@contextmanager
def _logging_to(
    handler: logging.Handler, name: str, level: str, *filters: logging.Filter
) -> Generator[None, None, None]:
    """A command may be run inside of a program that has logs of its own."""
    logger = logging.getLogger(name)
    before, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level)
    for each in filters:
        logger.addFilter(each)
    try:
        yield
    finally:
        for each in filters:
            logger.removeFilter(each)
        logger.removeHandler(handler)
        logger.propagate = propagates
        logger.setLevel(before)


# ---- signals


STOPS = (signal.SIGTERM,)
RELOADS = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()


async def watch_signals(
    stop: trio.Event,
    reload: Callable[[], None] | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Set ``stop`` with SIGTERM; with a second one, give up at once; ``reload()`` with SIGHUP.

    Raises:
      Failed: the second SIGTERM.
    """
    wanted = [*STOPS, *(RELOADS if reload is not None else ())]
    with trio.open_signal_receiver(*wanted) as signals:
        task_status.started()
        async for number in signals:
            if number in RELOADS and reload is not None:
                reload()
            elif stop.is_set():
                raise Failed("stopped at once, by a second SIGTERM")
            else:
                tell("stopping, when what runs is done")
                stop.set()


async def run_until_stopped(
    work: Callable[[trio.Event], Any],
    drain_timeout: float,
    reload: Callable[[], None] | None = None,
) -> None:
    """Run ``await work(stop)`` to its end, ``drain_timeout`` seconds after SIGTERM at most."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, stop, reload)
        with trio.CancelScope() as draining:

            async def limit() -> None:
                await stop.wait()
                draining.deadline = trio.current_time() + drain_timeout

            nursery.start_soon(limit)
            await work(stop)
        nursery.cancel_scope.cancel()
    if draining.cancelled_caught:
        raise Failed(f"not all was done within {drain_timeout:g} s: the rest was broken")


# ---- what happens


def refusal(error: TunnelRefusedError) -> Failed:
    """The one line of a refusal."""
    return Failed(f"the relay refuses: {error}")


def tell_loss(loss: DialLoss) -> None:
    """Say that the relay is away."""
    tell(f"no relay: {without_openssl(loss.message)}; again in {loss.pause:.1f} s")
