"""The other relays: a session to each that is needed, over which visitors are passed on."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from .. import (
    Backoff,
    DialLoss,
    Heartbeat,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionPool,
    dial_muxado,
    proxy_header,
)
from ._agent import say_hello, wait_until_ended
from ._config import session_config
from ._errors import TunnelRefusedError
from ._messages import Hello, Visit, encode
from ._names import parse_address
from ._nursery import open_nursery
from ._opening import NoAgentError, begin
from ._registry import Agent
from ._tokens import Token
from ._visitors import Visitor

logger = logging.getLogger("trio_muxado.tunnel")

BACKOFF = Backoff(first=0.2, longest=5)
"""Before another relay is dialled again."""

KEEP_UNUSED = 300.0
"""Seconds that a session to another relay is kept that no visitor needs."""


class OtherRelay:
    """One of them, whichever side has dialled the other."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.pool = SessionPool()
        self.dialling: trio.CancelScope | None = None
        self.used_at = trio.current_time()
        self._loss: str | None = None
        self._waiting: set[trio.CancelScope] = set()

    def __str__(self) -> str:
        return f"the relay {self.address}"

    @property
    def extra(self) -> dict[str, str]:
        """For records of a log."""
        return {"relay": self.address}

    def add(self, session: MuxadoSession) -> None:
        """A session that lives."""
        self._loss = None
        self.pool.add(session)

    def hope(self) -> None:
        """A session is on its way, for which one may wait."""
        self._loss = None

    def lose(self, why: str) -> None:
        """There is no session, and will be none for now: nobody waits for one."""
        self._loss = why
        for scope in self._waiting:
            scope.cancel()

    async def open_stream(self) -> MuxadoStream:
        """Open a stream on its session, once there is one.

        Raises:
          NoAgentError: it can't be reached.
        """
        self.used_at = trio.current_time()
        with trio.CancelScope() as scope:
            if self._loss is not None and not self.pool.sessions:
                scope.cancel()
            self._waiting.add(scope)
            try:
                return await self.pool.open_stream()
            finally:
                self._waiting.discard(scope)
        raise NoAgentError("agent", f"{self} can't be reached: {self._loss}")


class OtherRelays:
    """All that this relay has to do with.

    Args:
      address: where others reach this one.
      find_token: what this relay shows to them.
      find_ssl_context: what speaks TLS with them, whenever one is dialled.
      heartbeat: how one is noticed that is gone without a word.
      handle: what serves the streams that they open on a session that this relay has dialled.
    """

    _nursery: trio.Nursery

    def __init__(
        self,
        address: str,
        find_token: Callable[[], Token | None],
        find_ssl_context: Callable[[], ssl.SSLContext | None],
        heartbeat: Heartbeat | None,
        handle: Callable[[Agent, MuxadoStream], Awaitable[None]],
    ) -> None:
        self.address = address
        self._find_token = find_token
        self._find_ssl_context = find_ssl_context
        self._config = session_config(heartbeat)
        self._handle = handle
        self._by_address: dict[str, OtherRelay] = {}

    def start(self, nursery: trio.Nursery) -> None:
        """Dial others in ``nursery``."""
        self._nursery = nursery

    @property
    def connected(self) -> int:
        """To how many there is a session."""
        return sum(bool(other.pool.sessions) for other in self._by_address.values())

    async def open(
        self, address: str, name: str, visitor: Visitor, first: bytes
    ) -> tuple[MuxadoStream, OtherRelay]:
        """Pass a visitor on: a stream to the service of an agent that another relay has.

        Raises:
          NoAgentError: the relay can't be reached, or has no agent whose service is there.
        """
        other = self._get(address)
        if other.dialling is None and not other.pool.sessions:
            other.dialling = trio.CancelScope()
            other.hope()
            self._nursery.start_soon(self._dial, other, other.dialling)
        header = proxy_header("v2", visitor.source, visitor.destination)
        stream = await other.open_stream()
        why = await begin(stream, encode(Visit(name)) + header + first)
        if why is not None:
            raise why
        return stream, other

    def adopt(self, address: str, session: MuxadoSession) -> None:
        """Pass visitors on over a session that another relay has dialled."""
        self._get(address).add(session)

    def let_go(self, address: str, session: MuxadoSession) -> None:
        """That session has ended."""
        other = self._get(address)
        other.pool.discard(session)
        self._forget_unused(other)

    def _get(self, address: str) -> OtherRelay:
        return self._by_address.setdefault(address, OtherRelay(address))

    def _forget_unused(self, other: OtherRelay) -> None:
        if other.dialling is None and not other.pool.sessions:
            self._by_address.pop(other.address, None)

    # ---- dialling

    async def _dial(self, other: OtherRelay, scope: trio.CancelScope) -> None:
        """Keep a session as long as it is needed."""
        try:
            with scope:
                async with open_nursery() as nursery:
                    nursery.start_soon(_cancel_unused, other, scope)
                    try:
                        while await self._dial_with(other, self._find_ssl_context()):
                            pass  # certificates were read again meanwhile
                    except TunnelRefusedError as refusal:  # for good, as far as one can know
                        other.lose(str(refusal))
                        logger.error("%s refuses: %s", other, refusal, extra=other.extra)
                        await trio.sleep(BACKOFF.longest)
                    nursery.cancel_scope.cancel()
        except Exception:
            logger.exception("the session to %s failed", other)
        finally:
            other.lose("it was given up")
            other.dialling = None
            self._forget_unused(other)

    async def _dial_with(self, other: OtherRelay, context: ssl.SSLContext | None) -> bool:
        """Keep a session; gives True when it was lost and there is another context to use."""
        host, port = parse_address("relay", other.address)
        with trio.CancelScope() as dialling:

            def on_state(state: str, loss: DialLoss | None) -> None:
                if loss is not None:
                    other.lose(loss.message)
                    logger.warning("no session to %s: %s", other, loss.message, extra=other.extra)
                    if self._find_ssl_context() is not context:
                        dialling.cancel()
                        other.hope()

            async def handle_session(session: MuxadoSession) -> None:
                await self._handle_session(other, session)

            await dial_muxado(
                handle_session,
                host,
                port,
                ssl_context=context,
                config=self._config,
                backoff=BACKOFF,
                on_state=on_state,
            )
        return dialling.cancelled_caught

    async def _handle_session(self, other: OtherRelay, session: MuxadoSession) -> None:
        token = self._find_token()
        if token is None:
            raise TunnelRefusedError("token", "this relay has no token for others any more")
        hello = Hello(token.secret, f"the relay {self.address}", relay=self.address)
        try:
            control, _ = await say_hello(session, hello)
        except TunnelRefusedError as refusal:
            if refusal.is_final:
                raise
            other.lose(str(refusal))
            await wait_until_ended(session)
            return
        with suppress(MuxadoError):
            await control.aclose()  # only an agent has to be found
        logger.info("a session to %s", other, extra=other.extra)
        agent = Agent(session, str(other), token, relay=other.address)

        async def handle(stream: MuxadoStream) -> None:
            await self._handle(agent, stream)

        other.add(session)
        try:
            await session.serve_streams(handle)
        finally:
            other.pool.discard(session)


async def _cancel_unused(other: OtherRelay, scope: trio.CancelScope) -> None:
    while (until := other.used_at + KEEP_UNUSED) > trio.current_time():  # noqa: ASYNC110  (a time)
        await trio.sleep_until(until)
    scope.cancel()
