"""HTTP over the streams of a session: an ASGI server on one side, an httpx client on the other.

Either side of a session can be either.  The server is hypercorn, with a stream for each connection,
and the client is httpx, with a stream for each request; both come with
``pip install 'trio_muxado[http]'``.
"""

try:
    from ._backend import MuxadoBackend
    from ._client import MuxadoTransport
    from ._server import asgi_handler, serve_asgi
except ImportError as _error:
    raise ImportError(
        "trio_muxado.http needs hypercorn 0.18, h11, h2, httpcore 1.0 and httpx: "
        f"python -m pip install 'trio_muxado[http]' ({_error})"
    ) from _error

__all__ = ["MuxadoBackend", "MuxadoTransport", "asgi_handler", "serve_asgi"]


def _show_public_names() -> None:
    """As in the package: users see the module that they import a name from."""
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_names()
