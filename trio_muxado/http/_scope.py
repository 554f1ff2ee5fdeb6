"""The parts of an application's scope that no request contains: addresses, and TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from .. import MuxadoSession

Address = tuple[str, int] | None

TLS_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""RFC 4514's short names for the parts of a name; others are written out."""


@dataclass
class Origin:
    """Where the requests of a connection come from, for the application's scope."""

    client: Address = None
    server: Address = None
    secure: bool = False
    extensions: dict[str, Any] = field(default_factory=dict[str, Any])


def origin_of(session: MuxadoSession) -> Origin:
    """The addresses of a session's transport, and its TLS."""
    origin = Origin()
    for layer in _layers(session.transport_stream):
        below: Any = getattr(layer, "socket", None)
        if isinstance(layer, trio.SSLStream) and not origin.secure:
            origin.secure = True
            origin.extensions["tls"] = tls_extension(layer)
        if below is not None:
            try:
                origin.client = _address(below.family, below.getpeername())
                origin.server = _address(below.family, below.getsockname())
            except OSError:  # it has ended already
                pass
    return origin


def _address(family: int, address: Any) -> Address:
    return address[:2] if family in (socket.AF_INET, socket.AF_INET6) else None


def _layers(stream: Any) -> Iterator[Any]:
    """A stream, then the stream that it wraps, and so on."""
    while stream is not None:
        yield stream
        stream = getattr(stream, "transport_stream", None)


def tls_extension(tls: Any) -> dict[str, Any]:
    """ASGI's ``tls`` extension, of a :class:`trio.SSLStream` whose handshake is done.

    The session's peer counts as the "client", whichever side opened the connection.
    """
    try:
        certificate: bytes | None = tls.getpeercert(binary_form=True)
        subject = tls.getpeercert().get("subject", ()) if certificate else ()
        cipher: tuple[str, str, int] | None = tls.cipher()
        version: str | None = tls.version()
        suites: list[dict[str, Any]] = tls.context.get_ciphers()
    except trio.NeedHandshakeError:
        certificate, subject, cipher, version, suites = None, (), None, None, []
    name = cipher[0] if cipher else None
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else [],
        "client_cert_name": distinguished_name(subject) if subject else None,
        "client_cert_error": None,
        "tls_version": TLS_VERSIONS.get(version or ""),
        "cipher_suite": next((s["id"] & 0xFFFF for s in suites if s["name"] == name), None),
    }


def distinguished_name(subject: Any) -> str:
    """A certificate's subject, as RFC 4514 writes it: the most specific part first."""
    parts = (
        "+".join(f"{SHORT_NAMES.get(name, name)}={_escaped(value)}" for name, value in part)
        for part in reversed(subject)
    )
    return ",".join(parts)


def _escaped(value: str) -> str:
    escaped = "".join(f"\\{c}" if c in ',+"\\<>;' else c for c in value)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped.replace("\0", "\\00")
