"""The frames of a peer that is played by a test, as bytes: for a session and for the core alone."""

from trio_muxado import ErrorCode
from trio_muxado._protocol.wire import Wire


class PeerFrames:
    """Makes each frame for one wire."""

    wire: Wire

    def syn(self, stream_id: int, type: int | None = None, *, priority: int = 0) -> bytes:
        """Open a stream, without data.

        On v2 with a type (0, too) its four bytes follow, as in typed sessions.
        """
        if self.wire.has_syn_frame:
            return self.wire.syn(stream_id, priority, type or 0)
        return self.data(stream_id, b"" if type is None else type.to_bytes(4, "big"), syn=True)

    def data(
        self, stream_id: int, payload: bytes = b"", *, fin: bool = False, syn: bool = False
    ) -> bytes:
        return self.wire.data_header(stream_id, len(payload), fin=fin, syn=syn) + payload

    def fin(self, stream_id: int) -> bytes:
        """The end of a direction, without data."""
        return self.data(stream_id, fin=True)

    def rst(self, stream_id: int, code: ErrorCode | int = ErrorCode.STREAM_CANCELLED) -> bytes:
        return self.wire.rst(stream_id, code)

    def wndinc(self, stream_id: int, increment: int) -> bytes:
        return self.wire.wndinc(stream_id, increment)

    def goaway(
        self, last: int = 0, code: ErrorCode | int = ErrorCode.NO_ERROR, debug: bytes = b""
    ) -> bytes:
        return self.wire.goaway(last, code, debug)

    def violation(self) -> bytes:
        """A frame that no peer may send: DATA for stream 0."""
        return self.data(0)
