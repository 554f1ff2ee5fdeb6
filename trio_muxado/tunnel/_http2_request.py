"""A request of HTTP/2 on its way to a service of HTTP/1.1."""

from __future__ import annotations

import h11
import trio

from ._headers import Headers, request_headers
from ._visitors import Visitor


class Body:
    """What has come of a request's body and has not been passed on: no more than the window.

    The bytes of all frames are one buffer.  With an object for each frame they would need thirty
    times as much memory, where a visitor sends a byte or two in each.
    """

    def __init__(self) -> None:
        self.ended: bool = False
        """All of it has come, or there is none."""
        self._data = bytearray()
        self._changed = trio.Event()

    @property
    def is_empty(self) -> bool:
        """There is nothing of it that has come, and nothing to come."""
        return self.ended and not self._data

    def put(self, data: bytes) -> None:
        """A frame has come."""
        self._data += data
        self._changed.set()

    def end(self) -> None:
        """Nothing follows what has come."""
        self.ended = True
        self._changed.set()

    def take(self) -> bytes:
        """What has come."""
        data = bytes(self._data)
        self._data.clear()
        return data

    async def receive(self) -> bytes:
        """Wait for what comes next; nothing is the end."""
        while not self._data and not self.ended:
            self._changed = trio.Event()
            await self._changed.wait()
        return self.take()


class Http2Request:
    """A stream of the visitor's."""

    def __init__(self, headers: Headers) -> None:
        self.pseudo = {name: value for name, value in headers if name.startswith(b":")}
        self.headers = [each for each in headers if not each[0].startswith(b":")]
        self.body = Body()
        self.window_changed = trio.Event()
        self.scope = trio.CancelScope()
        self.answered = False

    def onward(self, visitor: Visitor) -> h11.Request:
        """As HTTP/1.1 has it."""
        cookies = [value for name, value in self.headers if name == b"cookie"]
        passed = request_headers(
            [each for each in self.headers if each[0] not in (b"cookie", b"host")],
            visitor,
            secure=True,
        )
        if cookies:
            passed.append((b"cookie", b"; ".join(cookies)))
        has_length = any(name == b"content-length" for name, _ in passed)
        if not has_length and not self.body.is_empty:
            passed.append((b"transfer-encoding", b"chunked"))
        passed += [(b"host", self.pseudo[b":authority"]), (b"connection", b"close")]
        method, path = self.pseudo[b":method"], self.pseudo[b":path"]
        return h11.Request(method=method, target=path, headers=passed)
