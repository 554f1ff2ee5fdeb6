"""muxado for Trio: many independent, flow-controlled streams over one connection.

    async with open_muxado_session("localhost", 8765) as session:
        async with await session.open_stream() as stream:
            await stream.send_all(b"hello")

============================================ ======================================================
a session to a server                        open_muxado_session, dial_muxado, SessionPool, Backoff
a server                                     serve_muxado, serve_muxado_listeners
a session over any stream                    client_session, server_session, connect_tcp
what they give                               MuxadoSession, MuxadoStream, CloseReason, DialLoss
choices and limits                           MuxadoConfig, Heartbeat
from stream to stream                        forward, forward_streams, Forwarded, break_stream
behind a proxy or a relay                    proxy_header, receive_proxy_header
what happens in a session                    SessionStatistics, TableTracer, JsonLinesTracer
errors, each of them one of trio's as well   MuxadoError and its subclasses, ErrorCode
HTTP, tests, tunnels with tokens             trio_muxado.http, .testing and .tunnel
============================================ ======================================================

``help(trio_muxado.NAME)`` says what one of them does, what it raises, and what cancelling it does.
"""

import typing as _typing

from ._backoff import Backoff
from ._breaking import break_stream
from ._config import Heartbeat, MuxadoConfig
from ._connect import client_session, open_muxado_session, server_session
from ._dial import dial_muxado
from ._dial_loss import DialLoss
from ._errors import (
    CloseReason,
    HeartbeatError,
    MuxadoError,
    NoMoreStreamsError,
    OpenStreamError,
    SessionClosedError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
)
from ._forward import Forwarded, ForwardedDirection, forward
from ._forward_streams import forward_streams
from ._pool import SessionPool
from ._protocol.errors import ErrorCode
from ._proxy_protocol import proxy_header
from ._proxy_reading import ProxyHeaderError, receive_proxy_header
from ._serve import serve_muxado, serve_muxado_listeners
from ._session import MuxadoSession
from ._statistics import SessionStatistics
from ._stream import MuxadoStream
from ._tcp import connect_tcp
from ._trace import JsonLinesTracer, TableTracer, TracedFrame

__all__ = [
    "Backoff",
    "CloseReason",
    "DialLoss",
    "ErrorCode",
    "Forwarded",
    "ForwardedDirection",
    "Heartbeat",
    "HeartbeatError",
    "JsonLinesTracer",
    "MuxadoConfig",
    "MuxadoError",
    "MuxadoSession",
    "MuxadoStream",
    "NoMoreStreamsError",
    "OpenStreamError",
    "ProxyHeaderError",
    "SessionClosedError",
    "SessionEndedError",
    "SessionPool",
    "SessionStatistics",
    "StreamClosedError",
    "StreamResetError",
    "TableTracer",
    "TracedFrame",
    "break_stream",
    "client_session",
    "connect_tcp",
    "dial_muxado",
    "forward",
    "forward_streams",
    "open_muxado_session",
    "proxy_header",
    "receive_proxy_header",
    "serve_muxado",
    "serve_muxado_listeners",
    "server_session",
]


def _show_public_names() -> None:
    """Tracebacks and documentation name what users import, not where it is defined."""
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_names()

__version__: str

if not _typing.TYPE_CHECKING:  # a checker that saw it would take any name for an attribute

    def __getattr__(name: str) -> str:
        """Look up ``__version__`` when it is asked for: finding metadata takes milliseconds."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version(__name__)
