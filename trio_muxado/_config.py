"""All choices and limits of a session, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ._protocol.limits import Limits

if TYPE_CHECKING:
    from ._stream import MuxadoStream
    from ._trace import Tracer


@dataclass(frozen=True)
class Heartbeat:
    """How a session finds out that its peer is gone.

    Every ``interval`` seconds four bytes go out that the peer sends back.  When for
    ``interval + tolerance`` seconds *nothing at all* has come from the peer, the session is
    dead.  What has come is read before that is said, and time in which trio's loop stood still
    doesn't count.  None takes what the known peers of the protocol version use: 3 s and 10 s on v1,
    10 s and 15 s on v2.
    """

    interval: float | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for name in ("interval", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"a heartbeat's {name} is a positive time, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class MuxadoConfig(Limits):
    """Every choice and limit of a session.  Immutable; ``dataclasses.replace`` makes variants.

    The limits are inherited; each says what it bounds.
    """

    wire: Literal["v1", "v2", "auto"] = "auto"
    """The protocol version.

    With ``"auto"`` a client speaks v1, and a server takes what the client's first bytes show.
    """

    typed: bool = False
    """On v2: every stream begins with its type.  Both sides must agree; v1 needs no agreement."""

    heartbeat: Heartbeat | None = field(default_factory=Heartbeat)
    """Keepalive; None sends none.  The peer's are answered in any case.

    A client of v1 that has nothing to say opens its heartbeat stream all the same: a server learns
    from it which protocol version the client speaks.

    v2 has heartbeats in typed sessions only, and there a peer that does not know them takes the
    heartbeat for a stream of its application: say None to such a peer.
    """

    extensions: Mapping[int, Callable[[MuxadoStream], Awaitable[Any]]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """Handlers for streams of extension types, which are never shown to ``accept_stream``.

    Each runs in the session's own nursery and its stream is closed when it returns.  Until then
    ``drain`` waits for it.
    """

    tracer: Tracer | None = None
    """Called forevery frame in both directions; :class:`TableTracer` and
    :class:`JsonLinesTracer` are ready-made.  Without one nothing is spent on it.
    """

    close_timeout: float = 5.0
    """Seconds without progress after which closing a session stops being graceful."""

    close_deadline: float = 60.0
    """Seconds that closing a session takes at most, progress or not."""

    send_timeout: float = 60.0
    """Seconds in which the transport must take a batch of frames.

    A transport that does not is taken for dead.  On a slow one batches shrink to 4 KiB; the first
    has 32 KiB at most, the largest 256 KiB.
    """

    handshake_timeout: float = 30.0
    """Seconds for the TLS handshake, of a client as of a server."""

    half_open_timeout: float | None = None
    """Seconds that a stream may be half-open; None sets no bound.

    It is half-open from when one side has ended it (:meth:`MuxadoStream.send_eof`, ``aclose``, or
    the peer's) until both sides have and all has been sent; and on typed v2 from when the peer
    opened it until its type has come.  Then it is reset with STREAM_CANCELLED, at most a quarter
    later, whether bytes still move on it or not: so an answer to a request that has ended takes
    no longer than this.  Heartbeats are left alone, and the peer's streams of extension types.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.extensions:
            if not 0 < kind <= 0xFFFFFFFF:
                raise ValueError(f"an extension's type is 1 to 2^32 - 1, not {kind!r}")
        if self.wire not in ("v1", "v2", "auto"):
            raise ValueError(f'wire is "v1", "v2" or "auto", not {self.wire!r}')
        for name in (
            "close_timeout",
            "close_deadline",
            "send_timeout",
            "handshake_timeout",
            "half_open_timeout",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be a positive time, not {value!r}")


DEFAULT_CONFIG = MuxadoConfig()
