"""muxado for Trio: many independent, flow-controlled streams over one connection."""

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
