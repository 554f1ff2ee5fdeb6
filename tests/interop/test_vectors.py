"""``trio-muxado check``, which plays the golden session vectors, against the real peers.

What a peer does differently is listed in docs/specification/peers.md, and nothing else may be: a
peer that has changed, and a defect that nobody has written down, are both found here.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_muxado._check import Vector, echo_vectors
from trio_muxado._check.vectors import Role

from .build import PEERS, Peer, binary_of
from .peers import serving_peer

pytestmark = pytest.mark.interop

PAGE = Path(__file__).parents[2] / "docs" / "specification" / "peers.md"

ANSWER_TIMEOUT = 5
"""Seconds for an answer that is due.  Only one that never comes takes as long."""

SESSIONS_AT_ONCE = 12
"""Most of a check is waiting for what a peer doesn't say."""

AT_TIMES = "at times"
"""Of a difference that depends on the threads of the peer."""

WRONG_GOAWAY = "*every GOAWAY*"
"""What the page says for frames that are wrong by themselves, in whatever vector they come."""


def listed(title: str) -> dict[str, set[str]]:
    """The vectors in the table of a peer, each with the releases for which it is listed."""
    heading = f"### {title} and the vectors"
    (section,) = re.findall(
        rf"^{heading}\n(.*?)(?=^##|\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    found: dict[str, set[str]] = {}
    for line in section.splitlines():
        if line.startswith("|") and ("`" in line or WRONG_GOAWAY in line):
            names, releases, *_ = (cell.strip() for cell in line.strip("|").split("|"))
            for name in [*re.findall(r"`([^`]+)`", names), *re.findall(r"\*every GOAWAY\*", names)]:
                assert name not in found, f"{name} is listed twice"
                found[name] = set(releases.split(", "))
    return found


# The heading and the release that stands for a peer in the tables of the page.
TABLES = {
    "go_v1": ("Go v1", "all"),
    "go_v2": ("Go v2", "2.0.2"),
    "go_v2_old": ("Go v2", "2.0.1"),
    "rust": ("Rust", "all"),
}


ROLES: tuple[Role, ...] = ("server", "client")


def vectors_for(peer: Peer, role: Role) -> Iterator[tuple[tuple[str, ...], Sequence[Vector]]]:
    """What can be played to a peer, and the options for each kind of session."""
    yield ("--echo",), echo_vectors(peer.wire, role=role, typed=False)
    if peer.typed_sessions:
        yield ("--echo", "--heartbeat"), echo_vectors(peer.wire, role=role, typed=True)


async def check(
    peer: Peer, role: Role, options: tuple[str, ...], vectors: Sequence[Vector]
) -> list[dict[str, Any]]:
    """What the command says of a peer in this role, in a line of JSON for each vector."""
    command = [sys.executable, "-m", "trio_muxado", "check", "--json", "--wire", peer.wire]
    command += ["--timeout", str(ANSWER_TIMEOUT), "--at-once", str(SESSIONS_AT_ONCE)]
    command += ["--typed"] * any(vector.typed for vector in vectors)
    async with AsyncExitStack() as stack:
        if role == "server":
            serving = await stack.enter_async_context(serving_peer(binary_of(peer), *options))
            command += [f"127.0.0.1:{serving.port}"]
        else:
            start = shlex.join([str(binary_of(peer)), "dial", "--addr", "{address}", *options])
            command += ["127.0.0.1:0", "--role", "server", "--start", start]
        done = await trio.run_process(command, capture_stdout=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(vectors)
    differs = any(result["difference"] or result["malformed"] for result in results)
    assert done.returncode == int(differs)
    return results


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
async def test_a_peer_differs_where_the_page_says_so(peer: Peer, role: Role) -> None:
    title, release = TABLES[peer.name]
    rows = {name: words for name, words in listed(title).items() if {"all", release} & words}
    different: dict[str, str] = {}
    played: set[str] = {WRONG_GOAWAY}
    for options, vectors in vectors_for(peer, role):
        played |= {vector.name for vector in vectors}
        for result in await check(peer, role, options, vectors):
            if result["difference"] is not None:
                different[result["vector"]] = result["difference"]
            if result["malformed"] is not None:
                different[WRONG_GOAWAY] = result["malformed"]
    unlisted = {name: why for name, why in different.items() if name not in rows}
    assert not unlisted
    always = {name for name, words in rows.items() if AT_TIMES not in words}
    as_specified = (always & played) - different.keys()
    assert not as_specified, "listed on the page"


def test_every_vector_of_the_page_exists() -> None:
    names = {
        vector.name
        for peer in PEERS
        for _, vectors in vectors_for(peer, "server")
        for vector in vectors
    }
    for title in {title for title, _ in TABLES.values()}:
        assert listed(title).keys() - {WRONG_GOAWAY} <= names
