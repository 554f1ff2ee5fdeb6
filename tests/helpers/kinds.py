"""What can be spoken, as parameters of a test, and choices that tests share."""

from typing import Any, NamedTuple

import pytest

from trio_muxado import MuxadoConfig
from trio_muxado._protocol.wire import WIRES


class Kind(NamedTuple):
    """What can be spoken: a generation of the wire, with types or without."""

    name: str
    wire: str
    typed: bool = False

    @property
    def window(self) -> int:
        """Bytes that may be sent on a new stream before anybody reads; a type takes four."""
        return WIRES[self.wire].initial_window - (4 if self.typed else 0)

    def config(self, **choices: Any) -> MuxadoConfig:
        return MuxadoConfig(**{"wire": self.wire, "typed": self.typed, **choices})


V1 = Kind("v1", "v1")
V2 = Kind("v2", "v2")
V2_TYPED = Kind("v2-typed", "v2", typed=True)

each_wire = pytest.mark.parametrize("kind", [V1, V2], ids=lambda kind: kind.name)
each_kind = pytest.mark.parametrize("kind", [V1, V2, V2_TYPED], ids=lambda kind: kind.name)
with_types = pytest.mark.parametrize("kind", [V1, V2_TYPED], ids=lambda kind: kind.name)
"""Both kinds that know the types of streams, and so heartbeats and extensions."""


SEND_BUFFER = 64 * 1024

STEADY: dict[str, Any] = {"send_buffer": SEND_BUFFER, "max_receive_window": 1}
"""Choices for a test that counts bytes: windows stay as large as they begin, buffers are small."""
