"""An application's lifespan: it begins before the first request and ends after the last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from ._bare import fatal_in, is_cancellation
from ._inbox import Inbox


class Lifespan:
    """The call of an application for its lifespan.

    hypercorn 0.18's loses a Ctrl+C that is raised in a group, and is cancelled together with the
    server, before it can shut the application down.
    """

    def __init__(
        self, app: Callable[..., Awaitable[Any]], config: Config, state: dict[str, Any]
    ) -> None:
        self._app = app
        self._config = config
        self._state = state
        self._inbox = Inbox()
        self._steps = {"startup": trio.Event(), "shutdown": trio.Event()}
        self._over = trio.Event()
        self._failure: BaseException | None = None
        self._scope = trio.CancelScope(shield=True)
        self._has_started = False
        self.fatal: BaseException | None = None
        """The error that it raised to end the program."""

    async def run(self) -> None:
        """Call the application; returns when that does, or after ``shut_down``."""
        scope = {
            "type": "lifespan",
            "asgi": {"spec_version": "2.0", "version": "3.0"},
            "state": self._state,
        }
        try:
            with self._scope:
                try:
                    await self._app(scope, self._inbox.receive, self._send)
                except BaseException as error:
                    if is_cancellation(error):
                        raise
                    self.fatal = fatal_in(error)
                    if self.fatal is None and self._failure is None:
                        await self._log_error(error)
        finally:
            self._over.set()
            for step in self._steps.values():
                step.set()

    async def _log_error(self, error: BaseException) -> None:
        if not self._steps["startup"].is_set():
            # The specification asks for this: an application without a lifespan raises.  Most that
            # do are well, but it might have been an error of its start-up.
            await self._config.log.info(f"the application runs without a lifespan: {error!r}")
        else:
            await self._config.log.exception("Error in the application's lifespan")

    async def _send(self, message: dict[str, Any]) -> None:
        _, step, outcome = message["type"].split(".")
        if outcome == "failed":
            self._failure = LifespanFailureError(step, message.get("message", ""))
        self._steps[step].set()
        await trio.lowlevel.checkpoint()

    async def start_up(self) -> None:
        """Let the application start up, and wait until it has."""
        await self._step("startup", self._config.startup_timeout)
        self._has_started = True

    async def shut_down(self, timeout: float) -> None:
        """Let the application shut down, wait until it has, and end its call."""
        try:
            if self._has_started:
                await self._step("shutdown", timeout)
        finally:
            self._scope.cancel()

    async def _step(self, step: str, timeout: float) -> None:
        if not self._over.is_set():
            await self._inbox.put({"type": f"lifespan.{step}"})
            with trio.move_on_after(timeout) as waiting:
                await self._steps[step].wait()
            if waiting.cancelled_caught:
                raise LifespanTimeoutError(step)
        if self.fatal is not None:
            raise self.fatal
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
