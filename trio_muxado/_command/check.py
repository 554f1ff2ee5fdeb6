"""``trio-muxado check``: what a peer does differently from the specification."""

from __future__ import annotations

import json
import shlex
import ssl
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import click
import trio

from trio_muxado._check import Result, Vector, echo_vectors, play_all

from .ending import DONE, FAILED, Failed, in_words, run, tell
from .network import connect, listen
from .options import LISTEN_ADDRESS, Address, argument, tls_client_options, wire_option
from .output import print_table, progress

SPECIFICATION = "docs/specification"

FIRST = ("echo", "echo-typed")
"""The vectors that are played first, alone: who does not pass them is no echo peer."""

START_TIMEOUT = 30.0
"""Seconds in which a peer that was started has to dial."""

LAST_CONNECTION = 0.5
"""Seconds after its end in which a connection that a peer has made may still come."""

END_TIMEOUT = 5.0
"""Seconds that a peer which was started gets to end after SIGTERM."""

Connections = Callable[[], AbstractAsyncContextManager[trio.abc.Stream]]
"""Gives a new connection to the peer for each ``async with``."""


@dataclass
class Check:
    """What is played, in which way, and what came of it."""

    address: Address
    role: Literal["client", "server"]
    """That of this side."""
    vectors: Sequence[Vector]
    ssl_context: ssl.SSLContext | None
    start: str | None
    """A command that starts a peer which dials."""
    at_once: int
    timeout: float
    tick: Callable[[Result], Any]
    _results: list[Result] = field(default_factory=list[Result], init=False)

    async def run(self) -> None:
        """Play all vectors, and fill ``results``."""
        async with self._connections() as connections:
            first = [v for v in self.vectors if v.name in FIRST]
            (result,) = await self._play(first, connections)
            if result.difference is not None:
                raise Failed(
                    f"{self.address} is no echo peer of muxado {result.vector.version}, which a "
                    f"check needs ({SPECIFICATION}/vectors.md#an-echo-peer): {result.difference}"
                )
            await self._play([v for v in self.vectors if v is not result.vector], connections)

    async def _play(self, vectors: Sequence[Vector], connections: Connections) -> list[Result]:
        return await play_all(
            vectors,
            connections,
            at_once=self.at_once,
            timeout=self.timeout,
            on_result=self._note,
        )

    @property
    def results(self) -> list[Result]:
        """What came so far, in the order of the vectors."""
        return sorted(self._results, key=lambda result: self.vectors.index(result.vector))

    def _note(self, result: Result) -> None:
        self._results.append(result)
        self.tick(result)

    # ---- connections

    @asynccontextmanager
    async def _connections(self) -> AsyncGenerator[Connections, None]:
        if self.role == "client":
            yield self._dial
        elif self.start is not None:
            yield partial(self._started, self.start)
        else:
            listeners, here = await listen(self.address)
            tell(f"listening on {here}: the peer has to dial {len(self.vectors)} times")
            async with _accepting(listeners) as accepted:

                @asynccontextmanager
                async def next_connection() -> AsyncGenerator[trio.abc.Stream, None]:
                    async with await accepted.receive() as stream:
                        yield stream

                yield next_connection

    @asynccontextmanager
    async def _dial(self) -> AsyncGenerator[trio.abc.Stream, None]:
        stream = await connect(self.address, self.ssl_context, START_TIMEOUT)
        async with stream:
            yield stream

    @asynccontextmanager
    async def _started(self, start: str) -> AsyncGenerator[trio.abc.Stream, None]:
        listeners, here = await listen(self.address)
        command = [_filled_in(word, here) for word in shlex.split(start)]
        async with _accepting(listeners) as accepted:
            try:
                process = await trio.lowlevel.open_process(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
            except OSError as error:
                raise click.UsageError(f"cannot run {command[0]}: {in_words(error)}") from None
            try:
                stream = await _dialled_by(process, accepted, shlex.join(command))
                async with stream:
                    yield stream
            finally:
                with trio.CancelScope(shield=True):
                    await _end(process)


@asynccontextmanager
async def _accepting(
    listeners: list[trio.SocketListener],
) -> AsyncGenerator[trio.MemoryReceiveChannel[trio.SocketStream], None]:
    """The connections that come, each as soon as somebody wants it."""
    send, receive = trio.open_memory_channel[trio.SocketStream](0)

    async def accept(listener: trio.SocketListener) -> None:
        while True:
            await send.send(await listener.accept())

    async with AsyncExitStack() as stack:
        for listener in listeners:
            await stack.enter_async_context(listener)
        nursery = await stack.enter_async_context(trio.open_nursery())
        for listener in listeners:
            nursery.start_soon(accept, listener)
        yield receive
        nursery.cancel_scope.cancel()


async def _dialled_by(
    process: trio.Process,
    accepted: trio.MemoryReceiveChannel[trio.SocketStream],
    command: str,
) -> trio.SocketStream:
    """The connection of a peer that was started.

    Raises:
      Failed: it ends without one, or takes too long.
    """
    streams: list[trio.SocketStream] = []

    async def wait_for_end(scope: trio.CancelScope) -> None:
        await process.wait()
        await trio.sleep(LAST_CONNECTION)
        scope.cancel()

    with trio.move_on_after(START_TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_end, nursery.cancel_scope)
            streams.append(await accepted.receive())
            nursery.cancel_scope.cancel()
    if not streams:
        ended = process.returncode
        how = "takes too long" if ended is None else f"ended with {ended}"
        raise Failed(f"{command} {how} and has not dialled")
    return streams[0]


def _filled_in(word: str, here: Address) -> str:
    host = here.host or "localhost"
    for name, value in (("address", Address(host, here.port)), ("host", host), ("port", here.port)):
        word = word.replace(f"{{{name}}}", str(value))
    return word


async def _end(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(END_TIMEOUT):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


# ---- what is printed


def _as_json(result: Result) -> str:
    vector = result.vector
    return json.dumps(
        {
            "vector": vector.name,
            "wire": vector.version,
            "typed": vector.typed,
            "peer": vector.role,
            "difference": result.difference,
            "malformed": result.malformed,
            "section": f"{SPECIFICATION}/{vector.rule}",
            "note": vector.note,
        }
    )


def _rows(results: Sequence[Result]) -> list[tuple[str, str, str]]:
    """The vector, where the specification says what is right, and what the peer does."""
    rows = [
        (r.vector.name, f"{SPECIFICATION}/{r.vector.rule}", r.difference)
        for r in results
        if r.difference is not None
    ]
    malformed = [r for r in results if r.malformed is not None]
    if malformed:
        section = f"{SPECIFICATION}/{malformed[0].vector.version}.md#goaway"
        rows.insert(0, (f"({len(malformed)} vectors)", section, malformed[0].malformed or ""))
    return rows


@click.command("check")
@argument("address", type=LISTEN_ADDRESS, metavar="HOST:PORT")
@click.option(
    "--role",
    type=click.Choice(["client", "server"]),
    default="client",
    help="What this command is: a client, which dials, or a server, which the peer has to dial.",
)
@wire_option
@click.option("--typed", is_flag=True, help="The peer's sessions are typed ones, on v2.")
@click.option(
    "--only", multiple=True, metavar="NAME", help="Play this vector; may be given several times."
)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each vector.")
@click.option(
    "--run",
    "start",
    metavar="COMMAND",
    help="With --role server: start the peer by this, once for each vector.  {address}, {host} and "
    "{port} in it are where it has to dial.",
)
@click.option(
    "--at-once", type=click.IntRange(1), default=8, metavar="N", help="Connections at a time."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    metavar="SECONDS",
    help="For an answer that is due.",
)
@tls_client_options
def command(
    address: Address,
    role: Literal["client", "server"],
    wire: Literal["v1", "v2"],
    typed: bool,
    only: Sequence[str],
    as_json: bool,
    start: str | None,
    at_once: int,
    timeout: float,
    ssl_context: ssl.SSLContext | None,
) -> int:
    """Find out what a muxado peer does differently.

    Plays the golden session vectors to a peer, a connection for each, and prints where its answers
    are not what the specification says, and which section that is.

    The peer may be any program that accepts every stream, sends back what it reads, and ends its
    direction of a stream when the other is ended: docs/specification/vectors.md has it in full. It
    must not be one that others use at the moment. Which vectors there are --json tells.

    Exits with 0 if nothing differs, and with 1 if something does.

    \b
    Examples:
        trio-muxado check localhost:8765
        trio-muxado check localhost:8765 --wire v2 --typed --json
        trio-muxado check localhost:8765 --only wndinc-overflow
        trio-muxado check --role server localhost:8765
        trio-muxado check --role server localhost:0 --run "./peer {host} {port}"
    """
    vectors = _vectors(role, wire, typed, only)
    if role == "client":
        if start is not None:
            raise click.UsageError("--run is for --role server")
        if address.host is None or address.port == 0:
            raise click.UsageError("--role client needs the host and the port of a peer")
    elif ssl_context is not None:
        raise click.UsageError("TLS is for --role client")
    if start is not None and address.port:
        at_once = 1  # all of them dial the same port
    with progress("vectors", len(vectors), hidden=as_json) as advance:

        def tick(result: Result) -> None:
            advance()
            if as_json:
                click.echo(_as_json(result))

        check = Check(address, role, vectors, ssl_context, start, at_once, timeout, tick)
        try:
            run(check.run)
        except Failed:
            if not as_json and (rows := _rows(check.results)):
                print_table(rows)
            raise
    return _tell(check, wire, typed=typed, as_json=as_json)


def _vectors(
    role: Literal["client", "server"], wire: Literal["v1", "v2"], typed: bool, only: Sequence[str]
) -> Sequence[Vector]:
    if typed and wire == "v1":
        raise click.UsageError("--typed is for --wire v2: on v1 every stream has a type anyway")
    peer: Literal["client", "server"] = "server" if role == "client" else "client"
    vectors = echo_vectors(wire, role=peer, typed=typed)
    known = {vector.name for vector in vectors}
    for name in only:
        if name not in known:
            raise click.BadParameter(
                f"no vector {name!r} of muxado {wire} can be played to a {peer}",
                param_hint="--only",
            )
    return [v for v in vectors if not only or v.name in only or v.name in FIRST]


def _tell(check: Check, wire: str, *, typed: bool, as_json: bool) -> int:
    rows = _rows(check.results)
    peer = "server" if check.role == "client" else "client"
    kind = f"a {'typed ' if typed else ''}muxado {wire} {peer}"
    said = f"{len(check.results)} vectors played to {kind}: "
    if not as_json and rows:
        print_table(rows, ("vector", "section", "what is different"))
    different = sum(r.difference is not None for r in check.results)
    said += f"{different} answered differently" if rows else "nothing differs"
    said += "; its frames are wrong" if any(r.malformed for r in check.results) else ""
    (tell if as_json else click.echo)(said)
    return FAILED if rows else DONE
