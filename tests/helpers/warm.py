"""An interpreter that has imported what programs use: ``python -W error warm.py SOCKET``.

Starting Python and importing trio, httpx and hypercorn takes longer than most programs of the
tests themselves.  This process has done it, and forks for each program, which has a process,
a folder, an environment and a ``__main__`` of its own.  It has imported nothing of the package but
what ``import trio_muxado`` does: a program that forgets an import fails as it does elsewhere.

It listens on a Unix socket of that path, and prints a line when it does.  It ends when
its standard input does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import marshal
import os
import pkgutil
import random
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
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import trio._core._run as trio_run

import trio_muxado

OURS = trio_muxado.__name__ + "."


def import_what_programs_use() -> None:
    """All that the whole package imports, but of the package itself."""
    before = set(sys.modules)
    # Modules of the package are not compiled again for each program, wherever bytecode is kept.
    SourceFileLoader.get_code = cache(SourceFileLoader.get_code)  # type: ignore[method-assign]
    for module in pkgutil.walk_packages(trio_muxado.__path__, OURS, onerror=lambda name: None):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    for name in set(sys.modules) - before:
        if name.startswith(OURS):
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and hasattr(sys.modules[parent], child):
                delattr(sys.modules[parent], child)


class Request:
    """What came of a program, and the process that runs it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.streams: list[int] = []
        self.pid = 0
        self.is_this_process = False

    def receive(self) -> bool:
        """Whether it is complete."""
        data, streams, _, _ = socket.recv_fds(self.sock, 65536, 3)
        self.data += data
        self.streams += streams
        if not data:
            raise ConnectionResetError
        return len(self.data) >= 4 + int.from_bytes(self.data[:4], "big")


Requests = dict[Any, Request]


def serve(path: str) -> Callable[[], object]:
    """Fork for each program; returns only in the new process: what it has to run."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(100)
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for pytest
    selector = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    print("listening", flush=True)  # noqa: T201
    requests: Requests = {}
    while True:
        for key, _ in selector.select():
            source = key.fileobj
            if source is listener:
                sock, _ = listener.accept()
                requests[sock] = Request(sock)
                selector.register(sock, selectors.EVENT_READ)
            elif source is woken:
                woken.recv(4096)
                bury(requests, selector)
            elif source is sys.stdin:
                for request in requests.values():
                    if request.pid:
                        os.kill(request.pid, signal.SIGKILL)
                signal.set_wakeup_fd(-1)
                for open_here in (selector, listener, woken, wake, *requests):
                    open_here.close()
                return lambda: None
            elif source in requests:
                request = requests[source]
                hear(request, requests, selector)
                if request.is_this_process:
                    signal.set_wakeup_fd(-1)
                    for open_here in (selector, listener, woken, wake, *requests):
                        open_here.close()
                    return prepare(request)


def bury(requests: Requests, selector: selectors.BaseSelector) -> None:
    """Tell how programs ended."""
    for request in list(requests.values()):
        if request.pid:
            pid, status = os.waitpid(request.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                with suppress(OSError):
                    request.sock.sendall(code.to_bytes(4, "big", signed=True))
                drop(request, requests, selector)


def drop(request: Request, requests: Requests, selector: selectors.BaseSelector) -> None:
    del requests[request.sock]
    selector.unregister(request.sock)
    request.sock.close()


def hear(request: Request, requests: Requests, selector: selectors.BaseSelector) -> None:
    """A part of a request, a signal for its program, or that whoever started it was killed."""
    if request.pid:
        try:
            numbers = request.sock.recv(100) or [signal.SIGKILL]
        except ConnectionResetError:
            numbers = [signal.SIGKILL]
        for number in numbers:
            os.kill(request.pid, number)
        if signal.SIGKILL in numbers:
            os.waitpid(request.pid, 0)
            drop(request, requests, selector)
        return
    try:
        complete = request.receive()
    except ConnectionResetError:
        drop(request, requests, selector)
        return
    if complete:
        request.pid = os.fork()
        request.is_this_process = not request.pid
        if request.pid:
            for number in request.streams:
                os.close(number)


def prepare(request: Request) -> Callable[[], object]:
    """In the new process: become the program."""
    arguments, folder, environment = marshal.loads(request.data[4:])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = written_to(1, "strict")
    sys.stderr = written_to(2, "backslashreplace")
    random.seed()
    trio_run._r.seed()
    return program_of(arguments)


def written_to(number: int, errors: str) -> io.TextIOWrapper:
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED")) or number == 2
    raw = open(number, "wb", closefd=False, buffering=0 if unbuffered else -1)  # noqa: SIM115
    return io.TextIOWrapper(raw, "utf-8", errors, write_through=unbuffered)


def program_of(arguments: list[str]) -> Callable[[], object]:
    """What ``python ARGUMENTS`` runs."""
    if arguments[:2] == ["-W", "error"]:
        del arguments[:2]
        warnings.simplefilter("error")
    else:
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("ignore", ResourceWarning)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[:0] = [str(Path.cwd())]
        return lambda: runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[:0] = [""]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        return lambda: exec(compile(arguments[1], "<string>", "exec"), vars(main))
    sys.argv = arguments
    sys.path[:0] = [str(Path(arguments[0]).absolute().parent)]
    return lambda: runpy.run_path(arguments[0], run_name="__main__")


def end(run: Callable[[], object]) -> None:
    """Run a program, and end as the interpreter does, with all that the program left open.

    What it does not do is to take down each module, which takes longer than most programs.
    """
    status, interrupted = 0, False
    try:
        run()
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)  # noqa: T201
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        interrupted = isinstance(error, KeyboardInterrupt)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if vars(sys.modules["__main__"]) is not globals():
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


if __name__ == "__main__":
    del sys.path[0]
    import_what_programs_use()
    gc.freeze()
    end(serve(sys.argv[1]))
