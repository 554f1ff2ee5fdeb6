"""``trio-muxado check``: what a peer does differently from the specification."""

from __future__ import annotations

import shlex
import ssl
from collections.abc import Sequence
from functools import partial
from json import dumps
from typing import Literal

import click

from trio_muxado._check import Result, Vector, echo_vectors
from trio_muxado._check.vectors import VERSIONS, Role, Version

from .checking import FIRST, SPECIFICATION, Check, no_echo_peer, spoken_versions
from .ending import DONE, FAILED, Failed, run, tell
from .options import LISTEN_ADDRESS, SECONDS, Address, argument, tls_client_options, wire_option
from .output import print_table, progress
from .peer import Peer

# ---- what is printed


def _as_json(result: Result) -> str:
    vector = result.vector
    return dumps(
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
@wire_option("tries both on a server, and is v1 for a client")
@click.option("--typed", is_flag=True, help="On v2: the peer's sessions are typed.")
@click.option("--only", multiple=True, metavar="NAME", help="Play this vector. Can be repeated.")
@click.option("--json", is_flag=True, help="A line of JSON for each vector.")
@click.option(
    "--start",
    metavar="COMMAND",
    help="With --role server: starts the peer, once for each vector.  {address}, {host} and "
    "{port} in it become the address to dial.",
)
@click.option(
    "--at-once", type=click.IntRange(1), default=8, metavar="N", help="Connections at a time."
)
@click.option(
    "--timeout",
    type=SECONDS,
    default=2.0,
    metavar="SECONDS",
    help="For an answer that is due.",
)
@tls_client_options
def command(
    address: Address,
    role: Role,
    wire: Literal["auto", "v1", "v2"],
    typed: bool,
    only: Sequence[str],
    json: bool,
    start: str | None,
    at_once: int,
    timeout: float,
    ssl_context: ssl.SSLContext | None,
) -> int:
    """Find out what a muxado peer does differently.

    Plays the session vectors to a peer, with a connection for each. It prints what the peer does
    differently, and the section of the specification that describes it.

    The peer may be any program that accepts every stream, sends back what it reads, and ends its
    direction of a stream when the other has ended: docs/specification/vectors.md has the details.
    Nothing else should use the peer meanwhile. --json lists every vector.

    Exits with 0 if nothing differs, and with 1 if something does.

    \b
    Examples:
        trio-muxado check localhost:8765
        trio-muxado check localhost:8765 --wire v2 --typed --json
        trio-muxado check localhost:8765 --only wndinc-overflow
        trio-muxado check --role server localhost:8765
        trio-muxado check --role server localhost:0 --start "./peer {host} {port}"
    """
    words = None if start is None else _words_of(start)
    if typed and wire == "v1":
        raise click.UsageError("--typed is for --wire v2: on v1 every stream has a type anyway")
    if role == "client":
        if start is not None:
            raise click.UsageError("--start is for --role server")
        if address.host is None or address.port == 0:
            raise click.UsageError("--role client needs the host and the port of a peer")
    elif ssl_context is not None:
        raise click.UsageError("TLS is for --role client")
    if start is not None and address.port:
        at_once = 1  # all of them dial the same port
    _check_names(only, [v for each in VERSIONS for v in _vectors(role, each, typed=typed)])
    peer = Peer(address, role, ssl_context, words)
    version = _version(peer, wire, typed=typed, timeout=timeout)
    vectors = _vectors(role, version, typed=typed)
    _check_names(only, vectors)
    if only:
        vectors = [vector for vector in vectors if vector.name in (*only, *FIRST)]
    with progress("vectors", len(vectors), hidden=json) as advance:

        def tick(result: Result) -> None:
            advance()
            if json:
                click.echo(_as_json(result))

        check = Check(peer, vectors, at_once, timeout, tick)
        try:
            run(check.run)
        except Failed:
            if not json and (rows := _rows(check.results)):
                print_table(rows)
            raise
    return _tell(check, version, typed=typed, as_json=json)


def _words_of(start: str) -> list[str]:
    try:
        words = shlex.split(start)
    except ValueError as error:
        raise click.BadParameter(f"{start!r}: {error}", param_hint="--start") from None
    if not words:
        raise click.BadParameter("there is no command in it", param_hint="--start")
    return words


def _version(
    peer: Peer, wire: Literal["auto", "v1", "v2"], *, typed: bool, timeout: float
) -> Version:
    """Which version is to be checked."""
    if wire != "auto":
        return wire
    if typed:
        return "v2"
    if peer.role == "server":
        return "v1"
    found = run(partial(spoken_versions, peer, typed=typed, timeout=timeout))
    spoken: list[Version] = [version for version, wrong in found.items() if wrong is None]
    if not spoken:
        raise no_echo_peer(peer.address, found)
    if len(spoken) > 1:
        tell(
            f"{peer.address} speaks what its client's first bytes are, and takes some vectors for "
            f"the other version: let it speak {spoken[0]} alone"
        )
    return spoken[0]


def _vectors(role: Role, wire: Version, *, typed: bool) -> Sequence[Vector]:
    """All that can be played to the peer of this role."""
    return echo_vectors(wire, role="server" if role == "client" else "client", typed=typed)


def _check_names(only: Sequence[str], among: Sequence[Vector]) -> None:
    unknown = set(only) - {vector.name for vector in among}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise click.BadParameter(f"no such vector can be played: {names}", param_hint="--only")


def _tell(check: Check, wire: str, *, typed: bool, as_json: bool) -> int:
    rows = _rows(check.results)
    peer = "server" if check.peer.role == "client" else "client"
    kind = f"a {'typed ' if typed else ''}muxado {wire} {peer}"
    said = f"{len(check.results)} vectors played to {kind}: "
    if not as_json and rows:
        print_table(rows, ("vector", "section", "what is different"))
    different = sum(r.difference is not None for r in check.results)
    said += f"{different} answered differently" if rows else "nothing differs"
    said += "; its frames are wrong" if any(r.malformed for r in check.results) else ""
    (tell if as_json else click.echo)(said)
    return FAILED if rows else DONE
