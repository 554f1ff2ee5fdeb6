"""Any number of tasks accept streams: first come, first served, and nothing is lost."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado import MuxadoSession, MuxadoStream, NoMoreStreamsError

from .helpers import Kind, each_wire, outcome_of, raw_session


class Acceptors:
    """Tasks that accept a stream each, and what each got, by number."""

    def __init__(self, session: MuxadoSession, nursery: trio.Nursery) -> None:
        self._session = session
        self._nursery = nursery
        self.results: dict[int, Any] = {}

    async def begin(self) -> trio.CancelScope:
        number = len(self.results)
        self.results[number] = None
        scope = trio.CancelScope()

        async def accept() -> None:
            with scope:
                result = await outcome_of(self._session.accept_stream)
                self.results[number] = result.id if isinstance(result, MuxadoStream) else result

        self._nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        return scope


@each_wire
async def test_who_has_waited_for_longest_gets_the_next_stream(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer), trio.open_nursery() as nursery:
        acceptors = Acceptors(session, nursery)
        await acceptors.begin()
        cancelled = await acceptors.begin()
        await acceptors.begin()
        cancelled.cancel()
        await wait_all_tasks_blocked()
        peer.send(peer.syn(3), peer.syn(5), peer.syn(7))  # the third waits
        await wait_all_tasks_blocked()
        await acceptors.begin()
        assert acceptors.results == {0: 3, 1: None, 2: 5, 3: 7}


@each_wire
async def test_who_is_cancelled_after_a_stream_was_handed_to_him_has_it(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer), trio.open_nursery() as nursery:
        acceptors = Acceptors(session, nursery)
        scope = await acceptors.begin()
        engine = session._engine
        engine.reader.dispatch(engine.connection.receive_data(peer.syn(3), trio.current_time()))
        scope.cancel()
        await wait_all_tasks_blocked()
        assert acceptors.results == {0: 3}


@each_wire
async def test_the_end_wakes_all_who_wait_for_a_stream(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer), trio.open_nursery() as nursery:
        acceptors = Acceptors(session, nursery)
        await acceptors.begin()
        await acceptors.begin()
        peer.send(peer.goaway())
        peer.end()
        await wait_all_tasks_blocked()
        await acceptors.begin()
        assert [type(result) for result in acceptors.results.values()] == [NoMoreStreamsError] * 3
