"""Checks of arguments that are objects, and of where to dial, before anything else."""

from __future__ import annotations

import inspect
import ssl

import trio

from .. import Backoff, Heartbeat
from ._names import check_address, check_port, shown


def check_dialling(
    host: object,
    port: object,
    *,
    connect: object = None,
    ssl_context: object,
    heartbeat: object,
    backoff: object,
    stop: object,
    on_state: object,
) -> None:
    """Refuse what :func:`~trio_muxado.dial_muxado` would, before anything has begun."""
    if connect is None or ssl_context is not None:
        check_address("host", host)
    elif not isinstance(host, str):
        raise TypeError(f"host must be a str, not {shown(host)}")
    if connect is not None and not callable(connect):
        raise TypeError(f"connect must be an async function, not {shown(connect)}")
    check_port("port", port, least=1 if connect is None else 0)
    if not isinstance(ssl_context, ssl.SSLContext | None):
        raise TypeError(f"ssl_context must be an ssl.SSLContext or None, not {shown(ssl_context)}")
    check_is_for_client("ssl_context", ssl_context)
    check_heartbeat(heartbeat)
    if not isinstance(backoff, Backoff):
        raise TypeError(f"backoff must be a Backoff, not {shown(backoff)}")
    check_stop(stop)
    if on_state is not None:
        check_hook("on_state", on_state)


def check_is_for_client(name: str, context: ssl.SSLContext | None) -> None:
    """Refuse a server's context, which would fail at each connection."""
    if context is not None and context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(f"{name} must be for a client: ssl.create_default_context()")


def check_heartbeat(value: object) -> None:
    """Refuse anything that is not a Heartbeat; None is the default one."""
    if not isinstance(value, Heartbeat | None):
        raise TypeError(f"heartbeat must be a Heartbeat or None, not {shown(value)}")


def check_stop(value: object) -> None:
    """Refuse anything but an event or None."""
    if not isinstance(value, trio.Event | None):
        raise TypeError(f"stop must be a trio.Event or None, not {shown(value)}")


def check_hook(name: str, value: object) -> None:
    """Refuse anything that is not a plain function."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {shown(value)}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{name} must be a plain function, as nobody awaits it: {shown(value)}")


def check_task_status(value: object) -> None:
    """Refuse what ``nursery.start`` gives no task."""
    if not callable(getattr(value, "started", None)):
        raise TypeError(f"task_status must be a trio.TaskStatus, not {shown(value)}")
