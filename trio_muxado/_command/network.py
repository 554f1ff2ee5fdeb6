"""Connections, whose failures say which address they are about."""

from __future__ import annotations

import ssl

import trio

from trio_muxado._tcp import connect_tcp, listen_tcp

from .ending import Failed, in_words
from .options import Address


async def connect(
    address: Address, ssl_context: ssl.SSLContext | None, timeout: float
) -> trio.abc.Stream:
    """Connect over TCP, or TLS where there is a context; in ``timeout`` seconds.

    Raises:
      Failed: there is no connection.
    """
    assert address.host is not None
    try:
        with trio.fail_after(timeout):
            tcp = await connect_tcp(address.host, address.port)
            return tcp if ssl_context is None else await _over_tls(tcp, ssl_context, address.host)
    except trio.TooSlowError:
        raise Failed(f"no connection to {address} within {timeout:g} s") from None
    except OSError as error:
        raise Failed(f"no connection to {address}: {in_words(error)}") from None
    except trio.BrokenResourceError as error:
        hint = "; does it speak TLS at all?" if _is_no_tls(error.__cause__) else ""
        raise Failed(f"no TLS with {address}: {in_words(error)}{hint}") from None


async def _over_tls(
    tcp: trio.SocketStream, ssl_context: ssl.SSLContext, host: str
) -> trio.abc.Stream:
    try:
        stream = trio.SSLStream(tcp, ssl_context, server_hostname=host)
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise
    return stream


def _is_no_tls(error: BaseException | None) -> bool:
    """What came was no TLS: an end, or other bytes."""
    # Pythons and options of a context differ in which of the first three an end is.
    return isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or (
        isinstance(error, ssl.SSLError)
        and error.reason
        in ("UNEXPECTED_EOF_WHILE_READING", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
    )


async def listen(address: Address) -> tuple[list[trio.SocketListener], Address]:
    """Listen; where, with the port that the system has chosen if it was to choose.

    Raises:
      Failed: the address is taken, or none of this machine.
    """
    try:
        listeners = await listen_tcp(address.port, host=address.host, backlog=None)
    except OSError as error:
        raise Failed(f"cannot listen on {address}: {in_words(error)}") from None
    return listeners, Address(address.host, listeners[0].socket.getsockname()[1])
