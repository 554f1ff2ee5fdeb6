"""Connecting and listening by TCP."""

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado._tcp import _family_of, connect_tcp, listen_tcp

from .helpers import cancel_at_checkpoint, outcome_of


async def test_one_free_port_for_all_addresses_of_the_machine() -> None:
    listeners = await listen_tcp(0, host=None, backlog=None)
    (port,) = {listener.socket.getsockname()[1] for listener in listeners}
    for listener in listeners:
        address = listener.socket.getsockname()[0]
        host = "::1" if ":" in address else "127.0.0.1"
        stream = await connect_tcp(host, port)
        await stream.aclose()
        await listener.aclose()


async def test_a_port_that_one_family_has_lost_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    open_listeners = trio.open_tcp_listeners

    async def open_tcp_listeners(port: int, **options: object) -> list[trio.SocketListener]:
        calls.append(port)
        if len(calls) == 2:
            raise OSError("taken meanwhile")
        return await open_listeners(port, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    listeners = await listen_tcp(0, host=None, backlog=None)
    assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1
    assert len(listeners) == 1 or calls[0] == calls[2] == 0
    for listener in listeners:
        await listener.aclose()


async def test_a_name_of_letters_that_dns_does_not_allow_is_unknown() -> None:
    """That shows only when it is looked up, and so it is like any other that nobody has."""
    name = "\N{ARABIC-INDIC DIGIT ONE}.example"
    with pytest.raises(socket.gaierror):
        await connect_tcp(name, 5)
    with pytest.raises(socket.gaierror):
        await listen_tcp(0, host=name, backlog=None)


@pytest.mark.parametrize("host", ["127.0.0.1", b"127.0.0.1", "localhost"])
async def test_an_address_and_a_name(host: str | bytes) -> None:
    (listener,) = await listen_tcp(0, host="127.0.0.1", backlog=None)
    async with listener:
        port = listener.socket.getsockname()[1]
        async with await connect_tcp(host, port) as near, await listener.accept() as far:
            await near.send_all(b"x")
            assert await far.receive_some() == b"x"
    with pytest.raises(OSError, match=r"refused|all attempts"):
        await connect_tcp(host, port)


async def test_a_cancelled_search_for_a_port_leaves_none_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[trio.SocketListener] = []
    open_listeners = trio.open_tcp_listeners

    async def open_tcp_listeners(port: int, **options: object) -> list[trio.SocketListener]:
        for _ in range(2):  # as where the families get ports of their own
            opened.extend(await open_listeners(port, host="127.0.0.1"))
        scope.cancel()
        return opened[-2:]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    with trio.CancelScope() as scope:
        await listen_tcp(0, host=None, backlog=None)
    assert scope.cancelled_caught
    assert {listener.socket.fileno() for listener in opened} == {-1}


@pytest.mark.parametrize(
    "host, family",
    [
        ("127.0.0.1", socket.AF_INET),
        (b"10.1.2.3", socket.AF_INET),
        ("::1", socket.AF_INET6),
        (b"fe80::1", socket.AF_INET6),
        ("localhost", None),
        ("127.1", None),  # what inet_aton takes, and getaddrinfo
        ("1.2.3.4.example", None),
        ("fe80::1%lo", None),  # getaddrinfo finds the interface
        ("\N{FULLWIDTH DIGIT ONE}27.0.0.1", None),
        ("a\0b", None),
    ],
)
def test_only_an_address_needs_no_look_up(
    host: str | bytes, family: socket.AddressFamily | None
) -> None:
    assert _family_of(host) is family


async def test_a_connection_that_is_cancelled_while_it_is_made_breaks() -> None:
    """The system may have made it already, and an end would say that it is complete."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    made: list[trio.SocketStream] = []
    ends: list[object] = []

    async def accept() -> None:
        while True:
            async with await listener.accept() as stream:
                ends.append(await outcome_of(stream.receive_some))

    async def connect() -> None:
        made.append(await connect_tcp("127.0.0.1", port))

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        for number in range(10):
            ends.clear()
            if not await cancel_at_checkpoint(number, connect):
                break
            await wait_all_tasks_blocked(0.01)
            assert all(isinstance(end, trio.BrokenResourceError) for end in ends), number
        (stream,) = made
        await stream.aclose()
        await wait_all_tasks_blocked(0.01)
        assert number > 0
        assert ends == [b""]
        nursery.cancel_scope.cancel()
