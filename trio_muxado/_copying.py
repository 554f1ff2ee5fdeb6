"""Receiving from one stream to send on another, in as few steps as the two allow.

A loop that copies owes one checkpoint in each round, and that of receiving is enough.  trio's
methods have one each, and try to receive before they wait: mostly in vain, where a message has just
been answered.  So a socket is waited for first, and sent on at once, and a stream of a session is
given what its send buffer has room for.  Streams of other kinds keep their own methods, and so do
classes derived from these, which may change what is copied.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias, TypeGuard

import trio
from trio.lowlevel import wait_readable

from . import _stream_steps as stream_steps
from ._stream import MuxadoStream

Chunk: TypeAlias = "bytes | bytearray"
Receive: TypeAlias = "Callable[[], Awaitable[Chunk]]"
SendNow: TypeAlias = "Callable[[Chunk], Chunk | memoryview]"

RECEIVE_SIZE = 64 * 1024
"""Bytes asked of a socket at a time, as trio does."""

_CLOSED = "this socket was already closed"


def receive_on(stream: trio.abc.ReceiveStream, max_bytes: int | None) -> Receive:
    """What waits for the next bytes of ``stream``, as its ``receive_some`` does."""
    if _is_socket(stream):
        return partial(_receive_on_socket, stream.socket, max_bytes or RECEIVE_SIZE)
    return partial(stream.receive_some, max_bytes)


def send_now_on(stream: trio.abc.SendStream) -> SendNow:
    """What sends as much as ``stream`` takes at once, without a checkpoint.

    It returns the rest, which is for ``send_all``.
    """
    if _is_socket(stream) and not stream.socket.did_shutdown_SHUT_WR:
        return partial(_send_on_socket, stream.socket)
    if type(stream) is MuxadoStream:
        return partial(stream_steps.send_now, stream)
    return _send_nothing


async def end_on(stream: trio.abc.HalfCloseableStream) -> None:
    """What ``send_eof`` does, for whoever has just been through a checkpoint."""
    if _is_socket(stream) and not stream.socket.did_shutdown_SHUT_WR:
        try:
            stream.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _error_of(error) from error
    elif type(stream) is not MuxadoStream or not stream_steps.end_now(stream):
        await stream.send_eof()


async def close(stream: trio.abc.AsyncResource) -> None:
    """What ``aclose`` does, for whoever has just been through a checkpoint."""
    if _is_socket(stream):
        stream.socket.close()
    elif type(stream) is MuxadoStream:
        stream_steps.close_now(stream)
    else:
        await stream.aclose()


def receive_waiting(stream: trio.abc.ReceiveStream, max_bytes: int) -> bytes:
    """What waits already in a stream of a session, without a checkpoint; else nothing."""
    if type(stream) is not MuxadoStream:
        return b""
    return stream_steps.receive_waiting(stream, max_bytes)


def has_ended(stream: trio.abc.ReceiveStream) -> bool:
    """Whether it is known to have nothing but its end for ``receive_some``, which needs no wait."""
    return type(stream) is MuxadoStream and stream_steps.has_ended(stream)


def _is_socket(stream: object) -> TypeGuard[trio.SocketStream]:
    return type(stream) is trio.SocketStream and sys.platform != "win32"


async def _receive_on_socket(sock: trio.socket.SocketType, max_bytes: int) -> bytes:
    if sock.fileno() < 0:
        raise trio.ClosedResourceError(_CLOSED)
    try:
        while True:
            await wait_readable(sock)
            try:
                return os.read(sock.fileno(), max_bytes)
            except BlockingIOError:
                continue
    except OSError as error:
        raise _error_of(error) from error


def _send_on_socket(sock: trio.socket.SocketType, data: Chunk) -> Chunk | memoryview:
    try:
        sent = os.write(sock.fileno(), data)
    except BlockingIOError:
        return data
    except OSError as error:
        raise _error_of(error) from error
    return b"" if sent == len(data) else memoryview(data)[sent:]


def _error_of(error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    """What trio makes of it."""
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError(_CLOSED)
    return trio.BrokenResourceError(f"socket connection broken: {error}")


def _send_nothing(data: Chunk) -> Chunk:
    return data
