"""Connecting and listening by TCP."""

import pytest
import trio

from trio_muxado._tcp import connect_tcp, listen_tcp


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
