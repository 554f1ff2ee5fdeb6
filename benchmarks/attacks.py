"""Every attack of docs/security.md, and what a good client notices of it.

    python -m benchmarks.attacks                           five seconds a row
    python -m benchmarks.attacks --seconds 1               what CI runs
    python -m benchmarks.attacks --json docs/attacks.json --page    writes it into docs/security.md

Three processes: a server, a good client, and an attacker, who sends all he can or as slowly as he
likes. The table has the good client's latencies, and the server's memory and log lines, before and
during each attack. It fails by counts and memory, never by the clock: every request of the good
client is answered, the server stays within the bound of the row, logs no more than some lines for
each session, and holds nothing when the attacker has gone.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import ssl
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import trio

from trio_muxado import (
    MuxadoConfig,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    open_muxado_session,
    serve_muxado,
)
from trio_muxado._protocol.wire import WIRES

from ._attacks import ATTACKS, ECHO, HOLD, SOURCE, Attack
from ._blocks import Page
from ._build import BUILD, ROOT, certificates
from ._versions import provenance

MIB = 1024 * 1024
RESULTS = BUILD.parent / "results" / "attacks.json"
BUDGET = 128 * MIB
MOST_CONNECTIONS = 3000
"""That one attack makes, at most."""
SETTLE = 60.0
"""Seconds in which the server has to be rid of an attacker who has gone."""
AT_ONCE = 4
RETRY = 0.1
"""Seconds that the good client waits before it tries a refused request again.  Whoever does not
makes the server refuse so many streams that it is taken for a flood."""
LEAST_REQUESTS = 5
"""Of the good client in each part of a row, which takes as long as they take."""
STUCK = 300.0
"""Seconds after which a row has failed: something hangs."""


# ---- the server


async def answer(stream: MuxadoStream) -> None:
    what = await stream.receive_some(1)
    if what == ECHO:
        async for chunk in stream:
            await stream.send_all(chunk)
    elif what == SOURCE:
        while True:
            await stream.send_all(bytes(MIB))
    elif what == HOLD:
        await trio.sleep_forever()


async def serve() -> None:
    """Serve plainly and over TLS; for each line of standard input, say what is held."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    live = 0

    async def handle(session: MuxadoSession) -> None:
        nonlocal live
        live += 1
        try:
            await session.serve_streams(answer)
        finally:
            live -= 1

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates()[0])
    served = partial(
        serve_muxado,
        *(handle, 0),
        host="127.0.0.1",
        config=MuxadoConfig(half_open_timeout=120),
        max_sessions=1000,
        first_stream_timeout=30,
        receive_budget=BUDGET,
    )
    async with trio.open_nursery() as nursery:
        listeners: list[Any] = await nursery.start(served)
        listeners += await nursery.start(partial(served, ssl_context=context))
        plain, tls = (getattr(it, "transport_listener", it) for it in listeners)
        print(plain.socket.getsockname()[1], tls.socket.getsockname()[1], flush=True)
        async for _ in trio.lowlevel.FdStream(os.dup(0)):
            tasks = trio.lowlevel.current_statistics().tasks_living
            print(json.dumps({"sessions": live, "tasks": tasks}), flush=True)
        nursery.cancel_scope.cancel()


# ---- the attacker


async def attack(attack: Attack, wire: str, port: int, seconds: float) -> None:
    """Attack for that long, and say how often."""
    counts = {"connections": 0, "ended": 0, "bytes": 0}

    async def drop(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some(65536):
                pass
        counts["ended"] += 1
        scope.cancel()

    async def send(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            for chunk in attack.chunks(WIRES[wire]):
                await stream.send_all(chunk)
                counts["bytes"] += len(chunk)
                await trio.sleep(attack.pause)
            if attack.name != "connects":
                await trio.sleep_forever()
        except trio.BrokenResourceError:
            counts["ended"] += not attack.reads  # else whoever reads counts it
        scope.cancel()

    async def connection() -> None:
        while counts["connections"] < MOST_CONNECTIONS:
            counts["connections"] += 1
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream, trio.open_nursery() as nursery:
                if attack.reads:
                    nursery.start_soon(drop, stream, nursery.cancel_scope)
                nursery.start_soon(send, stream, nursery.cancel_scope)

    print(flush=True)  # from here on it counts
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(attack.connections):
                nursery.start_soon(connection)
    print(json.dumps(counts), flush=True)


# ---- the good client, who drives the other two


@dataclass
class Seen:
    """What was seen in a part of a row."""

    requests: int = 0
    failed: int = 0
    refused: int = 0
    """Requests that were made again, which was safe."""
    p50_ms: float = 0
    p99_ms: float = 0
    memory_mib: float = 0
    """The most that the server held."""
    log_lines: int = 0


class Server:
    """The server's process, and what can be seen of it from outside."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.log: list[bytes | bytearray] = []
        assert process.stdout is not None
        self._lines = process.stdout

    def memory(self) -> float:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / MIB

    async def line(self) -> str:
        text = b""
        while not text.endswith(b"\n"):
            text += await self._lines.receive_some(1000)
        return text.decode()

    async def held(self) -> dict[str, int]:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"?")
        return json.loads(await self.line())

    async def keep_log(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.log += chunk.splitlines()


async def watch(server: Server, session: MuxadoSession, seconds: float) -> Seen:
    """Requests for at least that long, one after the other in each of some tasks."""
    seen, took = Seen(), list[float]()
    lines, until = len(server.log), time.monotonic() + seconds

    async def requests() -> None:
        while time.monotonic() < until or len(took) < LEAST_REQUESTS:
            begun = time.perf_counter()
            try:
                async with await session.open_stream() as stream:
                    await stream.send_all(ECHO + bytes(64))
                    await stream.send_eof()
                    size = sum([len(chunk) async for chunk in stream])
                seen.failed += size != 64
            except MuxadoError as error:
                # A stream is refused where the server's budget has room for two of a session.
                if error.safe_to_retry and session.can_open:
                    seen.refused += 1
                    await trio.sleep(RETRY)
                    continue
                seen.failed += 1
                return
            took.append(time.perf_counter() - begun)

    async def look() -> None:
        while True:
            seen.memory_mib = max(seen.memory_mib, server.memory())
            await trio.sleep(0.02)

    async with trio.open_nursery() as looking:
        looking.start_soon(look)
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(requests)
        looking.cancel_scope.cancel()
    took.sort()
    seen.requests = len(took)
    if took:
        seen.p50_ms = round(1000 * took[len(took) // 2], 2)
        seen.p99_ms = round(1000 * took[len(took) * 99 // 100], 2)
    seen.memory_mib = round(seen.memory_mib, 1)
    seen.log_lines = len(server.log) - lines
    return seen


async def row(attack: Attack, wire: str, seconds: float) -> dict[str, Any]:
    """One attack on a server of its own."""
    here = [sys.executable, "-m", "benchmarks.attacks"]
    options: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    process = await trio.lowlevel.open_process([*here, "serve"], **options)
    with trio.fail_after(STUCK):
        async with trio.open_nursery() as nursery:
            server = Server(process)
            try:
                nursery.start_soon(server.keep_log)
                plain, tls = (int(port) for port in (await server.line()).split())
                config = MuxadoConfig(wire="v2" if wire == "v2" else "v1")
                async with open_muxado_session("127.0.0.1", plain, config=config) as session:
                    before = await watch(server, session, seconds / 2)
                    idle = await server.held()
                    port = tls if attack.tls else plain
                    command = [*here, "attack", attack.name, wire, str(port), str(seconds)]
                    attacker = await trio.lowlevel.open_process(command, stdout=PIPE)
                    assert attacker.stdout is not None
                    assert await attacker.stdout.receive_some(1) == b"\n"  # it begins
                    during = await watch(server, session, seconds)
                    counts = json.loads(b"".join([chunk async for chunk in attacker.stdout]))
                    await attacker.wait()
                    left = await settled(server, idle)
                    during.log_lines = len(server.log) - before.log_lines
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    result = {"attack": attack.name, "wire": wire, "attacker": counts, "left": left}
    result |= {"before": asdict(before), "during": asdict(during)}
    result["faults"] = faults(attack, before, during, counts, left)
    return result


async def settled(server: Server, idle: dict[str, int]) -> dict[str, int]:
    """What the server holds above that once the attacker has gone."""
    held = await server.held()
    with trio.move_on_after(SETTLE):
        while any(held[name] > idle[name] for name in held):
            await trio.sleep(0.1)
            held = await server.held()
    return {name: held[name] - idle[name] for name in held}


def faults(
    attack: Attack, before: Seen, during: Seen, counts: dict[str, int], left: dict[str, int]
) -> list[str]:
    """What must not be."""
    found: list[str] = []
    if before.failed or during.failed:
        found.append(f"{before.failed + during.failed} requests of the good client failed")
    grown = during.memory_mib - before.memory_mib
    if grown > attack.memory:
        found.append(f"the server grew by {grown:.0f} MiB, more than {attack.memory}")
    if during.log_lines > 10 + 2 * counts["connections"]:
        found.append(f"{during.log_lines} lines in the log")
    if any(count > 0 for count in left.values()):
        found.append(f"there are left, after {SETTLE:g} s: {left}")
    return found


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    attacks = {attack.name: attack for attack in ATTACKS}
    lines = [
        "| attack, and its bound | version | p50, ms | p99, ms | memory, MiB | log lines |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        attack, before, during = (
            attacks[result["attack"]],
            Seen(**result["before"]),
            Seen(**result["during"]),
        )
        bound = f"`{attack.limit}`" if "_" in attack.limit else attack.limit
        pairs = [
            (before.p50_ms, during.p50_ms, 1),
            (before.p99_ms, during.p99_ms, 1),
            (before.memory_mib, during.memory_mib, 0),
        ]
        figures = [f"{then:.{digits}f} → {now:.{digits}f}" for then, now, digits in pairs]
        cells = [f"{attack.says}: {bound}", result["wire"], *figures, str(during.log_lines)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tables(document: dict[str, Any]) -> dict[str, str]:
    """The blocks of the page."""
    changed = ", with changes that no commit has" if document["changed"] else ""
    about = (
        f"Commit `{document['commit'][:10]}`{changed}, Python {document['python']}, trio "
        f"{document['trio']}; {document['seconds']:g} s for each row.\n"
    )
    return {"table": table(document["results"]), "about": about}


PAGE = Page(ROOT / "docs" / "security.md", "attacks", tables)


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        trio.run(serve)
        return
    if sys.argv[1:2] == ["attack"]:
        name, wire, port, seconds = sys.argv[2:]
        (chosen,) = (it for it in ATTACKS if it.name == name)
        trio.run(attack, chosen, wire, int(port), float(seconds))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks")
    parser.add_argument("--seconds", type=float, default=5, help="of each part of a row")
    parser.add_argument("--only", default="", help="attacks, by name")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="write the table into docs/security.md")
    parser.add_argument("--redraw", action="store_true", help="the table of an earlier run")
    choices = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    if choices.redraw:
        document = json.loads(choices.json.read_text(encoding="utf-8"))
    else:
        certificates()
        names = choices.only.split(",") if choices.only else [it.name for it in ATTACKS]
        results = []
        for chosen in ATTACKS:
            for wire in chosen.wires if chosen.name in names else ():
                result = trio.run(row, chosen, wire, choices.seconds)
                results.append(result)
                print(json.dumps(result), flush=True)
        document = {**provenance(), "seconds": choices.seconds, "results": results}
        choices.json.parent.mkdir(parents=True, exist_ok=True)
        choices.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(document["results"]))
    if choices.page:
        page = PAGE.filled(PAGE.path.read_text("utf-8"), document)
        PAGE.path.write_text(page, "utf-8")
    if wrong := [result for result in document["results"] if result["faults"]]:
        for result in wrong:
            print(f"{result['attack']} ({result['wire']}): {'; '.join(result['faults'])}")
        sys.exit(f"{len(wrong)} attacks did harm")


if __name__ == "__main__":
    main()
