"""Checks of arguments: TypeError or ValueError, with the argument's name, before anything changes.

They are strict where Python is not: a bool is no number, a float no count, a str no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection

NONE = 0
"""The type and the priority of a stream that has none.  Where they are this very object, as mostly,
a comparison saves the call that checks them."""

_LONGEST = 200
"""Characters of a value that a message shows."""


def check_int(name: str, value: object, least: int, most: int | None = None) -> None:
    """Whole numbers from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int):
        kind = type(value).__name__
        raise TypeError(f"{name} must be an int, not {shown(value)} ({kind})")
    if most is not None:
        if not least <= value <= most:
            raise ValueError(f"{name} must be {least} to {most}, not {shown(value)}")
    elif value < least:
        rule = "positive" if least == 1 else f"at least {least}"
        raise ValueError(f"{name} must be {rule}, not {shown(value)}")


def check_number(
    name: str, value: object, *, least: float | None = None, endless: bool = False
) -> None:
    """Numbers from ``least``, or above 0 where it is None; infinity if it may be ``endless``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float can hold") from None
    if not (number > 0 if least is None else number >= least):  # not a number is neither
        rule = "positive" if least is None else f"at least {least:g}"
        raise ValueError(f"{name} must be {rule}, not {shown(value)}")
    if number == math.inf and not endless:
        raise ValueError(f"{name} must be finite, not {shown(value)}")


def check_opening(stream_type: object, priority: object) -> None:
    """What a stream is opened with."""
    check_int("type", stream_type, 0, 0xFFFFFFFF)
    check_int("priority", priority, 0, 0x7FFFFFFF)


def check_bool(name: str, value: object) -> None:
    """True and False, and nothing that is only true or false in an ``if``."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {shown(value)}")


def check_bytes(name: str, value: object) -> None:
    """What holds bytes, in one piece.  An error says the type alone: it may be a payload."""
    try:
        view = memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}") from None
    except ValueError as error:
        raise ValueError(f"{name} must be bytes: {error}") from None
    with view:
        if not view.c_contiguous:
            raise TypeError(f"{name} must be bytes in one piece, not a view with gaps")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """One of a few words."""
    rule = " or ".join(f'"{choice}"' for choice in choices)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {rule}, not {shown(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be {rule}, not {shown(value)}")


def shown(value: object) -> str:
    """A short ``repr`` for a message, also of what has none."""
    try:
        text = repr(value)
    except Exception:  # such as of an int with more digits than Python shows
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
