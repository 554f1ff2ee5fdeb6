"""What a task can call on a stream, by name."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from trio_muxado import MuxadoStream

SENDING: dict[str, Callable[[MuxadoStream], Awaitable[None]]] = {
    "send_all": lambda stream: stream.send_all(b"x"),
    "send_nothing": lambda stream: stream.send_all(b""),
    "send_empty_bytearray": lambda stream: stream.send_all(bytearray()),
    "send_bytearray": lambda stream: stream.send_all(bytearray(b"x")),
    "wait": lambda stream: stream.wait_send_all_might_not_block(),
    "send_eof": lambda stream: stream.send_eof(),
}
each_sender = pytest.mark.parametrize("name", SENDING)


CALLS: dict[str, Callable[[MuxadoStream], Awaitable[Any]]] = {
    **SENDING,
    "receive": lambda stream: stream.receive_some(),
}
each_call = pytest.mark.parametrize("name", CALLS)
