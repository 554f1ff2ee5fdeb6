"""Tunnels side by side: `python -m benchmarks.tunnels`.

The same services behind each, an HTTP server in Go, one in Python, an application of FastAPI, and
Redis: no tunnel, `trio-muxado relay` and `expose`, the example of the docs, two proxies in plain
trio, `ssh -R`, and `bore`. The application is served by hypercorn at a port and, once more, by
`expose` itself without one, which has hypercorn's protocols in it.

They take turns in every round, so that a machine that wanders wanders for all of them. Needs the
extras `cli` and `http`, FastAPI, Debian's `wrk`, `openssh-server` and `redis-server`, `go`, and
`cargo` for bore; it builds what has to be built. A run takes ten minutes.

    python -m benchmarks.tunnels                                          # the tables
    python -m benchmarks.tunnels --json docs/tunnels.json --page          # and into the docs
    python -m benchmarks.tunnels --page --redraw --json docs/tunnels.json # from an earlier run
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from . import _build
from ._blocks import Page
from ._measure import line_of, started
from ._tunnels import (
    APPLICATION,
    HOST,
    KINDS,
    SERVED,
    Kind,
    NotStartedError,
    Running,
    cpu_seconds,
    free_ports,
    process,
    wait_for_service,
)
from ._versions import provenance
from .run import progress

BORE, DIRECT, OURS, PLAIN = "bore", "direct", "ours-v2", "plain"

HYPERCORN = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--bind"]
"""The server of the application, for the tunnels that need a port."""

Figures = dict[str, float]
Results = Mapping[str, Mapping[str, list[Figures]]]
"""For each load and each tunnel, what each round gave."""


@dataclass(frozen=True)
class Load:
    """What wrk does for a second."""

    name: str
    title: str
    path: str
    connections: int
    kept: bool = True
    service: str = "http"

    def run(self, running: Running) -> Figures:
        """Requests and their errors, and the CPU time of either side of the tunnel."""
        command = [_build.installed("wrk"), "-t1", f"-c{self.connections}", "-d1s"]
        if not self.kept:
            command += ["-H", "Connection: close"]
        command.append(f"http://{HOST}:{running.ports[self.service]}/{self.path}")
        with spent(running) as figures:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return figures | wrk_figures(done.stdout)


UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def wrk_figures(said: str) -> Figures:
    """What wrk prints, in numbers."""
    done = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", said)
    if done is None:
        raise NotStartedError(f"wrk printed no result: {said!r}")
    wrong = re.findall(r"(?:connect|read|write|timeout) (\d+)|responses: (\d+)", said)
    return {
        "requests": float(done[1]),
        "seconds": float(done[2]) * UNITS[done[3]],
        "errors": float(sum(int(number) for each in wrong for number in each if number)),
    }


@contextmanager
def spent(running: Running) -> Iterator[Figures]:
    """The CPU seconds of the relay's and of the agent's processes, once the block is left."""
    figures: Figures = {}
    before = cpu_seconds(running.relay), cpu_seconds(running.agent)
    yield figures
    figures["relay_cpu"] = cpu_seconds(running.relay) - before[0]
    figures["agent_cpu"] = cpu_seconds(running.agent) - before[1]


@dataclass(frozen=True)
class Pings:
    """One PING after the other on a kept connection to Redis."""

    name: str = "redis"
    service: str = "redis"
    title: str = "PING of Redis, kept"
    seconds: float = 0.5

    def run(self, running: Running) -> Figures:
        latencies: list[float] = []
        with socket.create_connection((HOST, running.ports["redis"]), 5) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(10)
            ping(connection)  # the tunnel has come to the service by then
            with spent(running) as figures:
                until = time.perf_counter() + self.seconds
                while (begun := time.perf_counter()) < until:
                    ping(connection)
                    latencies.append(time.perf_counter() - begun)
        centiles = statistics.quantiles(latencies, n=100)
        pings = float(len(latencies))
        return figures | {"requests": pings, "p50": centiles[49], "p99": centiles[98]}


def ping(connection: socket.socket) -> None:
    connection.sendall(b"PING\r\n")
    if connection.recv(100) != b"+PONG\r\n":
        raise NotStartedError("Redis answers something else")


LOADS: tuple[Load | Pings, ...] = (
    Load("each", "a connection a request", "small", 16, kept=False),
    Load("kept", "16 kept connections", "small", 16),
    Load("kept-64", "64 kept connections", "small", 64),
    Load("files", "1 MB files, 4 at once", "large", 4),
    Load("python-each", "a connection a request, Python", "small", 16, False, "python"),
    Load("python-kept", "16 kept connections, Python", "small", 16, True, "python"),
    Load("app-each", "a connection a request", "small", 16, False, APPLICATION),
    Load("app-kept", "16 kept connections", "small", 16, True, APPLICATION),
    Load("app-many", "64 kept connections", "small", 64, True, APPLICATION),
    Pings(),
)


# ---- a run


@contextmanager
def services() -> Iterator[dict[str, int]]:
    """The HTTP servers and Redis, with the port of each."""
    redis, application = free_ports(2)
    server = [_build.installed("redis-server"), "--port", str(redis), "--bind", HOST]
    server += ["--save", "", "--appendonly", "no"]
    http = {
        "http": [_build.tunnel_service()],
        "python": [sys.executable, "-m", "benchmarks.tunnel_service.service"],
    }
    with ExitStack() as stack:
        stack.enter_context(process(server))
        stack.enter_context(process([*HYPERCORN, f"{HOST}:{application}", SERVED]))
        ports = {"redis": redis, APPLICATION: application}
        for name, command in http.items():
            running, why = stack.enter_context(started(command, _build.ROOT, None))
            line = line_of(running, 10)
            if not line.startswith("{"):
                raise NotStartedError(f"the service did not start: {why()}")
            ports[name] = json.loads(line)["port"]
        yield ports


def wait_for(running: Running) -> None:
    question = b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for name, port in running.ports.items():
        if name == "redis":
            wait_for_service(port, b"PING\r\n", b"+PONG")
        else:
            wait_for_service(port, question, b"HTTP/1.1 200")


def measure(kinds: Sequence[Kind], rounds: int) -> dict[str, Any]:
    """All kinds in turn, each of them first in some rounds."""
    results: dict[str, dict[str, list[Figures]]] = {load.name: {} for load in LOADS}
    with services() as ports, ExitStack() as stack:
        running: dict[str, Running] = {}
        for kind in kinds:
            running[kind.name] = stack.enter_context(kind.start(ports))
            wait_for(running[kind.name])
        for number in range(rounds):
            turn = number % len(kinds)
            for load in LOADS:
                for kind in (*kinds[turn:], *kinds[:turn]):
                    if load.service in running[kind.name].ports:
                        figures = load.run(running[kind.name])
                        results[load.name].setdefault(kind.name, []).append(figures)
            progress(f"round {number + 1} of {rounds}")
    return {
        **provenance(),
        "bore": _build.BORE.partition("@")[2],
        "rounds": rounds,
        "results": results,
    }


# ---- tables


def rate(figures: Figures) -> float:
    return figures["requests"] / figures["seconds"]


def ratios(of: Sequence[Figures], to: Sequence[Figures]) -> list[float]:
    """Of the rates, round by round."""
    return sorted(rate(one) / rate(other) for one, other in zip(of, to, strict=True))


def ratio_cell(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def median(rounds: Sequence[Figures], value: Callable[[Figures], float]) -> float:
    return statistics.median(value(figures) for figures in rounds)


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def table(rows: Sequence[Sequence[str]]) -> str:
    first, *body = rows
    lines = [first, ["---"] * len(first), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def loads(results: Results, *, application: bool = False) -> list[Load]:
    """Those of wrk that the run has: an earlier one may lack some."""
    there = (load for load in LOADS if isinstance(load, Load) and load.name in results)
    return [load for load in there if (load.service == APPLICATION) is application]


def titles(results: Results, *without: str, load: str = "redis") -> dict[str, str]:
    """Of the tunnels that the run has: one of them can only carry the application."""
    there = results[load].keys() - set(without)
    return {kind.name: kind.title for kind in KINDS if kind.name in there}


def rates_table(results: Results) -> str:
    """A row for each load, since a row for each tunnel is wider than a page."""
    others = titles(results, BORE, PLAIN)
    rows = [["rate, of bore's", *others.values()]]
    for load in loads(results):
        found = results[load.name]
        cells = [ratio_cell(ratios(found[name], found[BORE])) for name in others]
        rows.append([load.title, *cells])
    return table(rows)


def application_table(results: Results) -> str:
    """A row for each tunnel: one of them has no other load."""
    found = loads(results, application=True)
    if not found:
        return "Not measured yet.\n"
    rows = [["an application; rate, of bore's", *(load.title for load in found)]]
    for name, title in titles(results, BORE, load=found[0].name).items():
        figures = (results[load.name] for load in found)
        rows.append([title, *(ratio_cell(ratios(each[name], each[BORE])) for each in figures)])
    rates = (median(results[load.name][BORE], rate) for load in found)
    rows.append(["requests a second with `bore`", *(f"{each:,.0f}" for each in rates)])
    return table(rows)


def cpu_table(results: Results) -> str:
    tunnels = titles(results, DIRECT, PLAIN)
    rows = [["CPU time of relay + agent, in µs, for each", *tunnels.values()]]
    every: list[Load | Pings] = [*loads(results), Pings()]
    rows += [
        [load.title, *(cpu_cell(results[load.name][name]) for name in tunnels)] for load in every
    ]
    return table(rows)


def cpu_cell(rounds: Sequence[Figures]) -> str:
    """Microseconds of the relay and of the agent, for each request."""
    relay = median(rounds, lambda of: of["relay_cpu"] / of["requests"])
    agent = median(rounds, lambda of: of["agent_cpu"] / of["requests"])
    return f"{relay * 1e6:,.0f} + {agent * 1e6:,.0f}"


def plain_table(results: Results) -> str:
    """What plain trio costs: a table of its own, as the others have no column to spare."""
    heads = ("CPU time of both, in µs, for each", "rate, of bore's", "ours, of this rate")
    rows = [[titles(results)[PLAIN], *heads]]
    for load in loads(results):
        found = results[load.name]
        rates = ((found[PLAIN], found[BORE]), (found[OURS], found[PLAIN]))
        cells = [cpu_cell(found[PLAIN]), *(ratio_cell(ratios(*pair)) for pair in rates)]
        rows.append([load.title, *cells])
    return table(rows)


def latency_table(results: Results) -> str:
    found = results["redis"]
    least = median(found[DIRECT], lambda of: of["p50"])
    rows = [["PING on a kept connection", "median", "of it the way through the tunnel", "p99"]]
    for name, title in titles(results).items():
        half = median(found[name], lambda of: of["p50"])
        late = median(found[name], lambda of: of["p99"])
        way = "" if name == DIRECT else microseconds(half - least)
        rows.append([title, microseconds(half), way, microseconds(late)])
    return table(rows)


def tables(document: Mapping[str, Any]) -> dict[str, str]:
    results = document["results"]
    about = (
        f"Commit {document['commit'][:10]}, Python {document['python']}, trio {document['trio']}, "
        f"bore {document['bore']}; {document['rounds']} rounds.\n"
    )
    found = {
        "rates": rates_table(results),
        "application": application_table(results),
        "cpu": cpu_table(results),
        "latency": latency_table(results),
        "about": about,
    }
    if PLAIN in results["redis"]:
        found["plain"] = plain_table(results)
    return found


PAGE = Page(_build.ROOT / "docs" / "capacity.md", "tunnels", tables)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    PAGE.add_options(parser)
    args = parser.parse_args(arguments)
    try:
        PAGE.publish(args, lambda: measure(KINDS, args.rounds))
    except (NotStartedError, _build.Missing) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
