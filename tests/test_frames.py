"""The frames that tests play are those of the wire."""

import pytest

from .helpers import V1, V2, Kind, RawPeer


@pytest.mark.parametrize(
    "kind, untyped, typed",
    [
        (V1, "0000000100000003", "000404010000000300000007"),
        (V2, "0000001200000003", "000004120000000300000007"),
    ],
    ids=["v1", "v2"],
)
def test_a_syn_is_a_frame_of_its_own_on_v1_and_a_flag_on_v2(
    kind: Kind, untyped: str, typed: str
) -> None:
    peer = RawPeer(kind)
    assert peer.syn(3).hex() == untyped
    assert peer.syn(3, 7).hex() == typed
