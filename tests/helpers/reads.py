"""Reading from a transport as the frame reader does."""

from collections.abc import Awaitable, Callable

import trio

from trio_muxado._transport.receiving import source_of


def receive_on(transport: trio.abc.Stream) -> Callable[[bool], Awaitable[bytes | memoryview]]:
    """What waits for the next bytes of ``transport``, and says whether others can wait."""
    source = source_of(transport)

    async def receive(others_can_wait: bool) -> bytes | memoryview:
        while True:
            waiting = source.wait(others_can_wait)
            if waiting is not None:
                await waiting
            data = source.take()
            if data is not None:
                return data

    return receive
