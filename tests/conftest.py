"""What all tests share, and the rules that keep them deterministic.

1. No test passes or fails by the clock. A test about time takes `autojump_clock` (trio's clock
   leaps to the next deadline when every task waits) or `mock_clock`; a test that only wants
   "until nothing moves any more" awaits `trio.testing.wait_all_tasks_blocked()`. Nobody calls
   `time.sleep`, and `trio.sleep` only where the clock is a mocked one.
2. Memory first. Sessions meet over `trio.testing.memory_stream_pair()`, or a pair that the
   test steps by hand. A test over TCP or TLS says why memory won't do, stays on 127.0.0.1 and
   lets the kernel choose the port, or where it has to know one before takes it from
   `helpers/ports.py`: other tests run at the same time.
3. `autojump_clock` and real sockets exclude each other: while the kernel has the bytes every
   task waits, and the clock leaps.
4. An order is made, not hoped for: with events, `Sequencer`, or one `wait_all_tasks_blocked`
   after the other. Trio schedules tasks in random order on purpose.
5. Random input comes from hypothesis (derandomized in CI, so that a red run is red again), or
   from a `random.Random(seed)` whose seed the failure shows.
6. Every warning is an error, and nothing outlives its test: no task, socket, process or file.
   What must be closed is closed by the test itself, not by the garbage collector.
7. A test ends by itself. A hang is a bug that is reported with every stack after five
   minutes; a process that a test starts is killed at its own deadline.
8. No test depends on another, on its order, on the network beyond this machine, or on a file
   outside the repository and `tmp_path`.
"""

from __future__ import annotations

import faulthandler
import gc
import math
import os
import signal
import ssl
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import trustme

# hypothesis and cryptography, which trustme is built on, have no wheels for PyPy. What runs there
# (`nox -s pypy`) needs neither; elsewhere a test that needs them must not go without.
if sys.implementation.name != "pypy":
    import hypothesis

    hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
    hypothesis.settings.register_profile(
        "ci", deadline=None, max_examples=200, derandomize=True, database=None
    )
    hypothesis.settings.register_profile("thorough", deadline=None, max_examples=10_000)
    hypothesis.settings.load_profile(
        os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
    )


def pytest_configure(config: pytest.Config) -> None:
    # Let Ctrl-C be heard, here and in programs that tests start.  A shell that runs pytest in the
    # background has it ignored, and programs inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.option.patient:
        config.pluginmanager.register(HangReporter(), "hang-reporter")


class HangReporter:
    """Ends a run in which a test hangs, with every stack: a belt, as no test takes minutes.

    pytest's `faulthandler_timeout` starts a thread for each test and waits for its end, which for
    thousands of short tests takes seconds.  One that is started every ten seconds will do.
    """

    TIMEOUT, EVERY = 300, 10

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # nothing is captured yet
        self._next = -math.inf

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.EVERY
            faulthandler.dump_traceback_later(self.TIMEOUT, exit=True, file=self._stderr)

    def pytest_unconfigure(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._stderr)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--certificate",
        metavar="FILE",
        help="a self-signed certificate of localhost and its key, where trustme can't make one",
    )
    parser.addoption(
        "--patient",
        action="store_true",
        help="tests may take minutes: none is taken to hang",
    )
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="a skipped test is a failed test: CI has what the interop tests need",
    )


def _is_for_all_tests(config: pytest.Config) -> bool:
    """Whether nobody has said which tests to run."""
    said = config.option.markexpr in config.getini("addopts")
    return said and config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist's, which counts the cores
def pytest_cmdline_main(config: pytest.Config) -> None:
    """A whole run has workers; a part of one is sooner done by this process.

    Not where an option says how many, or what to run, or who reads along. Nor where pytest-xdist is
    missing, or this is a worker of it.
    """
    option = config.option
    parts = ("keyword", "lf", "stepwise", "collectonly", "usepdb")
    if (
        _is_for_all_tests(config)
        and option.capture != "no"
        and not any(config.getoption(part, False) for part in parts)
        and config.getoption("numprocesses", 0) is None
        and option.dist == "no"
        and not hasattr(config, "workerinput")
    ):
        option.numprocesses, option.dist = "auto", "worksteal"


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One more than there are cores: some tests wait, for programs and for real clocks."""
    cores = yield
    return cores if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else cores + 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders whose tests are all of a marker that does not run are not even read."""
    markers = ("interop", "applications", "proofs")
    folders = [Path(__file__).parent / marker for marker in markers]
    return (collection_path in folders and _is_for_all_tests(config)) or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that is collected is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def _do_nothing(value: None) -> None:
    """A property of nothing."""


def pytest_collection_finish() -> None:
    """What has been collected stays to the end: garbage collection need not go through it again.

    It is most of what there is, and tests that look for what is left collect many times.  Those
    collect themselves, so that nobody needs it after every few hundred objects.
    """
    if sys.implementation.name == "pypy":
        return
    # With its first example hypothesis makes its generator of random numbers, and asks the garbage
    # collector who holds that.  It would not see whoever is frozen.
    hypothesis.given(hypothesis.strategies.none())(_do_nothing)()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_unconfigure() -> None:
    if fork_server := sys.modules.get(f"{__package__}.helpers.fork_server"):
        fork_server.end_fork_server()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped under --no-skips: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that only this test run trusts."""
    import trustme

    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    """TLS for a server on this machine."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which some Pythons set: cut looks ended
    if certificate := request.config.getoption("--certificate"):
        context.load_cert_chain(certificate)
    else:
        authority: trustme.CA = request.getfixturevalue("authority")
        authority.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    """TLS for a client of that server."""
    context = ssl.create_default_context()
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if certificate := request.config.getoption("--certificate"):
        context.load_verify_locations(certificate)
    else:
        request.getfixturevalue("authority").configure_trust(context)
    return context
