"""What a test decides for the service, and hears of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio


class Control:
    """``await control.at(phase)`` in the service does there what the test wants."""

    def __init__(self) -> None:
        self.reached = trio.Event()
        self.fails = False
        self.received = 0  # bytes of the body of a request that reads all of it
        self.running: Counter[str] = Counter()
        self.notes: list[Any] = []

    async def at(self, phase: str) -> None:
        """Stay for ever, or fail."""
        with self._in(phase):
            self.reached.set()
            self.may_fail(phase)
            await trio.sleep_forever()

    def may_fail(self, phase: str) -> None:
        """Fail, or go on."""
        if self.fails:
            raise ValueError(f"a bug of the application, {phase}")

    @contextmanager
    def _in(self, phase: str) -> Iterator[None]:
        self.running[phase] += 1
        try:
            yield
        finally:
            self.running[phase] -= 1

    def watching(self, app: Any) -> Any:
        """The application, with a look at when it has read a part of a body.

        It is then at what reads next, which may be a middleware, as Flask's.
        """

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            if scope.get("path") != "/receiving":
                await app(scope, receive, send)
                return

            async def receive_watched() -> Any:
                message = await receive()
                self.received += len(message.get("body", b""))
                if self.received:
                    self.reached.set()
                return message

            with self._in("receiving"):
                await app(scope, receive_watched, send)

        return watched
