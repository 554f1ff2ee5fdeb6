"""What a tunnel's user catches."""

from __future__ import annotations

from ._messages import Refused


class TunnelRefusedError(Exception):
    """The relay refused the token, a tunnel or a target.

    Attributes:
      reason: one word: ``"token"``, ``"not-allowed"``, ``"taken"``, ``"busy"``, ``"unknown"``,
        ``"unreachable"``, ``"unsupported"``, ``"stopping"``, ``"version"`` or ``"message"``.
      is_final: asking again is pointless until somebody has changed something.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.is_final: bool = Refused(reason, text).is_final

    def __reduce__(self) -> tuple[type[TunnelRefusedError], tuple[str, str]]:
        return type(self), (self.reason, str(self))
