"""One port of ours serves both generations at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from trio_muxado import MuxadoConfig

from . import scenarios as our
from .build import PEERS, Peer
from .matrix import Column
from .ours import ROOM, TEST_TIMEOUT, config_for, our_client, our_server
from .peers import dial_from_peer

pytestmark = pytest.mark.interop

ROW = "one port for both versions at once"


async def test_one_port_serves_everybody_at_once(
    programs: dict[Peer, Path], record: Callable[[str, Column, str], None]
) -> None:
    with trio.fail_after(TEST_TIMEOUT):
        async with our_server(MuxadoConfig(max_inbound_streams=ROOM)) as server:

            async def theirs(peer: Peer, program: Path) -> None:
                await dial_from_peer(program, server.port, "echo 200")
                record(ROW, Column(peer, serves=False), "passed")

            async def ours(peer: Peer) -> None:
                async with our_client(server.port, config_for(peer)) as host:
                    await our.echo_500(host.session)

            async with trio.open_nursery() as nursery:
                for peer, program in programs.items():
                    nursery.start_soon(theirs, peer, program)
                    nursery.start_soon(ours, peer)
            reasons = [(await server.next_ended())[0] for _ in range(2 * len(programs))]
        assert all(reason.clean for reason in reasons), reasons
        expected = sorted(peer.wire for peer in PEERS for _ in range(2))
        assert sorted(map(str, server.wires)) == expected
