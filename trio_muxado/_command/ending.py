"""How a command ends: its exit code, and one line for whatever is not a bug of ours."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import click
import trio

from trio_muxado import MuxadoError

from .stderr import has_room

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

T = TypeVar("T")

DONE = 0
FAILED = 1
"""The other side or the network did not do what the command needs."""
MISTAKE = 2
"""The user has to change something: an argument, a file, what is installed."""
INTERRUPTED = 130
"""Ctrl-C, as a shell says it: 128 and the signal's number."""

GRACE = 1.0
"""Seconds that a command may still take after Ctrl-C: to close its sockets, not its sessions."""

SHOW_CURSOR = b"\x1b[?25h"

STDOUT, STDERR = 1, 2

EXTRAS = {
    "coredis": "relays",
    "h11": "http",
    "h2": "http",
    "hypercorn": "http",
    "prometheus_client": "cli",
    "pythonjsonlogger": "cli",
    "rich": "cli",
    "tomli": "cli",
    "trustme": "demo",
}
"""What brings a library that a command may find missing."""


class Failed(click.ClickException):
    """The command cannot do what it was asked for, and the user made no mistake."""

    exit_code = FAILED


class Interrupted(Exception):
    """Ctrl-C."""


def tell(line: str) -> None:
    """Say something to the user that is no result: on standard error, always on one line.

    Where nobody reads it any more, or a disk is full, the command goes on: as it does for its log.
    """
    with suppress(OSError):
        click.echo(" ".join(line.split()), err=True)


# ---- running


def run(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """:func:`trio.run` for a command: Ctrl-C ends it at once.

    The function is cancelled then, and the process ends :data:`GRACE` later whatever still runs, or
    with the second Ctrl-C.

    Raises:
      Interrupted: Ctrl-C.
      Exception: what the function raised; never a group where all but one are cancellations.
    """
    interrupt = _Interrupt()
    with interrupt.handled():
        try:
            return trio.run(interrupt.run, function, *args)
        except BaseException:
            if interrupt.came:
                raise Interrupted from None
            raise


class _Interrupt:
    """Ctrl-C, heard of in the signal's handler itself: a busy loop comes to its tasks too late."""

    def __init__(self) -> None:
        self.came = False
        self._cancel: Callable[[], None] | None = None
        self._deadline = threading.Timer(GRACE, _end_now)
        self._deadline.daemon = True

    @contextmanager
    def handled(self) -> Generator[None, None, None]:
        """Handle the signal, unless it is ignored or this is a thread, for which there are none."""
        before = signal.getsignal(signal.SIGINT)
        is_ours = (
            threading.current_thread() is threading.main_thread()
            and before is not signal.SIG_IGN
            and before is not None
        )
        if is_ours:
            signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            self._deadline.cancel()
            if is_ours:
                signal.signal(signal.SIGINT, before)

    def _handle(self, number: int, frame: object) -> None:
        if self.came:
            _end_now()
        self.came = True
        self._deadline.start()
        if self._cancel is not None:
            self._cancel()

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run the function, and cancel it when the signal comes."""
        with trio.CancelScope() as scope:
            soon = trio.lowlevel.current_trio_token().run_sync_soon
            self._cancel = lambda: soon(scope.cancel)
            if not self.came:
                result = await function(*args)
                self._cancel = None
                if not self.came:
                    return result
        raise Interrupted


def _end_now() -> None:
    # Not by way of Python's files: a thread may hold their locks, and rich has replaced them.
    with suppress(OSError):
        if os.isatty(STDOUT):
            os.write(STDOUT, SHOW_CURSOR)  # a progress bar has hidden it
    with suppress(OSError):
        if has_room(STDERR):
            os.write(STDERR, b"interrupted\n")
    os._exit(INTERRUPTED)


# ---- exit codes


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command to its end; its exit code, which is what it returns where that is a number.

    What the user, the other side or the network did wrong becomes one line on standard error.  Any
    other error is a bug, and is raised.
    """
    try:
        result = command()
        sys.stdout.flush()
    except BaseException as error:
        return _explain(error, list(leaves(error)))
    return result if isinstance(result, int) else DONE


def _let_go_of_stdout() -> None:
    """Nobody reads what is printed: Python must not say so when it flushes at its exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _explain(error: BaseException, found: list[BaseException]) -> int:
    if any(isinstance(leaf, Interrupted | KeyboardInterrupt) for leaf in found):
        tell("interrupted")
        return INTERRUPTED
    if any(isinstance(leaf, BrokenPipeError) for leaf in found):  # trio's sockets raise others
        _let_go_of_stdout()
        return FAILED
    if not all(isinstance(leaf, _EXPECTED) for leaf in found):
        raise (found[0] if len(found) == 1 else error)
    # What says most, where several things went wrong at once.
    first = min(found, key=lambda leaf: not isinstance(leaf, click.ClickException))
    if isinstance(first, click.ClickException):
        tell(_line_of(first))
        return first.exit_code
    if isinstance(first, ModuleNotFoundError):
        if first.name not in EXTRAS:
            raise first
        install = f"python -m pip install 'trio_muxado[{EXTRAS[first.name]}]'"
        tell(f"trio-muxado needs {first.name} for this: {install} installs it")
        return MISTAKE
    tell(f"trio-muxado: {in_words(first)}")
    return FAILED


_EXPECTED = (
    click.ClickException,
    ModuleNotFoundError,
    MuxadoError,
    OSError,
    trio.BrokenResourceError,
    trio.TooSlowError,
)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """What an error consists of, where it may be a group."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for inner in group.exceptions:
            yield from leaves(inner)
    else:
        yield error


def _line_of(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    if not isinstance(error, click.UsageError):
        return f"trio-muxado: {message}"
    if error.ctx is None:
        return f"trio-muxado: {message}"
    path = error.ctx.command_path
    if isinstance(error, click.BadParameter) and (whence := _whence(error)):
        message += f" ({whence})"
    return f"{path}: {message}; see '{path} --help'"


def _whence(error: click.BadParameter) -> str | None:
    """Where a wrong value came from, if the user did not just type it."""
    if error.ctx is None or error.param is None or not error.param.name:
        return None
    source = error.ctx.get_parameter_source(error.param.name)
    if source is click.core.ParameterSource.ENVIRONMENT:
        return f"from the environment: {envvar_of(error.ctx, error.param)}"
    if source is click.core.ParameterSource.DEFAULT_MAP:
        return f"from {error.ctx.find_root().params.get('config')}"
    return None


def envvar_of(ctx: click.Context, param: click.Parameter) -> str:
    """The environment variable of a parameter of a command."""
    return f"{ctx.auto_envvar_prefix}_{param.name}".upper()


def in_words(error: BaseException) -> str:
    """What went wrong, for a line that a user reads."""
    # trio says "socket connection broken", or nothing, and has the reason as its cause.
    bare = trio.BrokenResourceError
    while (not str(error) or type(error) is bare) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ssl.SSLError):
        return without_openssl(str(error))
    if isinstance(error, OSError):
        if error.errno and not isinstance(error, socket.gaierror):
            # trio's own text says much that is said already.
            about = f": {error.filename}" if error.filename else ""
            return os.strerror(error.errno) + about
        if error.strerror:
            return error.strerror
        if error.__cause__ is not None:  # trio tried several addresses
            return in_words(next(leaves(error.__cause__)))
    return str(error) or type(error).__name__


def without_openssl(text: str) -> str:
    """A text without what OpenSSL says for programmers: "[SSL: REASON] in words (_ssl.c:1006)"."""
    return re.sub(r"\[[A-Z0-9]+(: [A-Z0-9_]+)?\] | \(_ssl\.c:\d+\)", "", text)
