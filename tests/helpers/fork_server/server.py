"""A Python that has imported what programs use, and forks for each: ``python server.py SOCKET``.

Of the package it has imported what ``import trio_muxado`` does: a program that forgets an import
fails as it does elsewhere.

It listens on a Unix socket of that path, prints a line when it does, and ends when its standard
input does.  Each connection is a program: first come its streams, and a pipe with the rest of what
it is (`become`); then each byte is the number of a signal for it, and a lost connection kills it.
The answer is how it ended, in four bytes, as `subprocess` has it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import marshal
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import NoReturn

import trio._core._run as trio_run

import trio_muxado

IMPORTS = [
    *("argparse", "asyncio", "concurrent.futures", "logging.config", "multiprocessing"),
    *("hypercorn.protocol.h11", "hypercorn.protocol.h2", "hypercorn.trio.worker_context"),
    *("click", "hypercorn.trio", "httpcore", "httpx", "prometheus_client", "pytest"),
    *("pythonjsonlogger.json", "rich.console", "rich.progress", "rich.table", "trio.testing"),
    "trustme",
]
"""What the package, examples and snippets import from elsewhere.  A program that uses one which is
missing here takes longer, and nothing else."""


def import_what_programs_use() -> None:
    """All but the package itself, whose modules are only compiled."""
    for name in IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    folder = Path(trio_muxado.__path__[0])
    compiled: dict[str, types.CodeType | None] = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        compiled[str(path)] = SourceFileLoader(name, str(path)).get_code(name)
    get_code = SourceFileLoader.get_code

    def get_compiled(self: SourceFileLoader, name: str) -> types.CodeType | None:
        return compiled.get(self.path) or get_code(self, name)

    SourceFileLoader.get_code = get_compiled  # type: ignore[assignment, method-assign]


class Server:
    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(100)
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._programs: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()
        for source in (self._listener, self._woken, 0):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> list[int] | None:
        """Fork for each program; gives a new process what is handed to it, and the server None."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
        print("listening", flush=True)  # noqa: T201
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    if handed := self._start():
                        return handed
                elif key.fileobj is self._woken:
                    self._woken.recv(4096)
                    self._say_who_ended()
                elif key.fileobj == 0:
                    for pid in self._programs.values():
                        os.kill(pid, signal.SIGKILL)
                    return None
                elif key.fileobj in self._programs:
                    self._pass_on_signals(key.fileobj)

    def _start(self) -> list[int] | None:
        sock, _ = self._listener.accept()
        data, handed, _, _ = socket.recv_fds(sock, 1, 4)
        if not data:  # killed since
            sock.close()
            return None
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._selector.close()
            for other in (self._listener, self._woken, self._wake, sock, *self._programs):
                other.close()
            return handed
        for number in handed:
            os.close(number)
        self._programs[sock] = pid
        self._selector.register(sock, selectors.EVENT_READ)
        return None

    def _pass_on_signals(self, sock: socket.socket) -> None:
        try:
            numbers = sock.recv(100)
        except ConnectionResetError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.kill(self._programs[sock], number)
        if not numbers:
            os.waitpid(self._programs[sock], 0)
            self._forget(sock)

    def _say_who_ended(self) -> None:
        for sock, pid in list(self._programs.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                with suppress(OSError):
                    sock.sendall(code.to_bytes(4, "big", signed=True))
                self._forget(sock)

    def _forget(self, sock: socket.socket) -> None:
        del self._programs[sock]
        self._selector.unregister(sock)
        sock.close()


# ---- in the new process

Program = Callable[[], object]


def become(handed: list[int]) -> Program:
    """Take over a program's streams, folder, environment and arguments; it runs when called."""
    *streams, pipe = handed
    with open(pipe, "rb") as request:  # noqa: PTH123
        arguments, folder, environment = marshal.load(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    open_streams()
    trio_run._r.seed()
    return program_of(arguments)


def open_streams() -> None:
    """In the encoding of the server's, unless the program's environment says another."""
    said, _, said_errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    encoding = said or sys.stdout.encoding
    errors = said_errors or (not said and sys.stdout.errors) or "strict"
    reader = io.BufferedReader(io.FileIO(0, "rb", closefd=False))
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(reader, encoding, errors)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = written_to(1, encoding, errors)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = written_to(2, encoding, "backslashreplace")  # type: ignore[misc]


def written_to(number: int, encoding: str, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(number, "wb", closefd=False)
    if os.environ.get("PYTHONUNBUFFERED"):
        return io.TextIOWrapper(raw, encoding, errors, write_through=True)
    by_lines = number == 2 or os.isatty(number)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=by_lines)


def program_of(arguments: list[str]) -> Program:
    """What ``python ARGUMENTS`` runs."""
    if arguments[:2] == ["-W", "error"]:
        arguments = arguments[2:]
        sys.warnoptions.append("error")
        warnings.simplefilter("error")
    what, *rest = arguments
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [what, *rest]
    if what == "-m":
        sys.argv[1:2] = []
        sys.path.insert(0, str(Path.cwd()))
        return lambda: runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    if what == "-c":
        sys.argv[1:2] = []
        sys.path.insert(0, "")
        return lambda: exec(compile(rest[0], "<string>", "exec"), vars(main))
    assert not what.startswith("-"), f"what Python's option {what} does is not known here"
    path = Path(what).absolute()
    sys.path.insert(0, str(path.resolve().parent))
    main.__file__ = str(path)
    return lambda: exec(compile(path.read_bytes(), path, "exec"), vars(main))


def run(program: Program) -> NoReturn:
    """Run it, and end as the interpreter does, with all that the program left open.

    But it does not take down each module, which takes longer than most programs.
    """
    status, interrupted = 0, False
    try:
        program()
    except SystemExit as error:
        if isinstance(error.code, int | None):
            status = error.code or 0
        else:
            print(error.code, file=sys.stderr)  # noqa: T201
            status = 1
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error, trace)
        interrupted = isinstance(error, KeyboardInterrupt)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    vars(sys.modules["__main__"]).clear()
    gc.collect()  # what is open warns now
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = 120
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def main() -> None:
    del sys.path[0]  # the folder of this file
    import_what_programs_use()
    gc.collect()
    gc.freeze()
    if handed := Server(sys.argv[1]).serve():
        run(become(handed))


if __name__ == "__main__":
    main()
