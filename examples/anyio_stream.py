"""A muxado stream for code that is written for anyio, on its trio backend."""

from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType

import anyio
import trio
from anyio.abc import ByteStream

from trio_muxado import MuxadoStream


@contextmanager
def anyio_errors(action: str) -> Generator[None, None, None]:
    """Turn each of trio's errors into anyio's, with trio's as the cause."""
    try:
        yield
    except trio.ClosedResourceError as error:
        raise anyio.ClosedResourceError from error
    except trio.BrokenResourceError as error:
        raise anyio.BrokenResourceError from error
    except trio.BusyResourceError as error:
        raise anyio.BusyResourceError(action) from error


class AnyioStream(ByteStream):
    """Wraps a stream. The end of the data is an exception, as everywhere in anyio."""

    def __init__(self, stream: MuxadoStream) -> None:
        self.stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return the next bytes, or raise EndOfStream."""
        with anyio_errors("reading from"):
            if data := await self.stream.receive_some(max_bytes):
                return data
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        """Send bytes."""
        with anyio_errors("writing to"):
            await self.stream.send_all(item)

    async def send_eof(self) -> None:
        """End this direction."""
        with anyio_errors("writing to"):
            await self.stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the stream, or reset it if an exception left the block."""
        await self.stream.__aexit__(kind, error, traceback)
