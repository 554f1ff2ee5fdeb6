"""TLS of a relay: certificates out of files, read again when they have changed."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import trio

from ._names import shown
from ._visitors import Arrivals

_server_names: ContextVar[list[str]] = ContextVar("server_names")
"""What the client of the handshake that runs in this task has asked for."""


class FilesTls(ABC):
    """A TLS context that is made of files, and can be made again from them."""

    def __init__(self, **paths: object) -> None:
        for name, path in paths.items():
            if not isinstance(path, str | Path | None):
                raise TypeError(f"{name} must be the path of a file, not {shown(path)}")

    _context: ssl.SSLContext

    @property
    def context(self) -> ssl.SSLContext:
        """For connections that begin now."""
        return self._context

    def reload(self) -> None:
        """Read the files again.  Where that fails, the context stays as it is.

        Raises:
          OSError: a file cannot be read, or does not have what it should.
        """
        self.use(self.load())

    def use(self, context: ssl.SSLContext) -> None:
        """Take what :meth:`load` has returned, for connections that begin afterwards."""
        self._context = context

    @abstractmethod
    def load(self) -> ssl.SSLContext:
        """Read the files, and return a context that nothing uses yet.

        Raises:
          OSError: as :meth:`reload`.
        """


class ServerTls(FilesTls):
    """A server's certificate and key, and the authority of its clients' certificates.

    :meth:`reload` reads the files again: connections that begin afterwards use what it read.

    Args:
      certificate: the file of the certificate and those between it and its authority, in PEM.
      key: the file of the private key; None if it is in the same file.
      client_ca: the file of the authorities of client certificates, for mutual TLS.  None asks for
        no certificate.
      protocols: the protocols that ALPN offers.

    Raises:
      OSError: a file cannot be read, has no certificate or key that fit, or the key is encrypted.
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
        super().__init__(certificate=certificate, key=key, client_ca=client_ca)
        if certificate is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError("certificate must be the path of a file, not None")
        if isinstance(protocols, str) or not all(isinstance(each, str) for each in protocols):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"protocols must be a list of names, not {shown(protocols)}")
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._protocols = list(protocols)
        self._context = self.load()

    def load(self) -> ssl.SSLContext:
        """A context of what the files have now, which nothing uses yet."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        _load_chain(context, self._certificate, self._key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        if self._protocols:
            context.set_alpn_protocols(self._protocols)
        context.sni_callback = _note_server_name
        return context


class ClientTls(FilesTls):
    """The authorities that a relay trusts when it connects to others, and its own certificate.

    Args:
      ca: the file of the authorities of servers, in PEM; None for the system's.
      certificate: the file of the certificate to present, in PEM; None presents none.
      key: the file of its private key; None if it is in the same file.

    Raises:
      OSError: a file cannot be read, has no certificate or key that fit, or the key is encrypted.
      TypeError: a wrong argument.
      ValueError: there is a key, and no certificate.
    """

    def __init__(
        self,
        ca: str | Path | None = None,
        *,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        super().__init__(ca=ca, certificate=certificate, key=key)
        if key is not None and certificate is None:
            raise ValueError("key must have the certificate that it belongs to")
        self._ca = ca
        self._certificate = certificate
        self._key = key
        self._context = self.load()

    def load(self) -> ssl.SSLContext:
        """A context of what the files have now, which nothing uses yet."""
        context = ssl.create_default_context(cafile=self._ca)
        if self._certificate is not None:
            _load_chain(context, self._certificate, self._key)
        return context


def _load_chain(context: ssl.SSLContext, certificate: str | Path, key: str | Path | None) -> None:
    """Like ``context.load_cert_chain``, and never asks for a passphrase.

    OpenSSL would ask on the terminal, and everybody would wait meanwhile.
    """

    def refuse() -> str:
        raise OSError(f"the key in {key or certificate} is encrypted")

    context.load_cert_chain(certificate, key, refuse)


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
    tcp: trio.SocketStream, context: ssl.SSLContext, arrivals: Arrivals
) -> tuple[trio.SSLStream[trio.SocketStream], str | None]:
    """TLS with a visitor, and the host that it has asked for.

    Raises:
      trio.BrokenResourceError, OSError, trio.TooSlowError: it failed, or took too long.
    """
    stream = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
    names: list[str] = []
    token = _server_names.set(names)
    try:
        with arrivals.limit():
            await stream.do_handshake()
    finally:
        _server_names.reset(token)
    return stream, names[-1].lower() if names else None


def tcp_below(stream: Any) -> trio.SocketStream:
    """The connection that carries a stream."""
    while not isinstance(stream, trio.SocketStream):
        stream = stream.transport_stream
    return stream
