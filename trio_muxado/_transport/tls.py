"""TLS as trio has it, with as much as there is in each read.

General theory of operation
---------------------------

OpenSSL decrypts one record of at most 16 KiB in each call, and :class:`trio.SSLStream` lets other
tasks run after each, and takes at most 64 KiB of a socket at a time.  In bulk that is five turns of
trio's loop for 64 KiB.  So the object that decrypts for it, its ``SSLObject``, is wrapped here: a
read goes on while there are whole records, and in bulk while the socket has more for it.

The rest stays with ``SSLStream``: the handshake, sending, waiting, errors and the end.  It decrypts
in one synchronous step, so nothing can come between, and a cancellation cannot either.
"""

from __future__ import annotations

import os
import ssl
from typing import Any, cast

import trio

RECORD = 16 * 1024
"""Bytes of plaintext that a record has at most (RFC 8446, 5.1)."""

REFILL = 64 * 1024
"""Bytes to take of a socket at a time, which is also what trio asks for.  Where that much comes
there mostly is more.  Larger refills gain nothing: what is decrypted at once stays in the
processor's cache."""

AT_ONCE = 64
"""Records in a read, at most: four times as many as 256 KiB need.  Small ones cost much for their
bytes, and others have their turn after each read."""


def with_long_reads(context: ssl.SSLContext) -> ssl.SSLContext:
    """What :class:`trio.SSLStream` takes for ``context``, so that a read is many records."""
    # Of a context it calls ``wrap_bio`` alone, and the caller's own stays as it is.
    return cast("ssl.SSLContext", _Context(context))


def read_ahead(transport: trio.abc.Stream, buffer: memoryview) -> None:
    """Let reads of ``transport`` take what its socket has, through ``buffer``.

    That is TLS with long reads; others are left as they are.  One task alone receives from it.
    """
    # SSLStream shows its object's methods.
    records = getattr(getattr(transport, "pending", None), "__self__", None)
    below = getattr(transport, "transport_stream", None)
    if isinstance(records, ManyRecords) and type(below) is trio.SocketStream:
        records.take_from(below.socket, buffer[:REFILL])


class _Context:
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any
    ) -> ManyRecords:
        return ManyRecords(self._context.wrap_bio(incoming, outgoing, **options), incoming)


class ManyRecords:
    """An :class:`ssl.SSLObject` but for ``read``, which takes all records that are whole.

    Args:
      inner: it decrypts what is in ``incoming``.
    """

    _inner: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _socket: trio.socket.SocketType | None
    _buffer: memoryview
    _bulk: bool  # the socket may have more
    _failure: Exception | None  # for the next call

    def __init__(self, inner: ssl.SSLObject, incoming: ssl.MemoryBIO) -> None:
        # Past ``__setattr__``.
        vars(self).update(
            _inner=inner, _incoming=incoming, _socket=None, _bulk=False, _failure=None
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            vars(self)[name] = value
        else:
            setattr(self._inner, name, value)

    def pending(self) -> int:
        """As :meth:`ssl.SSLObject.pending`."""
        return self._inner.pending()

    def take_from(self, socket: trio.socket.SocketType, buffer: memoryview) -> None:
        """Fill ``incoming`` from ``socket`` in bulk, by way of ``buffer``, which others use too."""
        self._socket, self._buffer = socket, buffer

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """As :meth:`ssl.SSLObject.write`."""
        try:
            return self._inner.write(data)
        except ssl.SSLWantReadError:
            # The sending task is about to receive, and what it has taken must come first.
            self._socket, self._bulk = None, False
            raise

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; raises what :meth:`ssl.SSLObject.read` raises.

        Also :exc:`trio.BrokenResourceError`, where the socket is.
        """
        if self._failure is not None:
            raise self._failure
        incoming = self._incoming
        if incoming.pending >= REFILL and self._socket is not None:
            self._bulk = True
        pieces: list[bytes] = []
        try:
            self._collect(pieces, size)
        except (ssl.SSLError, trio.BrokenResourceError) as error:
            if not isinstance(error, ssl.SSLWantReadError):  # that goes by, and others stay
                self._failure = error
            if not pieces:
                raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _collect(self, pieces: list[bytes], size: int) -> None:
        """Add what is decrypted, up to ``size`` bytes."""
        read, incoming = self._inner.read, self._incoming
        may_refill = self._bulk
        while size > 0 and len(pieces) < AT_ONCE:
            if not incoming.pending:
                if may_refill:
                    may_refill = self._refill()
                if pieces and not incoming.pending:
                    return
            try:
                data = read(min(size, RECORD))
            except ssl.SSLWantReadError:  # the next record is not whole
                if may_refill and not incoming.pending:
                    continue
                raise
            pieces.append(data)
            size -= len(data)
            if not data:
                return  # the end, which comes again

    def _refill(self) -> bool:
        """Take what the socket has, without a wait; whether it may have more."""
        assert self._socket is not None
        try:
            size = os.readv(self._socket.fileno(), (self._buffer,))
        except BlockingIOError:
            self._bulk = False
            return False
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
        if size:
            self._incoming.write(self._buffer[:size])
        else:
            self._incoming.write_eof()
        return size == len(self._buffer)
