"""HTTP/1.1 through a tunnel: what a visitor can't smuggle, and who may leave in the middle."""

import logging
import ssl
from contextlib import suppress
from typing import Any

import pytest
import trio

from trio_muxado.tunnel._http1 import PIPELINED

from .support import HOST, ask, exposed, reset_on_close, running_relay, service, until, visit
from .web import WEB, Client, Silent, get, https, relay_and_app

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Noting:
    """A service that notes what it hears, and answers always the same."""

    def __init__(self, answer: bytes = NO_CONTENT, end: bytes = b"\r\n\r\n") -> None:
        self.heard = b""
        self._answer = answer
        self._end = end

    async def __call__(self, stream: trio.SocketStream) -> None:
        heard = b""
        while not heard.endswith(self._end):
            heard += await stream.receive_some()
        self.heard = heard.lower()
        await stream.send_all(self._answer)


async def test_a_request_for_the_head_alone_gets_no_more() -> None:
    async with relay_and_app() as relay, visit(relay.http) as visitor:
        client = Client(visitor)
        for host, status in (("nobody.example.org", 502), (WEB.host, 200), ("again", 502)):
            assert await client.ask(str(host), method="HEAD") == (status, b"")


@pytest.mark.parametrize("named", ["Host", "Content-Length", "content-length, host"])
async def test_a_connection_header_removes_nothing_that_the_message_needs(named: str) -> None:
    note = Noting(end=b"body")
    async with service(note) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            lines = [f"Connection: {named}", "Content-Length: 4"]
            assert b" 204 " in await ask(relay.http, get(str(WEB.host), "/", *lines) + b"body")
    assert f"host: {WEB.host}\r\n".encode() in note.heard
    assert b"content-length: 4\r\n" in note.heard


async def test_chunks_stay_chunks_whatever_the_connection_header_says() -> None:
    note = Noting(end=b"0\r\n\r\n")
    async with service(note) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            lines = ["Connection: Transfer-Encoding", "Transfer-Encoding: chunked"]
            request = get(str(WEB.host), "/", *lines) + b"4\r\nbody\r\n0\r\n\r\n"
            assert b" 204 " in await ask(relay.http, request)
    assert b"transfer-encoding: chunked\r\n" in note.heard


@pytest.mark.parametrize("version, more", [("1.1", ["Content-Length: 5"]), ("1.0", [])])
async def test_nothing_is_taken_for_a_request_after_two_lengths(
    version: str, more: list[str]
) -> None:
    """Whoever is in front of the relay may have taken it for the first one's body."""
    async with relay_and_app() as relay:
        request = get(str(WEB.host), "/", "Transfer-Encoding: chunked", *more)
        request = request.replace(b"HTTP/1.1", f"HTTP/{version}".encode()) + b"0\r\n\r\n"
        answer = await ask(relay.http, request + get(str(WEB.host), "/smuggled"))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close\r\n" in answer.lower()
        assert answer.count(b"HTTP/1.1 ") == 1


async def test_trailers_say_nothing_of_the_message_or_the_visitor() -> None:
    note = Noting(end=b"x-sum: 5\r\n\r\n")
    async with service(note) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            trailers = (
                "X-Forwarded-For: 192.0.2.1\r\nX_Real_IP: 192.0.2.1\r\nHost: other\r\nX-Sum: 5\r\n"
            )
            request = get(str(WEB.host), "/", "Transfer-Encoding: chunked")
            assert b" 204 " in await ask(relay.http, request + f"0\r\n{trailers}\r\n".encode())
    assert note.heard.endswith(b"0\r\nx-sum: 5\r\n\r\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_trailers_of_an_answer_go_where_they_can(version: str) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 5\r\n\r\n"
    )
    async with service(Noting(answer)) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            request = get(str(WEB.host)).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
            answered = (await ask(relay.http, request)).lower()
    assert answered.startswith(b"http/1.1 200")
    assert b"body" in answered
    assert (b"x-sum: 5" in answered) == (version == "1.1")


@pytest.mark.parametrize(
    "asked, passed",
    [
        ("websocket, h2c", b"websocket"),
        ("H2C", None),
        ("h2c, websocket", b"websocket"),
        ("websocket\r\nUpgrade: other", b"websocket, other"),
        (",", None),
    ],
)
async def test_nobody_switches_to_http2_within_a_tunnel(asked: str, passed: bytes | None) -> None:
    note = Noting()
    async with service(note) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            lines = ["Connection: upgrade", f"Upgrade: {asked}"]
            assert b" 204 " in await ask(relay.http, get(str(WEB.host), "/", *lines))
    assert (b"upgrade: %b\r\n" % passed in note.heard) if passed else (b"upgrade" not in note.heard)


async def test_in_http_1_0_there_is_no_upgrade() -> None:
    """RFC 9110, 7.8: it is ignored.  The answer is the one to the request."""
    note = Noting()
    async with service(note) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            request = get(str(WEB.host), "/", "Connection: upgrade", "Upgrade: websocket")
            answer = await ask(relay.http, request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b" 204 " in answer
    assert b"upgrade" not in note.heard.lower()


async def test_whoever_asks_for_no_upgrade_gets_none() -> None:
    async with service(Noting(SWITCH)) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
            assert (await Client(visitor).ask(str(WEB.host)))[0] == 502


async def test_what_comes_with_an_upgrade_is_not_lost() -> None:
    """Neither what the visitor sends at once, nor what the service does."""

    async def switch(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(SWITCH + b"hello")
        assert await stream.receive_some(5) == b"early"
        assert await stream.receive_some() == b""
        await stream.send_all(b", and bye")

    async with service(switch) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            request = get(str(WEB.host), "/", "Connection: upgrade", "Upgrade: x")
            answer = await ask(relay.http, request + b"early")
            assert answer.startswith(b"HTTP/1.1 101")
            assert answer.endswith(b"\r\n\r\nhello, and bye")


@pytest.mark.parametrize("version, passed", [("1.1", True), ("1.0", False)])
async def test_answers_before_the_answer(version: str, passed: bool) -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    async with service(Noting(answer)) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            request = get(str(WEB.host)).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
            heard = await ask(relay.http, request)
    assert (b" 103 " in heard) == passed
    assert b" 204 " in heard


# ---- visitors that leave, or break the protocol


async def test_a_body_that_breaks_off_is_no_whole_one(caplog: pytest.LogCaptureFixture) -> None:
    heard = b""
    ended: list[bool] = []

    async def note(stream: trio.SocketStream) -> None:
        nonlocal heard
        try:
            while data := await stream.receive_some():
                heard += data
            ended.append(True)
        except trio.BrokenResourceError:
            ended.append(False)

    async with service(note) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            answer = await ask(relay.http, get(str(WEB.host), "/", "Content-Length: 9") + b"half")
            assert b" 400 " in answer
            await until(lambda: ended)
    assert ended == [False]


async def test_nonsense_in_the_middle_of_an_answer_breaks_it() -> None:
    begun = trio.Event()

    async def answer_at_once(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        begun.set()
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass

    async with service(answer_at_once) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
            await visitor.send_all(get(str(WEB.host), "/", "Transfer-Encoding: chunked"))
            assert b" 200 " in await visitor.receive_some()
            await visitor.send_all(b"no chunk at all\r\n")
            with pytest.raises(trio.BrokenResourceError):
                while await visitor.receive_some():
                    pass


async def test_a_visitor_that_leaves_in_the_middle_of_an_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def pour(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(bytes(100_000))

    async with service(pour) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}):
            async with visit(relay.http) as visitor:
                await visitor.send_all(get(str(WEB.host)))
                await visitor.receive_some()
                reset_on_close(visitor)
            await until(lambda: relay.relay.counts.running["web"] == 0)
        assert not [each for each in caplog.records if each.levelno > logging.INFO]


async def test_a_visitor_of_tls_that_leaves_ends_his_request(
    tls_files: Any, client_context: ssl.SSLContext
) -> None:
    silent = Silent()
    async with service(silent) as behind, https(tls_files) as relay, exposed(relay, {WEB: behind}):
        async with visit(relay.https) as tcp:
            client_context.set_alpn_protocols(["http/1.1"])
            visitor = trio.SSLStream(tcp, client_context, server_hostname=WEB.host)
            await visitor.send_all(get(str(WEB.host)))
            await until(lambda: relay.relay.counts.running["web"] == 1)
        await silent.visitor_left.wait()


async def test_a_visitor_sends_so_much_ahead_of_his_answer() -> None:
    go_on = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await go_on.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    async with service(slow) as behind, running_relay(http=f"{HOST}:0") as relay:
        async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
            await visitor.send_all(get(str(WEB.host)) + b"\r\n" * PIPELINED)
            await until(lambda: relay.relay.counts.running["web"] == 1)
            go_on.set()
            assert b" 200 " in await visitor.receive_some()


async def test_a_service_that_falls_silent_in_the_middle() -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await trio.sleep_forever()

    async with service(half) as behind:
        async with running_relay(http=f"{HOST}:0", idle_timeout=0.2) as relay:
            async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
                await visitor.send_all(get(str(WEB.host)))
                with pytest.raises(trio.BrokenResourceError):
                    while await visitor.receive_some():
                        pass


async def test_a_service_that_speaks_no_http() -> None:
    async with service(Noting(b"SSH-2.0-OpenSSH\r\n\r\n")) as behind:
        async with running_relay(http=f"{HOST}:0") as relay:
            async with exposed(relay, {WEB: behind}), visit(relay.http) as visitor:
                assert (await Client(visitor).ask(str(WEB.host)))[0] == 502


async def test_a_kept_connection_waits_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_muxado.tunnel._http1.IDLE_TIMEOUT", 0.05)
    async with running_relay(http=f"{HOST}:0") as relay, visit(relay.http) as visitor:
        assert await visitor.receive_some() == b""


async def test_more_visitors_than_there_may_be_over_http() -> None:
    async with running_relay(http=f"{HOST}:0", max_visitors=1) as relay:
        async with visit(relay.http) as first:
            assert (await Client(first).ask("nobody"))[0] == 502
            with pytest.raises((trio.BrokenResourceError, OSError)):
                await ask(relay.http, get("nobody"))


async def test_no_visitor_without_the_header_of_a_balancer() -> None:
    async with running_relay(http=f"{HOST}:0", accept_proxy_protocol=True) as relay:
        with pytest.raises((trio.BrokenResourceError, OSError)):
            await ask(relay.http, get("nobody"))
        await ask(relay.http, b"PROXY UNKNOWN\r\n" + get("nobody"))
