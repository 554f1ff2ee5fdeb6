"""Checks of arguments that are objects; those of plain data are the protocol's.

Each raises TypeError or ValueError with the argument's name, before anything has changed.
"""

from __future__ import annotations

import inspect
import operator
import ssl
from collections.abc import Awaitable
from functools import lru_cache
from typing import Any, SupportsIndex

import trio

from ._protocol.checks import check_int, shown


def check_function(name: str, value: object) -> None:
    """An async function, as far as that shows before it is called."""
    if inspect.iscoroutine(value):
        value.close()  # or Python says that nobody has awaited it
        raise TypeError(
            f"{name} must be an async function, not what calling one returns: {shown(value)}"
        )
    if not callable(value):
        raise TypeError(f"{name} must be an async function, not {shown(value)}")


def check_hook(name: str, value: object) -> None:
    """A function that is called and not awaited."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {shown(value)}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{name} must be a plain function, as nobody awaits it: {shown(value)}")


def check_awaitable(name: str, function: object, returned: Any) -> Awaitable[Any]:
    """What an async function returned.

    Whoever has no call to spare looks first whether it is a :class:`types.CoroutineType`.
    """
    if not inspect.isawaitable(returned):
        raise TypeError(
            f"{name} must be an async function: {shown(function)} returned {shown(returned)}"
        )
    return returned


def check_instance(name: str, value: object, kind: type | tuple[type, ...], what: str) -> None:
    """An object of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, not {shown(value)}")


def check_stream(name: str, value: object) -> None:
    """A stream of trio's, which goes both ways."""
    check_instance(name, value, trio.abc.Stream, "a trio.abc.Stream")


def check_stop(value: object) -> None:
    """An event, or nothing."""
    if value is not None:
        check_instance("stop", value, trio.Event, "a trio.Event")


def check_ssl_context(value: object, *, server: bool = False) -> None:
    """A context of TLS for this side, or nothing."""
    if value is None:
        return
    check_instance("ssl_context", value, ssl.SSLContext, "an ssl.SSLContext")
    # The wrong one would fail once there is a connection, and end a server then.
    wrong = ssl.PROTOCOL_TLS_CLIENT if server else ssl.PROTOCOL_TLS_SERVER
    if isinstance(value, ssl.SSLContext) and value.protocol == wrong:
        side, how = ("server", "ssl.Purpose.CLIENT_AUTH") if server else ("client", "")
        raise ValueError(f"ssl_context must be for a {side}: ssl.create_default_context({how})")


def check_host(value: object) -> None:
    """A name or an address."""
    check_instance("host", value, (str, bytes), "a str or bytes")
    if isinstance(value, bytes) and not value.isascii():
        raise ValueError(f"host must be ASCII where it is bytes, not {shown(value)}")
    if not value:
        raise ValueError("host must not be empty")
    if isinstance(value, str) and not _can_be_asked_for(value):
        raise ValueError(f"host must be a name or an address, not {shown(value)}")


@lru_cache(maxsize=256)  # a client connects to a few hosts, again and again
def _can_be_asked_for(host: str) -> bool:
    """The system's resolver takes it."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def check_port(value: object, least: int = 1) -> None:
    """A TCP port."""
    check_int("port", value, least, 0xFFFF)


def checked_size(name: str, value: SupportsIndex) -> int:
    """A number of bytes, at least 1; as trio's own streams, anything that is an index."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, not {shown(value)}")
    size = operator.index(value)
    check_int(name, size, 1)
    return size


def check_task_status(value: object) -> None:
    """What ``nursery.start`` gives a task."""
    if not callable(getattr(value, "started", None)):
        raise TypeError(f"task_status must be a trio.TaskStatus, not {shown(value)}")
