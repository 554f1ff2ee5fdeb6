"""What is measured, and who takes part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import _build

Result = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """One figure of a work's result; the first of a work is the one that ratios compare."""

    title: str
    value: Callable[[Result], float]
    higher_is_better: bool = True
    digits: int = 0


@dataclass(frozen=True)
class Work:
    name: str
    title: str
    arguments: tuple[str, ...]
    metrics: tuple[Metric, ...]
    tls: bool = False


RATE = Metric("requests/s", lambda r: r["requests"] / r["seconds"])
BULK = Metric("MB/s", lambda r: r["bytes"] / r["seconds"] / 1e6)
MEDIAN = Metric("p50 ms", lambda r: r["p50"] * 1e3, False, 2)
TAIL = Metric("p99 ms", lambda r: r["p99"] * 1e3, False, 2)
CLIENT_CPU = Metric(
    "client CPU us/request", lambda r: r["client_cpu"] / r["requests"] * 1e6, False, 1
)
SERVER_CPU = Metric(
    "server CPU us/request", lambda r: r["server_cpu"] / r["requests"] * 1e6, False, 1
)
CLIENT_MEMORY = Metric("client bytes/stream", lambda r: r["client_memory"], False)
SERVER_MEMORY = Metric("server bytes/stream", lambda r: r["server_memory"], False)
BESIDE = Metric("MB/s beside", lambda r: r["beside_bytes"] / r["beside_seconds"] / 1e6)


def _of_sessions(metric: Metric, digits: int = 0) -> Metric:
    title = metric.title.replace("request", "session").replace("stream", "session")
    return Metric(title, metric.value, metric.higher_is_better, digits)


def _idle_cpu(side: str) -> Metric:
    return Metric(f"{side} % of a core", lambda r: r[f"{side}_idle_cpu"] * 100, False, 1)


SESSIONS = tuple(map(_of_sessions, (RATE, CLIENT_CPU, SERVER_CPU)))
SESSION_MEMORY = tuple(map(_of_sessions, (CLIENT_MEMORY, SERVER_MEMORY)))
IDLE_CPU = (_idle_cpu("client"), _idle_cpu("server"))

REQUESTS = (RATE, MEDIAN, TAIL, CLIENT_CPU, SERVER_CPU)
IDLE = (RATE, TAIL, CLIENT_MEMORY, SERVER_MEMORY)

WORKS = (
    Work("a1", "request/response, 1 at once", ("a", "--at-once", "1"), REQUESTS),
    Work("a64", "request/response, 64 at once", ("a", "--at-once", "64"), REQUESTS),
    Work("a1000", "request/response, 1,000 at once", ("a", "--at-once", "1000"), REQUESTS),
    Work("b", "bulk, one stream", ("b", "--streams", "1"), (BULK,)),
    Work("b64k", "bulk, one stream, read 64 KiB at a time", ("b", "--small-reads"), (BULK,)),
    Work("c", "bulk, 100 streams at once", ("b", "--streams", "100"), (BULK,)),
    # One stream's memory is below what can be measured: no column for it.
    Work("d1", "64 at once beside 1 idle stream", ("a", "--idle", "1"), (RATE, TAIL)),
    Work("d100", "64 at once beside 100 idle streams", ("a", "--idle", "100"), IDLE),
    Work("d10000", "64 at once beside 10,000 idle streams", ("a", "--idle", "10000"), IDLE),
    Work("tls-a64", "request/response over TLS, 64 at once", ("a",), REQUESTS, tls=True),
    Work("tls-b", "bulk over TLS, one stream", ("b",), (BULK,), tls=True),
    Work("f", "64 at once while a bulk stream runs", ("f",), (TAIL, MEDIAN, RATE, BESIDE)),
    Work(
        "session",
        "a session: connect, one byte each way, close",
        ("a", "--sessions", "--at-once", "1"),
        SESSIONS,
    ),
    Work(
        "idle-sessions",
        "1,000 idle sessions",
        ("m", "--sessions", "--idle", "1000", "--watch", "10"),
        (*SESSION_MEMORY, *IDLE_CPU),
    ),
)


ACROSS = (("c", "b", BULK), ("d10000", "a64", RATE), ("f", "a64", TAIL))
"""Works that say something beside another one: the same contender, the same round."""


@dataclass(frozen=True)
class Contender:
    """Two processes of one program, client against server.

    ``lacks`` says of a work, or of all whose name starts so, why it is not run;
    ``at_once`` lowers a work's requests at once where more break the peer.
    """

    name: str
    title: str
    command: Callable[[], list[str]]
    note: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    at_once: Mapping[str, int] = field(default_factory=dict)

    def why_not(self, work: Work) -> str | None:
        for prefix, reason in self.lacks.items():
            if work.name.startswith(prefix):
                return reason
        return None


NO_STREAMS = "one connection, one request at a time"
NO_SMALL_READS = {"b64k": "its server reads in one way"}
NO_SESSIONS = dict.fromkeys(("session", "idle-sessions"), "its program has one session")

CONTENDERS = (
    Contender(
        "ours-v1",
        "trio_muxado, v1",
        _build.python("ours", "--wire", "v1"),
        "both versions: limits on streams raised, for 1,000 and 10,000 of them.",
    ),
    Contender("ours-v2", "trio_muxado, v2", _build.python("ours", "--wire", "v2")),
    Contender(
        "trio-tcp",
        "trio, plain TCP",
        _build.python("trio_tcp"),
        "a new TCP connection for every stream; in bulk one raw stream, the limit for trio. "
        "What the kernel holds for a connection is not in its memory.",
    ),
    Contender(
        "trio-kept",
        "trio, one kept connection",
        _build.python("trio_kept"),
        "ping-pong on one connection, nothing is opened or ended.",
        lacks=dict.fromkeys(("a64", "a1000", "b", "c", "d", "tls", "f"), NO_STREAMS) | NO_SESSIONS,
    ),
    Contender(
        "sketch",
        "a sketch on trio",
        _build.python("sketch"),
        "180 lines that carry streams and guarantee nothing: what ours is measured by.",
        lacks={"tls": "it is the floor of the plain works"} | NO_SESSIONS,
    ),
    Contender("go-v1", "Go muxado v1", _build.go_v1("muxado-v1"), lacks=NO_SMALL_READS),
    Contender(
        "go-v2",
        "Go muxado v2",
        _build.go("muxado-v2"),
        "its accept backlog of 128 resets what comes beyond: 128 instead of 1,000 at once.",
        lacks=NO_SMALL_READS,
        at_once={"a1000": 128},
    ),
    Contender(
        "yamux",
        "Go yamux",
        _build.go("yamux"),
        "an idle session: a heartbeat every 30 s, so not every measurement of 10 s has one.",
        lacks=NO_SMALL_READS,
    ),
    Contender("smux", "Go smux", _build.go("smux"), lacks=NO_SMALL_READS),
    Contender(
        "rust",
        "Rust muxado",
        _build.rust(),
        "stream_limit raised from 512 to 32,768, for 1,000 and 10,000 streams.",
        lacks=NO_SMALL_READS | NO_SESSIONS,
    ),
    Contender(
        "libp2p",
        "py-libp2p yamux",
        _build.libp2p("libp2p_yamux"),
        "at most 256 streams opened and not closed, the rest waits; windows grow to 16 MiB.",
        lacks={
            "d10000": "at most 256 streams at once",
            "tls": "libp2p secures connections its own way, not by TLS over TCP",
        }
        | NO_SESSIONS,
    ),
    Contender(
        "http2",
        "HTTP/2, httpcore and hypercorn",
        _build.python("http2"),
        "at most 100 streams at once, the rest waits in httpcore.",
        lacks={"d100": "httpcore keeps to 100 streams of a connection"}
        | NO_SMALL_READS
        | NO_SESSIONS,
    ),
    Contender(
        "asyncssh",
        "asyncssh channels",
        _build.python("ssh"),
        "always encrypted.",
        lacks={"tls": "always encrypted: compare its other rows"} | NO_SESSIONS,
    ),
    Contender(
        "grpc",
        "grpcio, asyncio",
        _build.python("grpc_aio"),
        "a C core; more than one thread, so more than one CPU a side.",
        lacks=NO_SMALL_READS | NO_SESSIONS,
    ),
)


def choose(names: str | None, what: str) -> list[str]:
    """The names in a comma separated list, checked; all of them for None."""
    known = [item.name for item in (WORKS if what == "work" else CONTENDERS)]
    if names is None:
        return known
    chosen = names.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"no such {what}: {', '.join(unknown)} (known: {', '.join(known)})")
    return [name for name in known if name in chosen]
