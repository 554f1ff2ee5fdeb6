"""What an application is told: the scheme, TLS, the addresses, the session and the stream."""

import json
import ssl
from typing import Any

import pytest
import trio
import trustme

from trio_muxado import StreamResetError, proxy_header
from trio_muxado.http._scope import distinguished_name

from ..helpers import V1, V2, read_all, session_pair, tls_pair
from .support import client_of, respond, served


class Noting:
    """Keeps the scopes that it was called with."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await respond(send)


ASK = b"GET / HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: peer\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize("request_line, kind", [(ASK, "http"), (UPGRADE, "ws")])
@pytest.mark.parametrize("scheme, secure", [(None, ""), ("http", ""), ("https", "s")])
async def test_the_scheme(request_line: bytes, kind: str, scheme: Any, secure: str) -> None:
    app = Noting()
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(app, far, scheme=scheme):
            stream = await near.open_stream()
            await stream.send_all(request_line)
            await read_all(stream)
            await stream.aclose()
            await near.aclose()
    assert [scope["scheme"] for scope in app.scopes] == [kind + secure]
    assert "tls" not in app.scopes[0]["extensions"]


@pytest.mark.parametrize("http2", [False, True])
async def test_the_session_and_the_stream(http2: bool) -> None:
    app = Noting()
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(app, far):
            async with client_of(near, http2=http2) as http:
                await http.get("/")
            await near.aclose()
    extension = app.scopes[0]["extensions"]["muxado"]
    assert extension["session"] is far
    assert extension["stream"].session is far


async def test_tls_under_the_session_is_https_and_shows_the_peer_s_certificate(
    authority: trustme.CA, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    app = Noting()
    issued = authority.issue_cert("someone@example.org", organization_name="Some, one")
    issued.configure_cert(client_context)
    authority.configure_trust(server_context)
    server_context.verify_mode = ssl.CERT_REQUIRED
    async with tls_pair(client_context, server_context) as transports:
        async with session_pair(V1, transports=transports) as (near, far):
            async with served(app, far), client_of(near) as http:
                await http.get("/")
                await http.aclose()
                await near.aclose()
    (scope,) = app.scopes
    assert scope["scheme"] == "https"
    assert scope["client"][0] == "127.0.0.1"
    tls = scope["extensions"]["tls"]
    assert tls["client_cert_chain"] == [
        ssl.DER_cert_to_PEM_cert(
            ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
        )
    ]
    assert tls["client_cert_name"].endswith("O=Some\\, one")
    assert tls["tls_version"] == 0x0304
    assert tls["cipher_suite"] >> 8 == 0x13
    assert tls["client_cert_error"] is tls["server_cert"] is None
    json.dumps(tls)


async def test_tls_on_the_stream_is_https_without_a_certificate_of_the_client(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    app = Noting()
    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(app, far, ssl_context=server_context):
            async with client_of(near, ssl_context=client_context) as http:
                await http.get("https://localhost/")
            await near.aclose()
    (scope,) = app.scopes
    assert scope["scheme"] == "https"
    tls = scope["extensions"]["tls"]
    assert (tls["client_cert_chain"], tls["client_cert_name"]) == ([], None)


@pytest.mark.parametrize(
    "subject, name",
    [
        ((), ""),
        ((("commonName", "a"),), "CN=a"),
        ((("countryName", "DE"),), "C=DE"),
        ((("commonName", 'a+b,"c\\<d>;'),), 'CN=a\\+b\\,\\"c\\\\\\<d\\>\\;'),
        ((("commonName", "#a "),), "CN=\\#a\\ "),
        ((("commonName", " "),), "CN=\\ "),
        ((("emailAddress", "a@b"),), "emailAddress=a@b"),
    ],
)
def test_names_are_written_as_rfc_4514_has_it(subject: Any, name: str) -> None:
    assert distinguished_name((subject,) if subject else ()) == name


def test_the_most_specific_part_of_a_name_comes_first() -> None:
    subject = ((("countryName", "DE"),), (("commonName", "a"), ("userId", "b")))
    assert distinguished_name(subject) == "CN=a+UID=b,C=DE"


# ---- the PROXY protocol

VISITOR, HERE = ("192.0.2.1", 50000), ("192.0.2.2", 443)
VISITOR_6, HERE_6 = ("2001:db8::1", 50000), ("2001:db8::2", 443)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("client, server", [(VISITOR, HERE), (VISITOR_6, HERE_6), (None, None)])
@pytest.mark.parametrize("split", [False, True])
async def test_the_visitor_s_address_comes_before_the_request(
    version: Any, client: Any, server: Any, split: bool
) -> None:
    app = Noting()
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(app, far, proxy_protocol=True):
            stream = await near.open_stream()
            data = proxy_header(version, client, server) + ASK
            for start in range(0, len(data), 1 if split else len(data)):
                await stream.send_all(data[start : start + (1 if split else len(data))])
            assert b" 200 " in await read_all(stream)
            await stream.aclose()
            await near.aclose()
    (scope,) = app.scopes
    assert (scope["client"], scope["server"]) == (client, server)


async def test_the_proxy_s_header_comes_before_tls(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    app = Noting()
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(app, far, proxy_protocol=True, ssl_context=server_context):
            stream = await near.open_stream()
            await stream.send_all(proxy_header("v2", VISITOR, HERE))
            tls = trio.SSLStream(
                stream, client_context, server_hostname="localhost", https_compatible=True
            )
            await tls.send_all(ASK)
            assert b" 200 " in await tls.receive_some()
            await stream.aclose()
            await near.aclose()
    assert (app.scopes[0]["client"], app.scopes[0]["scheme"]) == (VISITOR, "https")


V2_HEAD = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY",
        ASK,
        b"PROXY " + b"x" * 200,
        b"PROXY TCP4 192.0.2.1\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n",
        b"PROXY SCTP 192.0.2.1 192.0.2.2 1 2\r\n",
        V2_HEAD + b"\x11\x11\0\x0c" + bytes(12),
        V2_HEAD + b"\x22\x11\0\x0c" + bytes(12),
        V2_HEAD + b"\x21\x11\0\x0b" + bytes(11),
        V2_HEAD + b"\x21\x11\xff\xff" + bytes(100),
        V2_HEAD + b"\x21\x11\0\x0c" + bytes(5),
    ],
)
async def test_a_stream_without_a_proxy_header_is_reset(header: bytes) -> None:
    app = Noting()
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(app, far, proxy_protocol=True):
            stream = await near.open_stream()
            await stream.send_all(header)
            await stream.send_eof()
            with pytest.raises(StreamResetError):
                await read_all(stream)
            await stream.aclose()
            await near.aclose()
    assert not app.scopes


@pytest.mark.parametrize("extra", [b"", b"\x04\0\x04abcd"])
async def test_extras_of_a_proxy_header_are_skipped(extra: bytes) -> None:
    app = Noting()
    body = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + b"\xc3\x50\x01\xbb" + extra
    header = V2_HEAD + b"\x21\x11" + len(body).to_bytes(2, "big") + body
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(app, far, proxy_protocol=True):
            stream = await near.open_stream()
            await stream.send_all(header + ASK)
            assert b" 200 " in await read_all(stream)
            await stream.aclose()
            await near.aclose()
    assert app.scopes[0]["client"] == VISITOR
