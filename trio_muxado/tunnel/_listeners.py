"""Listeners of a relay, several at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import trio

from ._names import parse_address


async def listen(addresses: Mapping[str, str | None]) -> dict[str, list[trio.SocketListener]]:
    """Listen at all of them, or at none."""
    opened: dict[str, list[trio.SocketListener]] = {}
    try:
        for name, address in addresses.items():
            if address is not None:
                host, port = parse_address(name, address)
                try:
                    opened[name] = await trio.open_tcp_listeners(port, host=host)
                except OSError as error:
                    error.filename = address  # which of them it is about
                    raise
    except BaseException:
        for listeners in opened.values():
            close_listeners(listeners)
        raise
    return opened


def close_listeners(listeners: Iterable[trio.SocketListener]) -> None:
    """Close all of them, which is no checkpoint: a cancellation there would leave out the next."""
    for listener in listeners:
        listener.socket.close()
