"""HTTP/2 with visitors: streams side by side, and peers that attack."""

import ssl
import tracemalloc
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import pytest
import trio
from trio.testing import memory_stream_pair

from trio_muxado.tunnel import AddressService, RelayConfig, RelayCounts
from trio_muxado.tunnel._http import HttpFront
from trio_muxado.tunnel._http2 import MOST_UNSENT, Http2Connection
from trio_muxado.tunnel._http2_request import Body
from trio_muxado.tunnel._registry import Registry
from trio_muxado.tunnel._routes import Routes
from trio_muxado.tunnel._upstream import Upstream
from trio_muxado.tunnel._visitors import Arrivals, Slots, Visitor

from ..helpers.ports import free_port
from ..helpers.transports import Gated
from .support import HOST, PATIENCE, exposed, reset_on_close, service, until
from .web import HEADERS, OTHER, WEB, https, plain, raw_http2, resolving


async def test_http2_to_a_host_that_the_connection_is_not_for(
    tls_files: Path, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(https(tls_files))
        for tunnel, word in ((WEB, b"web"), (OTHER, b"other")):
            behind = await stack.enter_async_context(service(plain(word)))
            await stack.enter_async_context(exposed(relay, {tunnel: behind}))
        resolving(monkeypatch, relay.https)
        client = httpx.AsyncClient(timeout=None, verify=client_context, http2=True)
        async with client:
            assert (await client.get("https://web.example.org")).text == "web"
            wrong = await client.get(
                "https://web.example.org", headers={"host": "other.example.org"}
            )
            assert wrong.status_code == 421
            assert (await client.get("https://other.example.org")).text == "other"


async def test_a_large_answer_and_a_slow_reader_over_http2(
    tls_files: Path, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 3_000_000

    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(https(tls_files))
        behind = await stack.enter_async_context(service(plain(bytes(size))))
        await stack.enter_async_context(exposed(relay, {WEB: behind}))
        resolving(monkeypatch, relay.https)
        async with httpx.AsyncClient(timeout=None, verify=client_context, http2=True) as client:
            received = 0
            async with client.stream("GET", "https://web.example.org") as response:
                async for chunk in response.aiter_bytes(100_000):
                    received += len(chunk)
                    # Another request is answered meanwhile.
                    if received == 100_000:
                        other = await client.get("https://web.example.org/nobody")
                        assert len(other.content) == size
            assert received == size


async def test_half_an_answer_over_http2_is_a_reset(
    tls_files: Path, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await trio.sleep(0.05)
        reset_on_close(stream)

    async with service(half) as behind, https(tls_files) as relay, exposed(relay, {WEB: behind}):
        resolving(monkeypatch, relay.https)
        async with httpx.AsyncClient(timeout=None, verify=client_context, http2=True) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("https://web.example.org")
            async with client.stream("GET", "https://web.example.org") as response:
                assert response.status_code == 200  # the connection lives on


# ---- visitors of HTTP/2 that attack


async def test_a_flood_of_resets_over_http2_ends_its_connection_alone(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass

    async with service(silent) as behind, https(tls_files) as relay, exposed(relay, {WEB: behind}):
        async with raw_http2(relay.https, client_context) as (stream, connection):

            async def flood() -> None:
                for number in range(100_000):
                    connection.send_headers(2 * number + 1, HEADERS, end_stream=True)
                    connection.reset_stream(2 * number + 1)
                    if number % 50 == 49:
                        await stream.send_all(connection.data_to_send())

            with pytest.raises(trio.BrokenResourceError):
                await flood()
        await until(lambda: relay.relay.counts.running["web"] == 0)
        assert not relay.ended.is_set()
        async with raw_http2(relay.https, client_context) as (stream, connection):
            connection.send_headers(1, [*HEADERS[:3], (":authority", "x")], end_stream=True)
            await stream.send_all(connection.data_to_send())
            events: list[Any] = []
            while not any(type(event).__name__ == "ResponseReceived" for event in events):
                events += connection.receive_data(bytes(await stream.receive_some()))


async def test_who_reads_no_answers_over_http2_is_cut_off() -> None:
    """What waits for him to read must not grow without end."""
    h2_connection = pytest.importorskip("h2.connection")
    near, far = memory_stream_pair()
    gated = Gated(far)
    gated.shut()
    options = RelayConfig()
    counts = RelayCounts()
    routes = Routes(options, Registry(options, counts.forget), counts)
    front = HttpFront(options, routes, counts, Slots(options, counts), Arrivals())
    visitor = Visitor(("192.0.2.1", 5), ("192.0.2.2", 443))
    connection = h2_connection.H2Connection()
    connection.initiate_connection()
    for _ in range(MOST_UNSENT + 1):
        connection.ping(b"12345678")
    await near.send_all(connection.data_to_send())
    with trio.fail_after(PATIENCE):
        await Http2Connection(front, gated, visitor, None).run()


# ---- what one stream does to the others


class Peer:
    """A visitor of HTTP/2, who says each frame by himself."""

    def __init__(self, stream: trio.abc.Stream, connection: h2.connection.H2Connection) -> None:
        self.stream = stream
        self.h2 = connection
        self._heard: list[Any] = []

    def begin(
        self, stream_id: int, *headers: tuple[str, str], end: bool = False, **pseudo: str | None
    ) -> None:
        """A request's head; a pseudo-header that is None is left out."""
        fields = [(name, pseudo.get(name[1:], value)) for name, value in HEADERS]
        said = [(name, value) for name, value in fields if value is not None]
        self.h2.send_headers(stream_id, [*said, *headers], end_stream=end)

    async def send(self) -> None:
        """All that was said."""
        await self.stream.send_all(self.h2.data_to_send())

    async def hear(self, kind: type, stream_id: int | None = None) -> Any:
        """The next event of a kind; what comes before it is passed over."""
        await self.send()
        while True:
            while self._heard:
                event = self._heard.pop(0)
                if isinstance(event, kind) and stream_id in (
                    None,
                    getattr(event, "stream_id", None),
                ):
                    return event
            data = bytes(await self.stream.receive_some())
            assert data, f"the connection has ended without a {kind}"
            self._heard += self.h2.receive_data(data)
            for event in self._heard:
                if isinstance(event, h2.events.DataReceived):
                    size = event.flow_controlled_length
                    self.h2.acknowledge_received_data(size, event.stream_id)

    async def status(self, stream_id: int) -> bytes:
        """Of the answer."""
        headers = (await self.hear(h2.events.ResponseReceived, stream_id)).headers
        return bytes(dict(headers)[b":status"])


@asynccontextmanager
async def peer(relay: Any, context: ssl.SSLContext) -> AsyncGenerator[Peer, None]:
    async with raw_http2(relay.https, context) as (stream, connection):
        connection.config.validate_outbound_headers = False
        connection.config.normalize_outbound_headers = False
        yield Peer(stream, connection)


@asynccontextmanager
async def answering(answer: bytes, *, at_once: bool = False) -> AsyncGenerator[Any, None]:
    """A service that answers once it has heard a whole request, or its head; and what it heard."""
    heard = bytearray()

    async def handle(stream: trio.SocketStream) -> None:
        before = len(heard)
        ends = (b"\r\n0\r\n\r\n",) if not at_once else (b"\r\n\r\n",)
        while not heard[before:].endswith(ends):
            heard.extend(await stream.receive_some())
        await stream.send_all(answer)
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass

    async with service(handle) as behind:
        yield behind, heard


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_request_for_the_head_alone_gets_no_body(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    async with https(tls_files) as relay, peer(relay, client_context) as visitor:
        visitor.begin(1, method="HEAD", authority="x", end=True)
        assert (await visitor.hear(h2.events.ResponseReceived)).stream_ended is not None


async def test_many_small_pieces_of_a_body(
    tls_files: Path, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a visitor may send who reads nothing: he is owed nothing."""
    monkeypatch.setattr("trio_muxado.tunnel._http2.MOST_UNSENT", 100)
    async with answering(OK) as (behind, heard), https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            visitor.begin(1, ("cookie", "a=1"), ("cookie", "b=2"), method="POST")
            for _ in range(300):
                visitor.h2.send_data(1, b"x")
                await visitor.send()
            visitor.h2.end_stream(1)
            assert await visitor.status(1) == b"200"
    assert b"cookie: a=1; b=2\r\n" in heard
    assert b"transfer-encoding: chunked\r\n" in heard


async def test_a_body_in_small_pieces_takes_no_more_memory_than_its_bytes() -> None:
    """A visitor may send them faster than a service reads, a window full for each request."""
    body = Body()
    tracemalloc.start()
    try:
        for number in range(50_000):
            body.put(b"%02d" % (number % 100))
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    body.end()
    assert await body.receive() == b"".join(b"%02d" % number for number in range(100)) * 500
    assert await body.receive() == b""


@pytest.mark.parametrize(
    "pseudo, headers, status",
    [
        ({"method": "G ET"}, [], b"400"),
        ({"method": "CONNECT", "path": None, "scheme": None}, [], b"400"),
        ({"path": "web.example.org:80"}, [], b"400"),
        ({"authority": None}, [("host", "web.example.org")], b"502"),
        ({"authority": "a b"}, [], b"421"),
    ],
)
async def test_what_http_1_cannot_say(
    pseudo: dict[str, str | None],
    headers: list[tuple[str, str]],
    status: bytes,
    tls_files: Path,
    client_context: ssl.SSLContext,
) -> None:
    nobody = AddressService(HOST, free_port())
    async with https(tls_files) as relay, exposed(relay, {WEB: nobody}):
        async with peer(relay, client_context) as visitor:
            visitor.begin(1, *headers, end=True, **pseudo)
            assert await visitor.status(1) == status
            visitor.begin(3, end=True)  # the others don't hear of it
            assert await visitor.status(3) == b"502"


@pytest.mark.parametrize("sent", [None, b"ab"])
@pytest.mark.parametrize("trailers", [False, True])
async def test_a_body_that_is_shorter_than_its_head_says_ends_its_request_alone(
    trailers: bool, sent: bytes | None, tls_files: Path, client_context: ssl.SSLContext
) -> None:
    """h2 does not count where the end comes with a head, or with trailers."""
    if sent and not trailers:
        return  # h2 counts that
    async with answering(OK, at_once=True) as (behind, _), https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            visitor.begin(1, ("content-length", "5"), method="POST", end=not trailers)
            if sent:
                visitor.h2.send_data(1, sent)
            if trailers:
                visitor.h2.send_headers(1, [("x-sum", "5")], end_stream=True)
            reset = await visitor.hear(h2.events.StreamReset, 1)
            assert reset.error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
            visitor.begin(3, end=True)  # the others don't hear of it
            assert await visitor.status(3) == b"200"


async def test_what_a_service_did_not_take_in_time_costs_the_others_no_window(
    tls_files: Path, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More uploads than the connection has window for, each reset while nothing takes it."""
    uploads: dict[Upstream, trio.Event] = {}
    stuck: set[Upstream] = set()

    async def send(upstream: Upstream, event: Any) -> None:
        if upstream not in uploads:  # a first piece, with which nothing waits yet
            uploads[upstream] = trio.Event()
            await uploads[upstream].wait()
        else:
            stuck.add(upstream)
            await trio.sleep_forever()

    monkeypatch.setattr(Upstream, "send", send)
    async with answering(OK) as (behind, _), https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            await visitor.hear(h2.events.RemoteSettingsChanged)
            for number in range(8):
                stream_id = 2 * number + 1
                visitor.begin(stream_id, method="POST")
                for _ in range(50):
                    while visitor.h2.local_flow_control_window(stream_id) < 16_000:
                        await visitor.hear(h2.events.WindowUpdated)
                    visitor.h2.send_data(stream_id, bytes(16_000))
                visitor.h2.ping(b"all sent")
                await visitor.hear(h2.events.PingAckReceived)
                await until(partial(_has_more, uploads, number))
                list(uploads.values())[-1].set()
                await until(partial(_has_more, stuck, number))
                visitor.h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)


def _has_more(found: Collection[Upstream], than: int) -> bool:
    return len(found) > than


async def test_what_comes_before_and_behind_an_answer(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    answer += b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer += b"4\r\nbody\r\n0\r\nX-Sum: 5\r\n\r\n"
    async with answering(answer, at_once=True) as (behind, _), https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            visitor.begin(1, end=True)
            await visitor.hear(h2.events.InformationalResponseReceived)
            assert await visitor.status(1) == b"200"
            trailers = await visitor.hear(h2.events.TrailersReceived)
            assert trailers.headers == [(b"x-sum", b"5")]


async def test_an_answer_before_the_body_is_whole(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    """The rest need not come, and what has come is not kept from other streams."""
    async with answering(OK, at_once=True) as (behind, _), https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            for stream_id in range(1, 21, 2):
                visitor.begin(stream_id, method="POST")
                visitor.h2.send_data(stream_id, bytes(10_000), pad_length=10)
                assert await visitor.status(stream_id) == b"200"
                visitor.h2.send_data(stream_id, bytes(10_000))  # crosses with the reset
                reset = await visitor.hear(h2.events.StreamReset, stream_id)
                assert reset.error_code == h2.errors.ErrorCodes.NO_ERROR


async def test_a_visitor_who_resets_one_answer(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    gone = trio.Event()

    async def pour(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await stream.send_all(bytes(100_000))
        finally:
            gone.set()

    async with service(pour) as behind, https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            visitor.begin(1, end=True)
            await visitor.hear(h2.events.DataReceived, 1)
            visitor.h2.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
            visitor.begin(3, authority="x", end=True)
            assert await visitor.status(3) == b"421"
            await gone.wait()


async def test_windows_that_the_visitor_changes(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + bytes(50)
    async with answering(answer, at_once=True) as (behind, _), https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
            visitor.h2.update_settings({code: 10})
            visitor.begin(1, end=True)
            assert len((await visitor.hear(h2.events.DataReceived)).data) == 10
            visitor.h2.increment_flow_control_window(15, 1)
            received = 10
            while received < 25:
                received += len((await visitor.hear(h2.events.DataReceived)).data)
            visitor.h2.update_settings({code: 1000})
            while received < 50:
                received += len((await visitor.hear(h2.events.DataReceived)).data)


# ---- ends


@pytest.mark.parametrize("begun", [False, True])
async def test_a_service_that_falls_silent(
    begun: bool, tls_files: Path, client_context: ssl.SSLContext
) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nhalf" if begun else b""
    async with answering(answer, at_once=True) as (behind, _):
        async with https(tls_files, idle_timeout=0.2) as relay:
            async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
                visitor.begin(1, end=True)
                assert await visitor.status(1) == (b"200" if begun else b"504")
                if begun:
                    await visitor.hear(h2.events.StreamReset)


async def test_a_service_that_ends_without_an_answer_to_http2(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with service(hang_up) as behind, https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            visitor.begin(1, end=True)
            assert await visitor.status(1) == b"502"


async def test_a_visitor_that_breaks_the_protocol_hears_why(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    async with https(tls_files) as relay, peer(relay, client_context) as visitor:
        await visitor.stream.send_all(b"\0\0\x01\0\0\0\0\0\0x")  # DATA on no stream
        ended = await visitor.hear(h2.events.ConnectionTerminated)
        assert ended.error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR


async def test_a_relay_that_stops_takes_no_further_streams(
    tls_files: Path, client_context: ssl.SSLContext
) -> None:
    go_on = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await go_on.wait()
        await stream.send_all(OK)

    async with service(slow) as behind, https(tls_files) as relay:
        async with exposed(relay, {WEB: behind}), peer(relay, client_context) as visitor:
            async with peer(relay, client_context) as idle:
                visitor.begin(1, end=True)
                await visitor.send()
                await until(lambda: relay.relay.counts.running["web"] == 1)
                relay.stop.set()
                await until(lambda: relay.relay.is_stopping)
                visitor.begin(3, end=True)
                refused = await visitor.hear(h2.events.StreamReset, 3)
                assert refused.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
                go_on.set()
                assert await visitor.status(1) == b"200"
                for each in (visitor, idle):
                    ended = await each.hear(h2.events.ConnectionTerminated)
                    assert ended.error_code == h2.errors.ErrorCodes.NO_ERROR
