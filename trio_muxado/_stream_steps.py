"""What changes a stream of a session in one step: nothing here waits, or is a checkpoint.

:class:`MuxadoStream` is built on it, and adds what its callers wait for.  Whoever runs handlers or
copies streams, and is through a checkpoint already, uses the functions at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._breaks import wake_for_break
from ._protocol.errors import ErrorCode
from ._protocol.states import SEND_END

if TYPE_CHECKING:
    from ._engine import Engine
    from ._errors import StreamClosedError
    from ._protocol.stream import Stream
    from ._receive_channel import ReceiveChannel
    from ._session import MuxadoSession

_RESET = "this side has reset the stream"
_CUT = f"{_RESET}: a send_all has left data unsent"

# How far the exchange of messages is: what is sent after an answer is mostly not the last.
NEW, SENT, ANSWERED = range(3)


class StreamSteps:
    """The state of a stream that a user of this side holds, and its synchronous steps."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_core",
        "_cut",
        "_engine",
        "_exchange",
        "_received",
        "_receiving",
        "_sending",
        "_session",
    )

    def __init__(
        self, session: MuxadoSession, engine: Engine, core: Stream, received: ReceiveChannel
    ) -> None:
        self._session = session
        self._engine = engine
        self._core = core
        self._received = received
        self._closed: tuple[str, bool] | None = None  # how, and whether it had broken before
        self._cut = False  # data of a send_all is not queued: an end would make it look whole
        self._receiving = False  # a task is in receive_some
        self._sending = False  # a task is in a method that sends
        self._exchange = NEW

    # ---- receiving

    def _receive_waiting(self, max_bytes: int) -> bytes:
        """Return what waits, up to ``max_bytes``; nothing while another task is receiving."""
        if self._receiving or not self._received.size:
            return b""
        data = self._received.take(None, max_bytes)
        self._engine.steps.consume(self._core, len(data))
        return data

    def _has_ended(self) -> bool:
        """Nothing but its end is left to receive."""
        return self._closed is None and self._received.ended and not self._received.size

    # ---- sending

    def _send_now(self, data: bytes | bytearray) -> bytes | bytearray:
        """Send ``data`` where ``send_all`` would neither wait nor raise; else return it."""
        core, engine = self._core, self._engine
        if not self._may_send() or core.outgoing.size + len(data) > engine.room.size:
            return data
        if type(data) is not bytes:  # of a stream of another kind, which may change it
            return data
        engine.steps.send(core, data, self._exchange == ANSWERED)
        self._exchange = self._exchange or SENT
        return b""

    def _end_now(self) -> bool:
        """End this direction where ``send_eof`` would not raise; whether that was done."""
        if not self._may_send():
            return False
        self._engine.steps.end_sending(self._core)
        return True

    def _may_send(self) -> bool:
        """No other task is sending, and no method has to say first why nothing can be sent."""
        if self._sending or self._cut or self._closed is not None:
            return False
        return SEND_END in self._core.allowed and not self._engine.ending.closing

    def _check_sendable(self) -> None:
        if self._closed is not None:
            raise self._closed_error()
        self._engine.ending.check_sendable(self._core)

    # ---- closing

    def _close_now(self, why: str = "this side has closed the stream") -> None:
        """What ``aclose`` does."""
        if self._closed is not None:
            return
        if self._cut:
            self._reset_now(ErrorCode.STREAM_CANCELLED, _CUT)
        else:
            self._let_go(why)
            self._engine.steps.close(self._core)

    def _reset_now(self, code: ErrorCode | int, why: str = _RESET) -> None:
        """What ``reset`` does."""
        if self._closed is None:
            self._let_go(why)
        self._engine.steps.reset(self._core, code)

    def _let_go(self, why: str) -> None:
        """This side has closed the stream: drop what came, and wake the tasks that use it."""
        self._closed = (why, self._core.broken is not None)
        self._received.close(self._receiving)
        if self._engine.breaks:
            wake_for_break(self._engine.breaks, self._core)
        if self._sending:
            self._engine.room.wake(self._core)

    def _closed_error(self) -> StreamClosedError:
        assert self._closed is not None
        return self._engine.ending.closed_error(self._core, *self._closed)


def core_of(stream: StreamSteps) -> Stream:
    """The stream as the protocol sees it."""
    return stream._core  # pyright: ignore[reportPrivateUsage]


# For other modules of this package.  On the class these names are private, as users hold it.
receive_waiting, has_ended = StreamSteps._receive_waiting, StreamSteps._has_ended  # pyright: ignore[reportPrivateUsage]
send_now, end_now = StreamSteps._send_now, StreamSteps._end_now  # pyright: ignore[reportPrivateUsage]
close_now, reset_now = StreamSteps._close_now, StreamSteps._reset_now  # pyright: ignore[reportPrivateUsage]
