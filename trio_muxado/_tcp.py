"""TCP connections, to a name or straight to an address."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache

import trio

from ._checks import check_host, check_port

_LINGER_FORMAT = "hh" if sys.platform == "win32" else "ii"

LINGER_FOR_NO_TIME = struct.pack(_LINGER_FORMAT, 1, 0)
"""A ``struct linger``: what closes a TCP socket by RST."""

_LINGER = struct.pack(_LINGER_FORMAT, 0, 0)
"""That of a socket that nobody has changed."""

ATTEMPTS = 10
"""How often to look for a port that is free for all families."""


async def connect_tcp(host: str | bytes, port: int) -> trio.SocketStream:
    """Connect to ``host``, which is a name or an address.

    A name's addresses are tried as by :func:`trio.open_tcp_stream`.  An address needs neither its
    nursery nor its timers, so a short session costs less.  It sets no timeout; the system's own are
    minutes.

    Raises:
      OSError: no connection could be made.
      TypeError, ValueError: a wrong argument.
    """
    check_host(host)
    check_port(port)
    return await connect_checked(host, port)


async def connect_checked(host: str | bytes, port: int) -> trio.SocketStream:
    """What :func:`connect_tcp` does, where the arguments have been checked."""
    family = _family_of(host)
    if family is None:
        with _unknown_where_no_name():
            return await trio.open_tcp_stream(host, port)
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        # Where this is cancelled although there is a connection, an end of it would say that it is
        # complete.  trio closes the socket itself then, so that has to break it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_FOR_NO_TIME)
        await sock.connect((host, port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


@lru_cache(maxsize=256)  # a relay's agent connects to a few addresses, again and again
def _family_of(host: str | bytes) -> socket.AddressFamily | None:
    """That of an address; None for a name."""
    text = host.decode("ascii") if isinstance(host, bytes) else host
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):  # no such address; a character that no host has
            continue
        return family
    return None


async def listen_tcp(
    port: int, *, host: str | bytes | None, backlog: int | None
) -> list[trio.SocketListener]:
    """Listen as :func:`trio.open_tcp_listeners` does, but with one port for all addresses.

    Where ``port`` is 0, trio lets the system choose one for each family.  Whoever is told the first
    listener's port must reach the server by the other family as well.

    Raises:
      OSError: the port could not be bound.
    """
    for attempt in range(ATTEMPTS):
        with _unknown_where_no_name():
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
        ports = {listener.socket.getsockname()[1] for listener in listeners}
        if len(ports) == 1:
            return listeners
        for listener in listeners:
            listener.socket.close()  # a checkpoint would leave out the next
        try:
            return await trio.open_tcp_listeners(min(ports), host=host, backlog=backlog)
        except OSError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _unknown_where_no_name() -> Generator[None, None, None]:
    """A name of letters that DNS does not allow has no address; ``check_host`` lets it through."""
    try:
        yield
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, f"Name not known: {error}") from None
