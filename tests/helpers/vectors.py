"""What tests of the session vectors share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trio_muxado._check.vectors import Shown


def check_shown(shown: Sequence[Shown], seen: Sequence[Any]) -> None:
    """The application was shown these streams and no others, and has read this on them.

    ``seen`` has a ``stream``, what was ``received`` and how it did ``end``, of each.
    """
    ids = [told.stream.id for told in seen]
    expected = [told for told in shown if not told.optional or told.stream_id in ids]
    assert ids == [told.stream_id for told in expected]
    for found, told in zip(seen, expected, strict=True):
        assert found.stream.type == told.type
        assert told.received is None or bytes(found.received) == told.received
        assert told.end is None or found.end == told.end
