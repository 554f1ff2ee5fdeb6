"""The agent: it dials the relay, and lets the relay's visitors in to services."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Literal, TypeAlias

import trio

from .. import (
    Backoff,
    DialLoss,
    ErrorCode,
    Heartbeat,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    ProxyHeaderError,
    StreamResetError,
    dial_muxado,
)
from ._checks import check_dialling
from ._config import check_seconds, session_config
from ._control import CONTROL_TYPE, HELLO_TIMEOUT, receive_message
from ._errors import TunnelRefusedError
from ._messages import MOST_TUNNELS, Accepted, Granted, Hello, MessageError, Refused, encode
from ._names import Tunnel, shown
from ._nursery import open_nursery
from ._services import Handle, Service
from ._tokens import LONGEST_SECRET

logger = logging.getLogger("trio_muxado.tunnel")

TunnelState: TypeAlias = Literal["connecting", "connected", "refused", "lost"]
"""What an agent is at."""

TunnelNews: TypeAlias = "tuple[Granted, ...] | TunnelRefusedError | DialLoss | None"

StateHook: TypeAlias = Callable[[TunnelState, TunnelNews], object]


async def expose(
    services: Mapping[Tunnel, Service],
    host: str,
    port: int,
    *,
    token: str,
    agent: str = "",
    ssl_context: ssl.SSLContext | None = None,
    heartbeat: Heartbeat | None = None,
    backoff: Backoff = Backoff(),  # noqa: B008  (it is immutable)
    idle_timeout: float = 600.0,
    stop: trio.Event | None = None,
    on_state: StateHook | None = None,
    connect: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
) -> None:
    """Keep services reachable through a relay, until cancelled or stopped.

    Connects to the relay, asks for all the tunnels, and connects each visitor to the tunnel's
    service.  Connects again whenever the connection is lost, as :func:`~trio_muxado.dial_muxado`
    does.

    Args:
      services: the service behind each tunnel.
      host, port: where the relay listens for agents.
      token: the secret of a token that the relay knows.
      agent: the agent's name in the relay's log.
      ssl_context: speak TLS; with a certificate of its own for mutual TLS.
      heartbeat: how the session notices that the relay has disappeared.
      backoff: how long to wait before each further attempt.
      idle_timeout: seconds without data after which a visitor's connection is broken.
      stop: once it is set, the relay sends no more visitors, the current ones finish, and the
        function returns.  Put a deadline around it with :func:`trio.move_on_after`.
      on_state: called as ``on_state("connecting", None)``, ``on_state("connected", tunnels)`` with
        a :class:`Granted` for each tunnel, ``on_state("refused", error)`` if the relay has refused
        and a later attempt may succeed, and ``on_state("lost", loss)`` with a
        :class:`~trio_muxado.DialLoss`.
      connect: as in :func:`~trio_muxado.dial_muxado`.

    Raises:
      TunnelRefusedError: the relay refuses, and asking again is pointless.
      TypeError, ValueError: a wrong argument; nothing has been dialled then.
    """
    if not isinstance(services, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"services must map Tunnels to services, not {shown(services)}")
    if not services:
        raise ValueError("services must not be empty: nothing would be reached")
    for tunnel, service in services.items():
        if not isinstance(tunnel, Tunnel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"services must map Tunnels, not {shown(tunnel)}")
        if not isinstance(service, Service):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"services must map Tunnels to services, not to {shown(service)}")
    names = [tunnel.name for tunnel in services]
    if len(set(names)) < len(names):
        raise ValueError("services must map Tunnels of different names")
    if len(names) > MOST_TUNNELS:
        raise ValueError(f"services must map at most {MOST_TUNNELS} Tunnels, not {len(names)}")
    check_seconds("idle_timeout", idle_timeout)
    check_dialling(
        host,
        port,
        connect=connect,
        ssl_context=ssl_context,
        heartbeat=heartbeat,
        backoff=backoff,
        stop=stop,
        on_state=on_state,
    )
    hello = Hello(checked_token(token), _checked_agent(agent), tuple(services))
    async with AsyncExitStack() as stack:
        handlers: dict[str, Handle] = {}
        for tunnel, service in services.items():
            handling = service.handler(idle_timeout, stop)
            handlers[tunnel.name] = await stack.enter_async_context(handling)
        work = _Agent(hello, handlers, stop, on_state)
        await dial_muxado(
            work.handle_session,
            host,
            port,
            ssl_context=ssl_context,
            config=session_config(heartbeat),
            connect=connect,
            backoff=backoff,
            stop=stop,
            on_state=work.on_state,
        )


def checked_token(token: object) -> str:
    """Refuse anything that is not a token, without showing it."""
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not a {type(token).__name__}")
    if not token or not token.isprintable() or len(token) > LONGEST_SECRET:
        raise ValueError(f"token must be 1 to {LONGEST_SECRET} printable characters")
    return token


def _checked_agent(agent: object) -> str:
    if not isinstance(agent, str):
        raise TypeError(f"agent must be a str, not {shown(agent)}")
    if len(agent) > 100 or not agent.isprintable():
        raise ValueError("agent must be at most 100 printable characters")
    return agent


async def say_hello(session: MuxadoSession, hello: Hello) -> tuple[MuxadoStream, Accepted]:
    """Open the control stream, which lives as long as the session, and show the token.

    Raises:
      TunnelRefusedError: the relay refuses, or answers with nonsense.
      MuxadoError: the session has ended.
    """
    control = await session.open_stream(type=CONTROL_TYPE)
    try:
        with trio.fail_after(HELLO_TIMEOUT):
            await control.send_all(encode(hello))
            answer = await receive_message(control)
    except MessageError as error:
        raise TunnelRefusedError("message", f"this is not a relay: {error}") from None
    except trio.TooSlowError:
        raise TunnelRefusedError("message", "this is not a relay: it does not answer") from None
    except StreamResetError as error:
        if error.code is ErrorCode.STREAM_REFUSED:
            raise TunnelRefusedError("message", "this is not a relay: it refuses agents") from None
        raise TunnelRefusedError("busy", f"the relay failed: {error}") from None
    if isinstance(answer, Refused):
        raise TunnelRefusedError(answer.reason, answer.text)
    if not isinstance(answer, Accepted):
        raise TunnelRefusedError("message", "this is not a relay: it answers something else")
    return control, answer


async def wait_until_ended(session: MuxadoSession) -> None:
    """Wait until a relay that refuses has ended the session: then it is dialled again.

    Raises:
      TunnelRefusedError: it does not.
    """
    try:
        with trio.fail_after(HELLO_TIMEOUT):
            await session.wait_closed()
    except trio.TooSlowError:
        why = "this is not a relay: it refuses, and does not end the session"
        raise TunnelRefusedError("message", why) from None


class _Agent:
    """What one call of :func:`expose` does with each session."""

    def __init__(
        self,
        hello: Hello,
        handlers: Mapping[str, Handle],
        stop: trio.Event | None,
        on_state: StateHook | None,
    ) -> None:
        self._hello = hello
        self._handlers = handlers
        self._stop = stop
        self._hook = on_state

    def on_state(self, state: str, loss: DialLoss | None) -> None:
        """A hook for ``dial_muxado``: that a session runs says nothing of the tunnels yet."""
        if state == "connecting":
            self._tell("connecting", None)
        elif loss is not None:
            self._tell("lost", loss)

    def _tell(self, state: TunnelState, news: TunnelNews) -> None:
        if self._hook is not None:
            self._hook(state, news)

    async def handle_session(self, session: MuxadoSession) -> None:
        """Ask for the tunnels, and serve their visitors until the session ends."""
        try:
            control, accepted = await say_hello(session, self._hello)
            by_number = self._by_number(accepted.tunnels)
        except TunnelRefusedError as refusal:
            if refusal.is_final:
                raise
            self._tell("refused", refusal)
            await wait_until_ended(session)
            return
        self._tell("connected", accepted.tunnels)
        async with open_nursery() as nursery:
            nursery.start_soon(self._end_control, control)
            await session.serve_streams(partial(self._handle_stream, by_number))
            nursery.cancel_scope.cancel()

    def _by_number(self, granted: Iterable[Granted]) -> dict[int, tuple[str, Handle]]:
        by_number = {
            each.number: (each.name, self._handlers[each.name])
            for each in granted
            if each.name in self._handlers
        }
        if {name for name, _ in by_number.values()} != set(self._handlers):
            raise TunnelRefusedError("message", "the relay has not given all tunnels")
        return by_number

    async def _end_control(self, control: MuxadoStream) -> None:
        """End the control stream when either side is to stop: it would hold up a drain."""
        with suppress(MuxadoError):
            async with open_nursery() as nursery:

                async def watch(stop: trio.Event) -> None:
                    await stop.wait()
                    nursery.cancel_scope.cancel()

                if self._stop is not None:
                    nursery.start_soon(watch, self._stop)
                while await control.receive_some(1024):
                    pass
                nursery.cancel_scope.cancel()
            await control.aclose()

    async def _handle_stream(
        self, by_number: Mapping[int, tuple[str, Handle]], stream: MuxadoStream
    ) -> None:
        found = by_number.get(stream.type)
        if found is None:
            await stream.reset(ErrorCode.STREAM_REFUSED)
            return
        name, handle = found
        try:
            await handle(stream)
        except MuxadoError:
            raise  # the stream has ended, or its session
        except (ProxyHeaderError, trio.TooSlowError) as error:
            logger.warning("%s: a stream without a visitor: %s", name, error)
            await stream.reset(ErrorCode.PROTOCOL_ERROR)
        except Exception:
            logger.exception("a visitor of %s", name)
            await stream.reset(ErrorCode.INTERNAL_ERROR)
