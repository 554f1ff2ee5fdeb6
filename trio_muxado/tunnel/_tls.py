"""TLS of a relay: certificates out of files, read again when they have changed."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import trio

from ._names import shown
from ._visitors import HEADER_TIMEOUT

_server_names: ContextVar[list[str]] = ContextVar("server_names")
"""What the client of the handshake that runs in this task has asked for."""


class ServerTls:
    """A server's certificate and key, and the authority of its clients' certificates.

    The context is made of the files, and made anew by :meth:`reload`: connections that begin
    afterwards use it.

    Args:
      certificate: the file of the certificate and those between it and its authority, in PEM.
      key: the file of the private key; None where it is in the same file.
      client_ca: the file of the authorities whose clients are let in: mutual TLS.  None asks for no
        certificate.
      protocols: what ALPN offers.

    Raises:
      OSError: a file cannot be read, or has no certificate or key that fit.
      TypeError: a wrong argument.
    """

    def __init__(
        self,
        certificate: str | Path,
        key: str | Path | None = None,
        *,
        client_ca: str | Path | None = None,
        protocols: Sequence[str] = (),
    ) -> None:
        paths: dict[str, object] = {"certificate": certificate, "key": key, "client_ca": client_ca}
        for name, path in paths.items():
            wanted = (str, Path) if name == "certificate" else (str, Path, type(None))
            if not isinstance(path, wanted):
                raise TypeError(f"{name} must be the path of a file, not {shown(path)}")
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._protocols = list(protocols)
        self._context = self.load()

    @property
    def context(self) -> ssl.SSLContext:
        """For connections that begin now."""
        return self._context

    def reload(self) -> None:
        """Read the files again.  Where that fails, the context stays as it is.

        Raises:
          OSError: as above.
        """
        self.use(self.load())

    def use(self, context: ssl.SSLContext) -> None:
        """Take what :meth:`load` has returned, for connections that begin afterwards."""
        self._context = context

    def load(self) -> ssl.SSLContext:
        """A context of what the files have now, which nothing uses yet.

        Raises:
          OSError: as above.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate, self._key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        if self._protocols:
            context.set_alpn_protocols(self._protocols)
        context.sni_callback = _note_server_name
        return context


def _note_server_name(connection: object, name: str | None, context: object) -> None:
    if name is not None:
        _server_names.get([]).append(name)


class TlsListener(trio.abc.Listener["trio.SSLStream[trio.SocketStream]"]):
    """Accepts connections, each with the context as it is then."""

    def __init__(self, transport_listener: trio.SocketListener, tls: ServerTls) -> None:
        self.transport_listener = transport_listener
        self._tls = tls

    async def accept(self) -> trio.SSLStream[trio.SocketStream]:
        """The next connection; its handshake is still to come."""
        tcp: Any = await self.transport_listener.accept()
        return trio.SSLStream(tcp, self._tls.context, server_side=True, https_compatible=False)

    async def aclose(self) -> None:
        """Stop listening."""
        await self.transport_listener.aclose()


async def shake_hands(
    tcp: trio.SocketStream, context: ssl.SSLContext
) -> tuple[trio.SSLStream[trio.SocketStream], str | None]:
    """TLS with a visitor, and the host that he has asked for.

    Raises:
      trio.BrokenResourceError, OSError, trio.TooSlowError: it failed, or took too long.
    """
    stream = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
    names: list[str] = []
    token = _server_names.set(names)
    try:
        with trio.fail_after(HEADER_TIMEOUT):
            await stream.do_handshake()
    finally:
        _server_names.reset(token)
    return stream, names[-1].lower() if names else None
