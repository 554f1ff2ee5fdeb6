"""The tunnels that `benchmarks.tunnels` compares, each with processes of its own on loopback."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import _build

HOST = "127.0.0.1"
START_TIMEOUT = 30.0

APPLICATION = "application"
SERVED = "benchmarks.tunnel_service.app:app"
"""The service that `expose` can also serve itself, without a port."""


class NotStartedError(Exception):
    """A tunnel is not there; the message says why."""


@dataclass
class Running:
    """A tunnel that runs: where its visitors connect, and who works for them."""

    ports: dict[str, int]
    """For each service by its name."""
    relay: list[int] = field(default_factory=list)
    """Process ids."""
    agent: list[int] = field(default_factory=list)


Start = Callable[[Mapping[str, int]], AbstractContextManager[Running]]


@dataclass(frozen=True)
class Kind:
    name: str
    title: str
    start: Start
    note: str = ""


# ---- processes


@contextmanager
def process(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Iterator[int]:
    """A program, until the block is left; gives its process id."""
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(
            command,
            cwd=_build.ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            yield running.pid
        except NotStartedError as error:
            said.seek(0)
            why = _build.last_line(said.read().decode(errors="replace"))
            raise NotStartedError(f"{error}; {Path(command[0]).name} said: {why}") from None
        finally:
            running.terminate()
            try:
                running.wait(2)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def cpu_seconds(pids: Sequence[int]) -> float:
    """What processes have used so far, with their threads and children."""
    used = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                used += int((task / "schedstat").read_text("ascii").split()[0])
                children = (task / "children").read_text("ascii").split()
            except OSError:  # a thread that has ended meanwhile
                continue
            used += int(1e9 * cpu_seconds([int(child) for child in children]))
    return used / 1e9


def free_ports(count: int) -> list[int]:
    """That nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind((HOST, 0))
        return [sock.getsockname()[1] for sock in sockets]


def wait_for_port(port: int) -> None:
    """Wait until something listens there."""
    _repeat(lambda: socket.create_connection((HOST, port), 1).close(), f"port {port}")


def wait_for_service(port: int, question: bytes, answer: bytes) -> None:
    """Wait until what is behind a tunnel answers."""

    def ask() -> None:
        with socket.create_connection((HOST, port), 1) as connection:
            connection.sendall(question)
            if not connection.recv(4096).startswith(answer):
                raise OSError("it answers something else")

    _repeat(ask, f"the service at port {port}")


def _repeat(attempt: Callable[[], None], what: str) -> None:
    until = time.monotonic() + START_TIMEOUT
    while True:
        try:
            attempt()
        except OSError as error:
            if time.monotonic() > until:
                raise NotStartedError(f"{what} is not there: {error}") from None
            time.sleep(0.05)
        else:
            return


# ---- tunnels


@contextmanager
def direct(services: Mapping[str, int]) -> Iterator[Running]:
    yield Running(dict(services))


@contextmanager
def relay_and_expose(services: Mapping[str, int]) -> Iterator[Running]:
    """What `trio-muxado` has for the purpose."""
    with _relay_and_expose({name: f"{HOST}:{port}" for name, port in services.items()}) as running:
        yield running


@contextmanager
def without_port(services: Mapping[str, int]) -> Iterator[Running]:
    """The same, and the agent serves the application itself."""
    with _relay_and_expose({APPLICATION: SERVED}) as running:
        yield running


@contextmanager
def _relay_and_expose(services: Mapping[str, str]) -> Iterator[Running]:
    agents, *ports = free_ports(1 + len(services))
    command = [sys.executable, "-m", "trio_muxado"]
    environ = {"TRIO_MUXADO_TOKEN": secrets.token_urlsafe()}
    span = f"{min(ports)}-{max(ports)}"
    where = f"{HOST}:{agents}"
    tunnels = [
        word
        for (name, service), port in zip(services.items(), ports, strict=True)
        for word in ("--tunnels", f"name={name},service={service},port={port}")
    ]
    with process([*command, "relay", "--agents", where, "--ports", span], environ) as relay:
        wait_for_port(agents)
        with process([*command, "expose", "--relay", where, *tunnels], environ) as agent:
            yield Running(dict(zip(services, ports, strict=True)), [relay], [agent])


@contextmanager
def example(services: Mapping[str, int]) -> Iterator[Running]:
    """The program of the docs, which lets the dialling side choose muxado's version: v1."""
    command = [sys.executable, "examples/reverse_tunnel.py"]
    running = Running({})
    with ExitStack() as stack:
        for name, service in services.items():
            agents, port = free_ports(2)
            relay = process([*command, "relay", str(port), str(agents)])
            running.relay.append(stack.enter_context(relay))
            wait_for_port(agents)
            agent = process([*command, "agent", HOST, str(agents), HOST, str(service)])
            running.agent.append(stack.enter_context(agent))
            running.ports[name] = port
        yield running


@contextmanager
def plain(services: Mapping[str, int]) -> Iterator[Running]:
    """Two proxies in a row, in place of a relay and an agent: what Python and trio cost alone."""
    command = [sys.executable, "-m", "benchmarks.tunnel_service.proxy"]
    behind, running = dict(services), Running({})
    with ExitStack() as stack:
        for processes in (running.agent, running.relay):
            ports = dict(zip(behind, free_ports(len(behind)), strict=True))
            pairs = [f"{port}:{behind[name]}" for name, port in ports.items()]
            processes.append(stack.enter_context(process([*command, *pairs])))
            for port in ports.values():
                wait_for_port(port)
            behind = ports
        running.ports = behind
        yield running


@contextmanager
def ssh(services: Mapping[str, int]) -> Iterator[Running]:
    """OpenSSH with keys for this run alone."""
    sshd, client, keygen = map(_build.installed, ("sshd", "ssh", "ssh-keygen"))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it has no rights
    at, *ports = free_ports(1 + len(services))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        for key in ("host", "user"):
            made = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(made, check=True)
        options = {
            "ListenAddress": f"{HOST}:{at}",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "user.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "AllowTcpForwarding": "yes",
        }
        (folder / "config").write_text("".join(f"{k} {v}\n" for k, v in options.items()))
        serve = [sshd, "-D", "-e", "-f", str(folder / "config")]
        server = stack.enter_context(process(serve))
        wait_for_port(at)
        dial = [client, "-N", "-F", "none", "-p", str(at), "-i", str(folder / "user")]
        for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"):
            dial += ["-o", option]
        dial += ["-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes"]
        for port, service in zip(ports, services.values(), strict=True):
            dial += ["-R", f"{HOST}:{port}:{HOST}:{service}"]
        agent = stack.enter_context(process([*dial, HOST]))
        yield Running(dict(zip(services, ports, strict=True)), [server], [agent])


BORE_PORT = 7835  # it has no other


@contextmanager
def bore(services: Mapping[str, int]) -> Iterator[Running]:
    """The Rust program, which makes a connection from the agent for each visitor."""
    program = _build.bore()
    ports = free_ports(len(services))
    running = Running(dict(zip(services, ports, strict=True)))
    span = ["--min-port", str(min(ports)), "--max-port", str(max(ports))]
    with ExitStack() as stack:
        server = [program, "server", *span, "--bind-addr", HOST]
        running.relay.append(stack.enter_context(process(server)))
        wait_for_port(BORE_PORT)
        for port, service in zip(ports, services.values(), strict=True):
            local = [program, "local", str(service), "--to", HOST, "--port", str(port)]
            running.agent.append(stack.enter_context(process(local)))
        yield running


KINDS = (
    Kind("direct", "no tunnel", direct),
    Kind("ours-v2", "`trio-muxado relay` and `expose` (v2)", relay_and_expose),
    Kind("ours-app", "`trio-muxado relay` and `expose module:app`", without_port),
    Kind("ours-v1", "`examples/reverse_tunnel.py` (v1)", example),
    Kind("plain", "two small proxies in plain trio", plain),
    Kind("ssh", "`ssh -R`, which encrypts", ssh),
    Kind("bore", "`bore`, a connection for each visitor", bore),
)
