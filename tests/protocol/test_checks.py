"""Checks that have a case of their own; the rest are tested with the calls that make them."""

from __future__ import annotations

import pytest

from trio_muxado._protocol.checks import check_bytes
from trio_muxado._protocol.errors import FIRST_FREE_CODE, ErrorCode, is_sendable


def test_a_view_that_was_released_holds_no_bytes() -> None:
    view = memoryview(b"x")
    check_bytes("data", view)
    view.release()
    with pytest.raises(ValueError, match="data must be bytes"):
        check_bytes("data", view)


@pytest.mark.parametrize(
    "code, sendable",
    [(ErrorCode.STREAM_CANCELLED, True), (FIRST_FREE_CODE, True), (FIRST_FREE_CODE - 1, False)],
)
def test_codes_that_mean_the_same_to_every_peer(code: ErrorCode | int, sendable: bool) -> None:
    assert is_sendable(code) is sendable
