"""Checks of arguments: TypeError or ValueError, with the argument's name."""

from __future__ import annotations

import inspect
import ssl
from typing import Any


def check_instance(name: str, value: Any, kind: type, what: str) -> None:
    """Refuse what is no object of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, not {shown(value)}")


def check_asgi(app: Any) -> None:
    """Refuse what can't be called as an ASGI 3 application is, as far as it says how."""
    if not callable(app):
        raise TypeError(f"app must be an ASGI application, not {shown(app)}")
    try:
        inspect.signature(app).bind("scope", "receive", "send")
    except ValueError:  # of some that are written in C nobody knows
        return
    except TypeError:
        raise TypeError(
            "app must be an ASGI application, called with scope, receive and send, "
            f"not {shown(app)}"
        ) from None


def check_bool(name: str, value: Any) -> None:
    """Refuse what is only true or false in an ``if``."""
    check_instance(name, value, bool, "a bool")


def check_int(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {shown(value)} ({type(value).__name__})")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(value)}")


def check_ssl_context(context: Any, *, server: bool = False) -> None:
    """Refuse what is no context for this side, such as httpx's ``verify=True``."""
    if context is None:
        return
    check_instance("ssl_context", context, ssl.SSLContext, "an ssl.SSLContext")
    if context.protocol == (ssl.PROTOCOL_TLS_CLIENT if server else ssl.PROTOCOL_TLS_SERVER):
        side, how = ("server", "ssl.Purpose.CLIENT_AUTH") if server else ("client", "")
        raise ValueError(f"ssl_context must be for a {side}: ssl.create_default_context({how})")


def shown(value: Any) -> str:
    """A ``repr`` for a message, also of what has none."""
    try:
        return repr(value)
    except Exception:  # such as of an int with more digits than Python shows
        return f"a {type(value).__name__}"


def check_opener(session: Any) -> None:
    """Refuse what opens no streams."""
    if not callable(getattr(session, "open_stream", None)):
        raise TypeError(f"session must be a MuxadoSession or a pool of them, not {shown(session)}")
