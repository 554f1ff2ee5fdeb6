"""TLS on a stream, from the client's end and from the server's."""

import ssl
from typing import Any

import httpx
import pytest
import trio
import trustme

from trio_muxado import MuxadoStream
from trio_muxado.http import MuxadoTransport

from ..helpers import V1, V2, session_pair
from .support import client_of, echo_app, opened, respond, served


async def scheme_app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await respond(send, f"{scope['scheme']} {scope['http_version']}".encode())


@pytest.mark.parametrize("http2, version", [(False, "1.1"), (True, "2")])
async def test_a_server_with_tls_on_its_streams(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, http2: bool, version: str
) -> None:
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(scheme_app, far, ssl_context=server_context):
            async with client_of(near, ssl_context=client_context, http2=http2) as http:
                for _ in range(3):
                    response = await http.get("https://localhost/")
                    assert response.text == f"https {version}"
                    assert response.http_version == f"HTTP/{version}"
                assert opened(near) == 1
            await near.aclose()


async def test_http2_is_refused_where_tls_does_not_agree_on_it(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    server_context.set_alpn_protocols(["http/1.1"])
    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(scheme_app, far, ssl_context=server_context):
            async with client_of(near, ssl_context=client_context, http2=True) as http:
                with pytest.raises(httpx.ConnectError, match=r"HTTP/2|ALPN|NO_APPLICATION"):
                    await http.get("https://localhost/")
            await near.aclose()


async def resets(stream: MuxadoStream) -> None:
    await stream.receive_some()
    await stream.reset()


async def ends(stream: MuxadoStream) -> None:
    await stream.receive_some()


async def says_no(stream: MuxadoStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("handler", [resets, ends, says_no])
async def test_a_peer_without_tls_is_told_from_other_trouble(
    handler: Any, client_context: ssl.SSLContext
) -> None:
    async with session_pair(V2, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handler)
        async with client_of(near, ssl_context=client_context) as http:
            with pytest.raises(httpx.ConnectError, match="TLS handshake with localhost"):
                await http.get("https://localhost/")
        assert not near.statistics().streams.get("open")
        await near.aclose()


async def test_a_certificate_that_is_refused_is_the_cause(
    server_context: ssl.SSLContext,
) -> None:
    stranger = ssl.create_default_context()
    trustme.CA().configure_trust(stranger)
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(echo_app, far, ssl_context=server_context):
            async with client_of(near, ssl_context=stranger) as http:
                with pytest.raises(httpx.ConnectError, match="certificate verify failed") as caught:
                    await http.get("https://localhost/")
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
            await near.aclose()


async def test_without_a_context_the_system_s_authorities_count(
    server_context: ssl.SSLContext,
) -> None:
    async with session_pair(V2, heartbeat=None) as (near, far):
        async with served(echo_app, far, ssl_context=server_context):
            transport = MuxadoTransport(near)
            async with httpx.AsyncClient(transport=transport) as http:
                with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                    await http.get("https://localhost/")
            await near.aclose()


class Failing(ssl.SSLContext):
    """Cannot be used, as one that lacks what its caller takes for granted."""

    def wrap_bio(self, *args: Any, **options: Any) -> Any:
        raise ssl.SSLError("no")


@pytest.mark.parametrize("context", [Failing(ssl.PROTOCOL_TLS_CLIENT), None])
async def test_what_fails_before_the_handshake_keeps_no_stream(
    context: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a context it is the system's, whose files may be missing."""

    def create_ssl_context() -> ssl.SSLContext:
        raise FileNotFoundError("authorities")

    monkeypatch.setattr(httpx, "create_ssl_context", create_ssl_context)
    async with session_pair(V2, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, resets)
        async with httpx.AsyncClient(transport=MuxadoTransport(near, ssl_context=context)) as http:
            for _ in range(2):
                with pytest.raises(OSError):  # noqa: PT011
                    await http.get("https://localhost/")
        assert not near.statistics().streams.get("open")
        await near.aclose()
