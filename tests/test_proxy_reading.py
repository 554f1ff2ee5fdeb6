"""Reading the PROXY protocol's header: what was written comes back, and nothing more is taken."""

from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import ProxyHeaderError, proxy_header, receive_proxy_header

from .helpers import V1, Turns, stream_pair

VERSIONS: tuple[Literal["v1"], Literal["v2"]] = ("v1", "v2")
addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


def read(data: bytes, piece: int) -> tuple[Any, bytes]:
    """What the header says, and what follows it, of bytes that come in pieces."""

    async def main() -> tuple[Any, bytes]:
        near, far = memory_stream_pair()
        pieces = [data[start : start + piece] for start in range(0, len(data), piece)]

        async def send() -> None:
            for each in pieces:
                await near.send_all(each)
            await near.send_eof()

        said: Any = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                said = await receive_proxy_header(far)
            except ProxyHeaderError as error:
                said = error
            rest = b"".join([bytes(chunk) async for chunk in far])
        return said, rest

    return trio.run(main)


def plain(address: tuple[str, int]) -> tuple[IPv4Address | IPv6Address, int]:
    """As it is compared: an IPv6 address may be one of IPv4 in other clothes."""
    host, port = address
    if ":" not in host:
        return IPv4Address(host), port
    ip = IPv6Address(host)
    return ip.ipv4_mapped or ip, port


@pytest.mark.parametrize("version", VERSIONS)
@given(client=addresses, server=addresses, piece=st.sampled_from([1, 3, 16, 1000]))
def test_what_was_written_comes_back(
    version: Literal["v1", "v2"], client: Any, server: Any, piece: int
) -> None:
    said, rest = read(proxy_header(version, client, server) + b"GET /", piece)
    assert rest == b"GET /"
    assert [plain(address) for address in said] == [plain(client), plain(server)]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_client_is_none(version: Literal["v1", "v2"]) -> None:
    assert read(proxy_header(version, None, None) + b"x", 5) == (None, b"x")


@given(data=st.binary(max_size=300), piece=st.sampled_from([1, 7, 1000]))
def test_whatever_comes_is_a_header_or_one_error_on_one_line(data: bytes, piece: int) -> None:
    said, _ = read(data, piece)
    if isinstance(said, ProxyHeaderError):  # else it is a header, which can be guessed
        assert str(said).isprintable()
    else:
        assert data.startswith((b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"))


@pytest.mark.parametrize("zone", ["eth0", "\n", "\x1b[2J", "\r", "a"])
def test_no_zone_brings_other_text_into_an_address(zone: str) -> None:
    """It would come out in logs, and in headers that are made of the address."""
    said, _ = read(f"PROXY TCP6 fe80::1%{zone} ::1 1 2\r\n".encode(), 1000)
    assert isinstance(said, ProxyHeaderError)


LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
"""Of a proxy that checks whether the service is there; no addresses follow."""


@pytest.mark.parametrize(
    "header", [LOCAL, *(proxy_header(v, ("::1", 7), ("::2", 8)) for v in VERSIONS)]
)
async def test_a_header_that_came_whole_takes_one_step(header: bytes) -> None:
    """Each visitor of a tunnel has one, and reads it in three parts at least."""

    async with stream_pair(V1, heartbeat=None) as (near, far):
        await near.send_all(header + b"GET /")
        await wait_all_tasks_blocked()
        turns = Turns(trio.lowlevel.current_task().name)
        trio.lowlevel.add_instrument(turns)
        addresses = await receive_proxy_header(far)
        trio.lowlevel.remove_instrument(turns)
        assert addresses == (None if header is LOCAL else (("::1", 7), ("::2", 8)))
        assert turns.count == 1
        assert await far.receive_some() == b"GET /"
