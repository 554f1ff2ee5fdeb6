"""What joins streams, with 100 MB in both directions at once, from any kind to any other."""

import hashlib
import random
import ssl

import pytest
import trio

from trio_muxado import forward

from ..helpers.carriers import CARRIERS, Carrier, Contexts, open_ends

pytestmark = pytest.mark.applications

SIZE = 100_000_000
PIECE = random.Random(0).randbytes(1_000_003)  # no multiple of any buffer


class Digest:
    """What came, in order."""

    def __init__(self) -> None:
        self.size = 0
        self._sha = hashlib.sha256()

    def add(self, data: bytes | bytearray) -> None:
        self.size += len(data)
        self._sha.update(data)

    def result(self) -> tuple[int, str]:
        return self.size, self._sha.hexdigest()


@pytest.mark.parametrize("kind_a", CARRIERS, ids=str)
@pytest.mark.parametrize("kind_b", CARRIERS, ids=str)
async def test_a_hundred_megabytes_both_ways(
    kind_a: Carrier,
    kind_b: Carrier,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
) -> None:
    contexts = Contexts(client_context, server_context)
    sent, received = [Digest(), Digest()], [Digest(), Digest()]

    async def send(far: trio.abc.Stream, shift: int, digest: Digest) -> None:
        piece = PIECE[shift:] + PIECE[:shift]
        while digest.size < SIZE:
            await far.send_all(piece)
            digest.add(piece)

    async def receive(far: trio.abc.Stream, digest: Digest, expected: int) -> None:
        while digest.size < expected:
            digest.add(await far.receive_some())

    total = -(-SIZE // len(PIECE)) * len(PIECE)
    async with open_ends(kind_a, contexts) as a, open_ends(kind_b, contexts) as b:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, a.near, b.near)
            async with trio.open_nursery() as transfers:
                for index, far in enumerate((a.far, b.far)):
                    transfers.start_soon(send, far, index, sent[index])
                    transfers.start_soon(receive, far, received[1 - index], total)
            for far in (a.far, b.far):
                if kind_of(far) == "tls":
                    nursery.start_soon(far.unwrap)
                else:
                    await far.send_eof()
    assert [digest.result() for digest in received] == [digest.result() for digest in sent]


def kind_of(far: trio.abc.Stream) -> str:
    return "tls" if isinstance(far, trio.SSLStream) else "other"
