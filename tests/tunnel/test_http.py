"""HTTP tunnels: the request decides where it goes, and whoever asks in vain reads why."""

import logging
import socket
import ssl
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from trio.testing import wait_all_tasks_blocked

from trio_muxado.tunnel import AddressService, AsgiService, ClientTls, ServerTls, Tunnel

from ..helpers.ports import free_port
from .support import (
    HOST,
    PATIENCE,
    TCP,
    ask,
    exposed,
    reset_on_close,
    running_relay,
    service,
    until,
    visit,
)
from .web import OTHER, WEB, Client, Silent, get, https, plain, relay_and_app, resolving, scope_app


async def test_an_application_without_any_port_is_reached_by_its_host() -> None:
    async with relay_and_app() as relay, visit(relay.http) as visitor:
        client = Client(visitor)
        for path in ("/one", "/two"):  # on one connection
            status, body = await client.ask("web.example.org", path)
            assert (status, body) == (200, f"GET {path} http web.example.org {HOST} 0.".encode())
            assert client.headers[b"x-app"] == b"yes"
        status, body = await client.ask("WEB.example.org:8080", "/")
        assert body == f"GET / http WEB.example.org:8080 {HOST} 0.".encode()
        await until(lambda: relay.relay.counts.requests == {("web", "2xx"): 3})


async def test_bodies_come_over_whole_in_both_framings() -> None:
    async with relay_and_app() as relay, visit(relay.http) as visitor:
        client = Client(visitor)
        chunked = [("transfer-encoding", "chunked")]
        for size, headers in ((1_000_000, None), (1_000_000, chunked), (0, chunked)):
            body = [bytes(size // 10)] * 10 if size else []
            status, answer = await client.ask(
                "web.example.org",
                method="POST",
                body=body,
                headers=headers or [("content-length", str(size))],
            )
            assert (status, answer.split()[-1]) == (200, b"%d." % size)


async def test_a_kept_connection_changes_hosts() -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running_relay(http=f"{HOST}:0"))
        for tunnel, word in ((WEB, b"web"), (OTHER, b"other")):
            behind = await stack.enter_async_context(service(plain(word)))
            await stack.enter_async_context(exposed(relay, {tunnel: behind}))
        client = Client(await stack.enter_async_context(visit(relay.http)))
        for name in ("web", "other", "web"):
            assert await client.ask(f"{name}.example.org") == (200, name.encode())
        assert (await client.ask("nobody.example.org"))[0] == 502
        assert await client.ask("other.example.org") == (200, b"other")


async def test_what_the_visitor_says_of_himself_is_not_passed_on() -> None:
    heads: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some()))
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with service(note) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
            lies = [
                "X-Forwarded-For: 192.0.2.1",
                "Forwarded: for=192.0.2.1",
                "X-Real-IP: 192.0.2.1",
                "X_Forwarded_For: 192.0.2.1",
                "X-Forwarded_For: 192.0.2.1",
            ]
            hop = [
                "Connection: keep-alive, X-Secret",
                "X-Secret: 1",
                "Keep-Alive: 5",
                "TE: trailers",
            ]
            await visitor.send_all(get("web.example.org", "/", *lies, *hop, "X-Kept: yes"))
            assert b" 204 " in await visitor.receive_some()
    words = heads[0].lower().decode()
    assert "192.0.2.1" not in words
    assert "secret" not in words
    assert "keep-alive" not in words
    assert f"x-forwarded-for: {HOST}\r\n" in words
    assert "x-forwarded-proto: http\r\n" in words
    assert "x-kept: yes" in words
    assert "connection: close" in words


async def test_a_websocket_goes_through() -> None:
    wsproto = pytest.importorskip("wsproto")
    events = pytest.importorskip("wsproto.events")
    async with relay_and_app() as relay, visit(relay.http) as visitor:
        websocket = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        await visitor.send_all(websocket.send(events.Request(host="web.example.org", target="/")))
        heard: list[Any] = []

        async def hear(kind: Any) -> Any:
            while not any(isinstance(event, kind) for event in heard):
                data = await visitor.receive_some()
                websocket.receive_data(bytes(data) if data else None)
                heard.extend(websocket.events())
            return next(event for event in heard if isinstance(event, kind))

        await hear(events.AcceptConnection)
        await visitor.send_all(websocket.send(events.TextMessage("hello")))
        assert (await hear(events.TextMessage)).data == "olleh"
        await visitor.send_all(websocket.send(events.CloseConnection(code=1000)))
        assert (await hear(events.CloseConnection)).code == 1000


# ---- what is refused, and why


async def test_pages_say_why() -> None:
    nobody = AddressService(HOST, free_port())
    async with service(plain(b"x")) as behind:
        async with running_relay(http=f"{HOST}:0", agent_patience=1) as relay:
            port = relay.http
            async with exposed(relay, {WEB: nobody, OTHER: behind}), visit(port) as visitor:
                client = Client(visitor)
                status, body = await client.ask("<b>nobody</b>")
                assert status == 502
                assert b"no such tunnel" in body
                assert b"<b>" not in body
                status, body = await client.ask("web.example.org")
                assert status == 502
                assert b"refused" in body
                assert (await client.ask("other.example.org"))[0] == 200
            await until(lambda: not relay.relay.registry.agents)
            async with visit(port) as visitor:
                status, body = await Client(visitor).ask("other.example.org")
                assert status == 502
                assert b"agent is gone" in body


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (b"GET http://web.example.org/ HTTP/1.1\r\nHost: web.example.org\r\n\r\n", b"400"),
        (b"CONNECT web.example.org:80 HTTP/1.1\r\nHost: web.example.org\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_request_for_a_host(request_bytes: bytes, status: bytes) -> None:
    async with relay_and_app() as relay:
        answer = await ask(relay.http, request_bytes)
        assert answer.split()[1].startswith(status[:2]), answer
        assert not relay.ended.is_set()


async def test_a_service_that_ends_without_an_answer() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with service(hang_up) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
            status, body = await Client(visitor).ask("web.example.org")
            assert status == 502
            assert b"ended without an answer" in body


async def test_a_service_that_does_not_answer() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with service(silent) as behind:
        async with running_relay(http=f"{HOST}:0", idle_timeout=0.2) as relay:
            async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
                assert (await Client(visitor).ask("web.example.org"))[0] == 504


@pytest.mark.parametrize("length", [True, False])
async def test_half_an_answer_is_never_taken_for_the_whole(length: bool) -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        framing = b"Content-Length: 100\r\n" if length else b""
        await stream.send_all(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\nhalf")
        await trio.sleep(0.05)
        reset_on_close(stream)

    async with service(half) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
            await visitor.send_all(b"GET / HTTP/1.0\r\nHost: web.example.org\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                while await visitor.receive_some():
                    pass


async def test_a_visitor_that_leaves_ends_his_request() -> None:
    silent = Silent()
    async with service(silent) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            async with visit(relay.http) as visitor:
                await visitor.send_all(get("web.example.org"))
                await until(lambda: relay.relay.counts.running["web"] == 1)
                await trio.sleep(0.05)
                reset_on_close(visitor)
            await silent.visitor_left.wait()
            await until(lambda: relay.relay.counts.running["web"] == 0)


# ---- stopping


async def test_a_relay_that_stops_answers_what_runs_and_closes_what_is_kept() -> None:
    asked, go_on = trio.Event(), trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        asked.set()
        await go_on.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(service(slow))
        relay = await stack.enter_async_context(running_relay(http=f"{HOST}:0", cancel=False))
        await stack.enter_async_context(exposed(relay, {WEB: behind}))
        idle = await stack.enter_async_context(visit(relay.http))
        assert (await Client(idle).ask("nobody.example.org"))[0] == 502
        busy = Client(await stack.enter_async_context(visit(relay.http)))
        await busy.stream.send_all(get("web.example.org"))
        await asked.wait()
        relay.stop.set()
        await trio.sleep(0.1)
        # A request that crosses with the stop is answered, too.
        assert (await Client(idle).ask("nobody.example.org"))[0] == 502
        go_on.set()
        busy.connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        busy.connection.send(h11.EndOfMessage())
        assert await busy.receive() == (200, b"done")
        assert busy.headers[b"connection"] == b"close"
        await relay.ended.wait()


# ---- TLS, and HTTP/2


@pytest.mark.parametrize("http2", [False, True])
async def test_over_tls_with_either_version(
    http2: bool, tls_files: Path, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with https(tls_files) as relay, exposed(relay, {WEB: AsgiService(scope_app)}):
        port = relay.https
        resolving(monkeypatch, port)
        async with httpx.AsyncClient(timeout=None, verify=client_context, http2=http2) as client:
            answers: list[httpx.Response] = []

            async def fetch(number: int) -> None:
                content = bytes(number * 20_000)
                answers.append(
                    await client.post(f"https://web.example.org/{number}", content=content)
                )

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(fetch, number)
            assert {answer.http_version for answer in answers} == {
                "HTTP/2" if http2 else "HTTP/1.1"
            }
            said = sorted(answer.text for answer in answers)
            assert said == sorted(
                f"POST /{n} https web.example.org {HOST} {n * 20_000}." for n in range(20)
            )


async def test_certificates_are_read_again(
    authority: Any, tls_files: Path, client_context: ssl.SSLContext
) -> None:
    async with https(tls_files) as relay:

        async def names() -> Any:
            tcp = await trio.open_tcp_stream(HOST, relay.https)
            stream = trio.SSLStream(tcp, client_context, server_hostname="web.example.org")
            await stream.do_handshake()
            found = stream.getpeercert()["subjectAltName"]
            await trio.aclose_forcefully(stream)
            return found

        before = await names()
        certificate = authority.issue_cert("web.example.org", "new.example.org")
        certificate.private_key_and_cert_chain_pem.write_to_path(tls_files)
        assert await names() == before
        relay.relay.reload_certificates()
        after = await names()
        assert ("DNS", "new.example.org") in after
        await trio.Path(tls_files).write_text("nonsense")
        with pytest.raises(OSError, match=r"PEM|SSL"):
            relay.relay.reload_certificates()
        assert await names() == after


def test_nobody_is_asked_for_the_passphrase_of_a_key(
    authority: Any, tls_files: Path, tmp_path: Path
) -> None:
    """OpenSSL would ask on the terminal, and the relay would wait for that."""
    chain, key = tmp_path / "public.pem", tmp_path / "key.pem"
    issued = authority.issue_cert("web.example.org")
    chain.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    plain = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encrypted = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    key.write_bytes(encrypted)
    for make in (partial(ServerTls, chain, key), partial(ClientTls, certificate=chain, key=key)):
        with pytest.raises(OSError, match=r"the key in .*key\.pem is encrypted"):
            make()
    tls = ServerTls(tls_files)
    before = tls.context
    tls_files.write_bytes(encrypted + chain.read_bytes())
    with pytest.raises(OSError, match="is encrypted"):
        tls.reload()
    assert tls.context is before


async def test_agents_show_a_certificate_where_the_relay_asks_for_one(
    authority: Any,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    tmp_path: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chain, ca = tmp_path / "chain.pem", tmp_path / "ca.pem"
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(chain)
    authority.cert_pem.write_to_path(ca)
    tls = ServerTls(chain, client_ca=ca)
    async with service(plain(b"x")) as behind, running_relay(agents_tls=tls) as relay:
        tcp = Tunnel(name="tcp", port=0)
        with caplog.at_level(logging.INFO):
            async with exposed(
                relay, {tcp: behind}, wait=False, ssl_context=client_context
            ) as agent:
                await agent.wait_for("lost")
        assert any("did not return a certificate" in line for line in caplog.messages)
        authority.issue_cert("agent.example.org").configure_cert(client_context)
        async with exposed(relay, {tcp: behind}, ssl_context=client_context) as agent:
            assert b" 200 " in await ask(agent.port(), get("x"))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(300), b"\x16\x03\x01\xff"])
async def test_garbage_for_the_port_of_https_is_one_line(
    garbage: bytes, tls_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with https(tls_files) as relay:
        with caplog.at_level(logging.INFO, "trio_muxado"):
            with suppress(trio.BrokenResourceError):
                await ask(relay.https, garbage)
            await until(lambda: caplog.messages)
        assert len(caplog.messages) == 1
        assert "the TLS handshake with 127.0.0.1" in caplog.messages[0]
        assert not relay.ended.is_set()


async def test_a_visitor_of_tls_who_says_nothing_gets_no_slot_for_ever(
    tls_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_muxado.tunnel._visitors.HEADER_TIMEOUT", 0.1)
    async with https(tls_files) as relay, visit(relay.https) as visitor:
        with pytest.raises(trio.BrokenResourceError):
            await visitor.receive_some()


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("what", ["handshake", "header", "header of HTTP"])
async def test_a_visitor_who_says_nothing_does_not_hold_up_a_stop(
    what: str, accepted: bool, tls_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not he was accepted before."""
    monkeypatch.setattr("trio_muxado.tunnel._visitors.HEADER_TIMEOUT", 10 * PATIENCE)
    monkeypatch.setattr("trio_muxado.tunnel._visitors.GRACE", 0.1)
    has_header = what != "handshake"
    async with https(
        tls_files, http=f"{HOST}:0", accept_proxy_protocol=has_header, drain_timeout=5 * PATIENCE
    ) as relay:
        nobody = {TCP: AddressService(HOST, free_port())}
        async with exposed(relay, nobody) as agent:
            ports = {"handshake": relay.https, "header": agent.port(), "header of HTTP": relay.http}
            with socket.create_connection((HOST, ports[what])):
                if accepted:
                    await wait_all_tasks_blocked()
                relay.stop.set()
                await relay.ended.wait()


async def test_a_slow_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_muxado.tunnel._http1.HEAD_TIMEOUT", 0.1)
    async with relay_and_app() as relay, visit(relay.http) as visitor:
        await visitor.send_all(b"GET / HTTP/1.1\r\nHost: web.exam")
        assert await visitor.receive_some() == b""
