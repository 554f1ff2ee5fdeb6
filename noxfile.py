"""Every check of the project, each in an environment of its own: `nox -l` lists them.

    python -m pip install nox
    nox                     # lint, typing, and the tests on every Python that is found
    nox -s tests-3.12 -- -k window
    bash .ci/run            # what CI does: all of it, beginning as a stranger would

Interpreters that are missing are skipped here, and are an error in CI (CI=true). With pyenv,
name the versions for its shims to offer, the default first:

    PYENV_VERSION=3.11.7:3.10.13:3.12.1:3.13.0 nox

As root, the Pythons that Debian has in its unstable suite:

    .ci/debian-root nox -s tests-3.14 tests-3.15 pypy
"""

import itertools
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">= 2025.5.1"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"
# An interpreter comes from the machine or not at all.
nox.options.download_python = "never"

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]
MAIN, NEWEST = "3.11", PYTHONS[-1]
# What has a short and a long form runs the long one: `bash .ci/run --long` says so.
LONG = bool(os.environ.get("LONG"))
PROPERTIES = [
    *("tests/protocol/test_byte_queue.py", "tests/protocol/test_windows.py"),
    *("tests/protocol/test_properties.py", "tests/test_receiving.py"),
]
# What shows that a distribution is whole, and needs no file of the repository.
ALONE = [
    *("tests/protocol/test_vectors.py", "tests/test_conformance.py"),
    *("tests/test_testing.py", "tests/http/test_requests.py"),
]
# For tests that take minutes, or that build a peer for minutes; elsewhere that is a hang.
PATIENT_PYTEST = ("python", "-m", "pytest", "--patient")
# Inputs for each target of the guided fuzzer: about ten seconds each; fifty times as many in
# the longer run.
GUIDED_RUNS = {"decoder": 10_000, "connection": 8_000, "application": 10_000}
PYPROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    """The requirements of a dependency group, for a pip of any age."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def lowest(name: str) -> str:
    """The oldest release of a dependency that pyproject.toml promises to work with."""
    for requirement in PYPROJECT["project"]["dependencies"]:
        if found := re.fullmatch(rf"{name}\s*>=\s*([\d.]+)", requirement):
            return found[1]
    raise LookupError(f"no lower bound for {name} in pyproject.toml")


def get_programs(session: nox.Session, programs: dict[str, str]) -> None:
    """Programs by name, with Debian's packages of them, which root gets where they are missing."""
    postgresql = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", *postgresql])
    missing = [packages for name, packages in programs.items() if not shutil.which(name, path=path)]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        session.run("apt-get", "update", "-qq", external=True, env=quiet)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
        session.run(*install, *" ".join(missing).split(), external=True, env=quiet)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, on each Python we support."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def tests_lowest(session: nox.Session) -> None:
    """The test suite with the oldest trio that we promise."""
    # From 4.11 on anyio wants a newer trio.
    session.install("-e", ".[test]", f"trio=={lowest('trio')}.*", "anyio < 4.11")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python="pypy3")
def pypy(session: nox.Session) -> None:
    """The demo over each wire and trio's conformance suite, on PyPy.

    hypothesis and cryptography have no wheels for it. So the demo is without TLS, the certificate
    of the tests comes from `openssl`, and the other tests don't run here.
    """
    session.install(".[cli]", "pytest", "pytest-trio")
    for wire in ("v1", "v2"):
        session.run("python", "-m", "trio_muxado", "demo", "--wire", wire)
    key, certificate = (Path(session.create_tmp(), name) for name in ("key.pem", "localhost.pem"))
    request = "req -x509 -newkey rsa:2048 -noenc -days 2 -subj /CN=localhost"
    request += " -addext subjectAltName=DNS:localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    session.run("openssl", *request.split(), *files, external=True, silent=True)
    with certificate.open("a", encoding="ascii") as file:
        file.write(key.read_text(encoding="ascii"))
    session.run(
        "python", "-m", "pytest", f"--certificate={certificate}", "tests/test_conformance.py"
    )


@nox.session(python=[MAIN, NEWEST])
def coverage(session: nox.Session) -> None:
    """The test suite under coverage: every branch of the protocol, nearly all of the rest.

    From Python 3.14 on, where branches can be watched by `sys.monitoring`, it takes little longer
    than without; before, three times as long.
    """
    session.install("-e", ".[test]", *group("coverage"))
    core = "ctrace" if session.python == MAIN else "sysmon"
    session.run("coverage", "erase")
    # In one process: what workers measure would depend on how they end.
    tests = ["-m", "pytest", "-n", "0", *session.posargs]
    session.run("coverage", "run", *tests, env={"COVERAGE_CORE": core})
    session.run("coverage", "combine", "--quiet")
    protocol = "trio_muxado/_protocol/*"
    session.run("coverage", "report", f"--include={protocol}", "--fail-under=100")
    # Included by name: a test runs copies of the package, which are gone by now.
    ours = ("--include=trio_muxado/*", f"--omit={protocol}")
    session.run("coverage", "report", *ours, "--fail-under=95")


@nox.session(python=MAIN)
def fuzz(session: nox.Session) -> None:
    """Broken sessions are thrown at the protocol: half a minute of them, or ten."""
    session.install("-e", ".[test]")
    rounds = ["--rounds", "60000" if LONG else "3000"]
    session.run("python", "-m", "tests.protocol.fuzz", *(session.posargs or rounds))


@nox.session(python=MAIN)
def fuzz_guided(session: nox.Session) -> None:
    """Bytes that are chosen by what they reach are thrown at the protocol: so many of each kind."""
    session.install(".", *group("fuzzing"))
    if session.posargs:
        session.run("python", "-m", "tests.protocol.fuzz_guided", *session.posargs)
        return
    for target, runs in GUIDED_RUNS.items():
        count = str(runs * 50 if LONG else runs)
        session.run("python", "-m", "tests.protocol.fuzz_guided", target, "--runs", count)


@nox.session(python=MAIN)
def properties(session: nox.Session) -> None:
    """The tests with random input, with ten thousand examples of each property."""
    session.install("-e", ".[test]")
    where = session.posargs or PROPERTIES
    session.run(*PATIENT_PYTEST, *where, env={"HYPOTHESIS_PROFILE": "thorough"})


@nox.session(python=MAIN)
def proofs(session: nox.Session) -> None:
    """What holds of all runs: cancellation, cuts, and whatever users and links may do."""
    session.install("-e", ".[test]")
    session.run(*PATIENT_PYTEST, "-m", "proofs", *(session.posargs or ["tests/proofs"]))


@nox.session(python=MAIN)
def interop(session: nox.Session) -> None:
    """The tests against peers in Go and Rust, built from their authors' source.

    They need `go`, `cargo` and Debian's golang-github-inconshreveable-muxado-dev, and skip
    what is missing. In CI a skip is a failure.
    """
    session.install("-e", ".[test]", *group("interop"))
    strict = ["--no-skips"] if os.environ.get("CI") else []
    session.run(*PATIENT_PYTEST, "-m", "interop", *strict, *(session.posargs or ["tests/interop"]))


@nox.session(python=MAIN)
def model(session: nox.Session) -> None:
    """Models of the protocol, in every order in which things can happen (Spin).

    They need `spin` and a C compiler. On Debian, root gets what is missing.
    """
    get_programs(session, {"spin": "spin", "cc": "gcc libc6-dev"})
    session.run("python", "-m", "tests.model", *(session.posargs or ["--long"][: int(LONG)]))


@nox.session(python=MAIN)
def attacks(session: nox.Session) -> None:
    """Every attack of docs/security.md, on a server with a good client: a second each, or five."""
    session.install("-e", ".", "trustme")
    short = ["--seconds", "5" if LONG else "1"]
    session.run("python", "-m", "benchmarks.attacks", *(session.posargs or short))


@nox.session(python=MAIN)
def soak(session: nox.Session) -> None:
    """Sessions of every peer begin, work, break and end: half a minute of that, or ten.

    `nox -s soak -- --minutes 60 --page` is an hour of it, which docs/proofs.md shows then.
    """
    session.install("-e", ".[test]", *group("interop"))
    short = ["--minutes", "10" if LONG else "0.5"]
    session.run("python", "-m", "tests.soak", *(session.posargs or short))


@nox.session(python=MAIN)
def applications(session: nox.Session) -> None:
    """The tests with what people use: HAProxy, nc, curl, wrk, git, Redis and PostgreSQL; FastAPI,
    Starlette, Quart and Flask.

    And with 100 MB through each tunnel.

    On Debian, root gets what is missing. Elsewhere they skip it, and in CI a skip is a failure.
    """
    session.install("-e", ".[test]", *group("applications"))
    programs = {"haproxy": "haproxy", "nc": "netcat-openbsd", "curl": "curl", "git": "git"}
    programs |= {"wrk": "wrk", "chromium": "chromium", "redis-server": "redis-server"}
    programs |= {"redis-benchmark": "redis-tools", "systemd-analyze": "systemd"}
    programs |= {"docker-compose": "docker-compose", "go": "golang-go", "sshd": "openssh-server"}
    programs |= {"psql": "postgresql-client", "postgres": "postgresql"}
    get_programs(session, programs)
    strict = ["--no-skips"] if os.environ.get("CI") else []
    where = session.posargs or ["tests/applications", "tests/test_snippets.py"]
    session.run("python", "-m", "pytest", "-m", "applications", *strict, *where)


@nox.session(python=MAIN)
def typing(session: nox.Session) -> None:
    """Two strict type checkers, and types on everything that is public."""
    session.install("-e", ".[test]", *group("typing"), *group("nox"))
    session.run("mypy")
    loosely = [
        path for path in ("tests", "examples", "benchmarks") if any(Path(path).rglob("*.py"))
    ]
    session.run("mypy", *loosely, "noxfile.py", "hatch_build.py", "docs/conf.py", "docs/pictures")
    # pyright looks for the environment on PATH; told by --pythonpath it sees no types at all.
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "trio_muxado")


@nox.session(python=MAIN)
def compat_typing(session: nox.Session) -> None:
    """A user's program type-checks even where trio-typing is installed.

    Its stubs shadow trio's own types, so it must never reach the environment of `typing`; but
    users have it through other libraries. Its mypy plugin is left out: it crashes every mypy
    since 1.11.
    """
    session.install(".", *group("compat_typing"))
    # Out of the source tree: what a user has is the installed package.
    program = shutil.copy("tests/compat_typing/consumer.py", session.create_tmp())
    session.chdir(Path(program).parent)
    session.run("mypy", "--strict", "--config-file=", "consumer.py")
    session.run("pyright", "consumer.py")


@nox.session(python=MAIN)
def lint(session: nox.Session) -> None:
    """Style, likely bugs, and news fragments that the next release can read."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("towncrier", "build", "--draft", "--date", "unreleased", silent=True)


@nox.session(python=MAIN)
def news(session: nox.Session) -> None:
    """What the next release would say of itself."""
    session.install(*group("lint"))
    session.run("towncrier", "build", "--draft", *session.posargs)


@nox.session(python=MAIN)
def docs(session: nox.Session) -> None:
    """The documentation; a warning is an error."""
    session.install("-e", ".", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


def run_in_a_clean_environment(session: nox.Session, name: str, *install: str) -> str:
    """Make an environment with nothing but what is named; gives its interpreter."""
    folder = Path(session.create_tmp(), f"venv-{name}").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "venv", str(folder), silent=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    session.run(str(python), "-m", "pip", "install", "--quiet", *install, external=True)
    return str(python)


@nox.session(python=MAIN)
def wheel(session: nox.Session) -> None:
    """Wheel and sdist: what is in them, what an index would say, and whether each works.

    Both are installed in environments of their own. There the sdist runs its own tests, a part of
    them or in the longer run all, and the wheel some that need no file of the repository.
    """
    session.install(*group("build"))
    work = Path(session.create_tmp()).resolve()
    out = work / "dist"
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(out), silent=True)
    (built,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(built), str(source))

    tracked = session.run("git", "ls-files", external=True, silent=True)
    assert isinstance(tracked, str)
    files = set(tracked.splitlines())
    with zipfile.ZipFile(built) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        description = archive.read(about).decode()
    ours = {name for name in files if name.startswith("trio_muxado/")}
    if packed != ours or "trio_muxado/py.typed" not in packed:
        session.error(f"the wheel and the repository differ: {sorted(packed ^ ours)}")
    if dead := re.findall(r"\]\((?![a-z]+:|#)[^)]*\)", description):
        session.error(f"links that lead nowhere on an index: {dead}")
    with tarfile.open(source) as archive:
        root, *_ = archive.getnames()[0].split("/")
        sent = {name.removeprefix(f"{root}/") for name in archive.getnames()} - {"PKG-INFO"}
    shutil.rmtree(work / "sdist", ignore_errors=True)
    shutil.unpack_archive(source, work / "sdist")
    if sent != files:
        session.error(f"the sdist and the repository differ: {sorted(sent ^ files)}")

    unpacked = work / "sdist" / root
    tests = [] if LONG else [*ALONE, "tests/test_links.py", "tests/test_readme.py"]
    python = run_in_a_clean_environment(session, "sdist", f"{source}[test]")
    with session.chdir(unpacked):
        session.run(python, "-m", "pytest", "--quiet", *tests, external=True)
    python = run_in_a_clean_environment(session, "wheel", f"{built}[test]")
    alone = work / "alone"  # the tests without the package beside them
    shutil.rmtree(alone, ignore_errors=True)
    shutil.copytree(unpacked / "tests", alone / "tests")
    shutil.copy(unpacked / "pyproject.toml", alone)
    with session.chdir(alone):
        session.run(python, "-m", "pytest", "--quiet", *ALONE, external=True)
        session.run(python, "-m", "trio_muxado", "demo", external=True)


@nox.session(python=MAIN)
def demo(session: nox.Session) -> None:
    """The demo over each wire, plain and with TLS, from an installed package alone."""
    session.install(".[demo]")
    session.chdir(session.create_tmp())
    for wire, tls in itertools.product(["v1", "v2"], [[], ["--tls"]]):
        session.run("python", "-m", "trio_muxado", "demo", "--wire", wire, *tls)


@nox.session(python=MAIN)
def bench(session: nox.Session) -> None:
    """The benchmarks; what follows `--` goes to them."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)
