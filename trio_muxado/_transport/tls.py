"""TLS as trio has it, with as much as there is in each read, and writes that don't wait.

General theory of operation
---------------------------

OpenSSL decrypts one record of at most 16 KiB in each call, and :class:`trio.SSLStream` lets other
tasks run after each, and takes at most 64 KiB of a socket at a time.  In bulk that is five turns of
trio's loop for 64 KiB.  So the object that decrypts for it, its ``SSLObject``, is wrapped here: a
read goes on while there are whole records, and in bulk while the socket has more for it.

On TLS 1.3 the frame reader asks that object itself, once the socket is readable.  That saves two
tries, two locks and a dozen calls for each read.  Nothing else receives then: to send never has to,
on that version.

To send takes ``SSLStream`` a pass of the loop or two, also where the socket takes everything at
once.  So a batch is encrypted and given to the socket in one step.  Records have to leave in the
order in which they were encrypted.  So ``SSLStream`` sends the first batch, as it may hold records
of its handshake back until then, and what the socket did not take.  It also sends all that follows
once a read has made records: an alert, or a new handshake of TLS 1.2.

The rest stays with ``SSLStream``: the handshake, waiting, errors and the end.  It decrypts in one
synchronous step, so nothing can come between, and a cancellation cannot either.
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


def tls_over_socket(
    transport: trio.abc.Stream,
) -> tuple[ManyRecords, trio.socket.SocketType] | None:
    """What ``transport`` is made of, if that is TLS of this package over a socket."""
    # SSLStream shows its object's methods.
    records = getattr(getattr(transport, "pending", None), "__self__", None)
    below = getattr(transport, "transport_stream", None)
    if isinstance(records, ManyRecords) and type(below) is trio.SocketStream:
        return records, below.socket
    return None


class _Context:
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any
    ) -> ManyRecords:
        inner = self._context.wrap_bio(incoming, outgoing, **options)
        return ManyRecords(inner, incoming, outgoing)


class ManyRecords:
    """An :class:`ssl.SSLObject` but for ``read``, which takes all records that are whole.

    Args:
      inner: it decrypts what is in ``incoming``, and encrypts into ``outgoing``.
    """

    _inner: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _socket: trio.socket.SocketType | None
    _buffer: memoryview
    _bulk: bool  # the socket may have more
    _failure: Exception | None  # for the next call
    _has_written: bool
    _reader_sends: bool  # now, or did once
    _unsent: bytes | None  # encrypted, and not given to a socket; empty where the reader sends it

    def __init__(
        self, inner: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        # Past ``__setattr__``.
        vars(self).update(
            _inner=inner,
            _incoming=incoming,
            _outgoing=outgoing,
            _socket=None,
            _bulk=False,
            _failure=None,
            _has_written=False,
            _reader_sends=False,
            _unsent=None,
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
        """As :meth:`ssl.SSLObject.write`; but where ``send_now`` has left something, that is it."""
        if self._unsent is not None:
            self._outgoing.write(self._unsent)
            self._unsent = None
            return len(data)
        try:
            size = self._inner.write(data)
        except ssl.SSLWantReadError:
            # The sending task is about to receive, and what it has taken must come first.
            self._socket, self._bulk = None, False
            raise
        self._has_written = True
        return size

    def send_now(self, data: bytes, socket: trio.socket.SocketType) -> bool | None:
        """Encrypt ``data`` and give it to ``socket``, if nothing has to go before it.

        None where it was not encrypted: it is for ``SSLStream.send_all``.  False where the socket
        has not taken all: the next ``write``, of anything, brings the rest.
        """
        if self._reader_sends or not self._has_written:
            return None
        try:
            self.write(data)
        except ssl.SSLError:  # which comes again, for ``SSLStream``
            return None
        encrypted = self._outgoing.read()
        try:
            size = os.write(socket.fileno(), encrypted)
        except BlockingIOError:
            size = 0
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
        if size == len(encrypted):
            return True
        self._unsent = encrypted[size:]
        return False

    @property
    def receives_now(self) -> bool:
        """``receive_now`` is the way to receive."""
        return self._failure is None and not self._reader_sends and self._socket is not None

    def receive_now(self, size: int) -> bytes | None:
        """Up to ``size`` bytes of what the socket has; None where that is no whole record.

        What has failed comes again, for ``SSLStream``.
        """
        self._bulk = True
        try:
            return self.read(size)
        except (ssl.SSLError, trio.BrokenResourceError):
            return None

    @property
    def has_more(self) -> bool:
        """The latest read has left something that does not have to come from the socket."""
        return self._incoming.pending > 0 or self._inner.pending() > 0

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
        finally:
            if self._outgoing.pending:
                self._yield_sending()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _yield_sending(self) -> None:
        """The reader is about to send what is in ``outgoing``: what is unsent goes before it."""
        self._reader_sends = True
        if self._unsent:
            self._outgoing.write(self._unsent + self._outgoing.read())
            self._unsent = b""

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
