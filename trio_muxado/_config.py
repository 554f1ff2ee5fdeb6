"""All choices and limits of a session, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

from ._checks import check_function, check_hook
from ._protocol.checks import check_bool, check_choice, check_int, check_number, shown
from ._protocol.limits import Limits

if TYPE_CHECKING:
    from ._stream import MuxadoStream
    from ._trace import Tracer

    ExtensionHandler: TypeAlias = Callable[[MuxadoStream], Awaitable[Any]]


def _refuse(*args: object, **kwargs: object) -> NoReturn:
    raise TypeError("a MuxadoConfig cannot be changed; dataclasses.replace makes a variant")


_refuse_change: Any = _refuse  # in place of methods of many signatures


class Extensions(dict[int, "ExtensionHandler"]):
    """The handlers of extensions, which no longer change: a part of a configuration.

    A dict, so that a configuration can be shown as JSON, and looking a type up is no call.
    """

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    __setitem__ = __delitem__ = __ior__ = _refuse_change
    clear = pop = popitem = setdefault = update = _refuse_change

    def __reduce__(self) -> tuple[Any, ...]:
        return Extensions, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Extensions:
        return self


@dataclass(frozen=True)
class Heartbeat:
    """How a session finds out that its peer is gone.

    This side sends four bytes every ``interval`` seconds, and the peer sends them back.  The
    session ends when *nothing at all* has arrived for ``interval + tolerance`` seconds.  What has
    arrived is read first, and time in which trio's loop stood still doesn't count.  None is what
    the known peers of the protocol version use: 3 s and 10 s on v1, 10 s and 15 s on v2.  With an
    infinite ``tolerance`` this side sends heartbeats, and never considers the peer dead.

    Raises:
      TypeError, ValueError: either is not a positive number, or ``interval`` is not finite.
    """

    interval: float | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.interval is not None:
            check_number("interval", self.interval)
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, endless=True)


@dataclass(frozen=True, kw_only=True, repr=False)
class MuxadoConfig(Limits):
    """Every choice and limit of a session.  Immutable; ``dataclasses.replace`` makes variants.

    The reference describes each field, and "Security and limits" says what each limit is for.
    Seconds are ints or floats, and ``math.inf`` where there is to be no bound; counts and sizes
    are ints.

    It can be a key of a dict, and can be pickled if its handlers and its tracer can.

    Raises:
      TypeError, ValueError: a field is not what it should be; the message begins with its name.
    """

    wire: Literal["v1", "v2", "auto"] = "auto"
    """The protocol version.

    With ``"auto"`` a client speaks v1, and a server takes what the client's first bytes show.
    """

    typed: bool = False
    """On v2: every stream begins with its type.  Both sides must agree; v1 needs no agreement."""

    heartbeat: Heartbeat | None = field(default_factory=Heartbeat)
    """Keepalive; None sends none.  The peer's heartbeats are answered in any case.

    A client of v1 that has nothing to say opens its heartbeat stream all the same: a server learns
    from it which protocol version the client speaks.

    v2 has heartbeats in typed sessions only.  There a peer that does not know them takes the
    heartbeat for a stream of its application: set None for such a peer.
    """

    extensions: Mapping[int, Callable[[MuxadoStream], Awaitable[Any]]] = field(
        default_factory=Extensions
    )
    """Handlers for streams of extension types, which are never shown to ``accept_stream``; copied.

    Each runs in the session's own nursery and its stream is closed when it returns.  Until then
    ``drain`` waits for it.
    """

    tracer: Tracer | None = field(default=None, hash=False)
    """Called for every frame in both directions; :class:`TableTracer` and :class:`JsonLinesTracer`
    are ready-made.  None costs nothing.
    """

    close_timeout: float = 5.0
    """Seconds without progress after which closing a session stops being graceful."""

    close_deadline: float = 60.0
    """Seconds that closing a session takes at most, progress or not."""

    send_timeout: float = 60.0
    """Seconds in which the transport must accept a batch of frames.

    One that does not counts as dead.  On a slow transport batches shrink to 4 KiB; the first has 32
    KiB at most, and the largest 252 KiB.
    """

    handshake_timeout: float = 30.0
    """Seconds for the TLS handshake, of a client as of a server."""

    half_open_timeout: float | None = None
    """Seconds that a stream may be half-open; None sets no bound.

    A stream is half-open from the moment one side has ended it (:meth:`MuxadoStream.send_eof`,
    ``aclose``, or the peer's) until both sides have and everything has been sent.  On typed v2 it
    is half-open as well until its type has arrived.  When the time is over, the stream is reset
    with STREAM_CANCELLED, at the latest after another quarter of it, whether bytes still move or
    not.  So set it longer than the longest answer takes.  Heartbeats and the peer's extension
    streams are exempt.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("wire", self.wire, ("v1", "v2", "auto"))
        check_bool("typed", self.typed)
        if self.heartbeat is not None and not isinstance(self.heartbeat, Heartbeat):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"heartbeat must be a Heartbeat or None, not {shown(self.heartbeat)}")
        if not isinstance(self.extensions, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"extensions must map types to handlers, not {shown(self.extensions)}")
        object.__setattr__(self, "extensions", Extensions(self.extensions))
        for kind, handler in self.extensions.items():
            check_int("extensions: an extension's type", kind, 1, 0xFFFFFFFF)
            check_function(f"extensions[{kind:#x}]", handler)
        if self.tracer is not None:
            check_hook("tracer", self.tracer)
        for name in ("close_timeout", "close_deadline", "send_timeout", "handshake_timeout"):
            check_number(name, getattr(self, name), endless=True)
        if self.half_open_timeout is not None:
            check_number("half_open_timeout", self.half_open_timeout, endless=True)

    def __repr__(self) -> str:
        """What differs from the defaults: signatures show the default configuration."""
        differ: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            factory = each.default_factory
            if value != (each.default if factory is MISSING else factory()):
                differ.append(f"{each.name}={value!r}")
        return f"MuxadoConfig({', '.join(differ)})"

    def __deepcopy__(self, memo: dict[int, Any]) -> MuxadoConfig:
        return self  # a tracer has a file, and a handler may be a method of anything


DEFAULT_CONFIG = MuxadoConfig()


def check_config(config: object, name: str = "config") -> None:
    """Raise TypeError for anything that is not a configuration."""
    if not isinstance(config, MuxadoConfig):
        raise TypeError(f"{name} must be a MuxadoConfig, not {shown(config)}")
