"""Take errors out of the groups that nurseries wrap them in."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import NoReturn, cast

import trio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def leaves(error: BaseException) -> Iterator[BaseException]:
    """``error`` itself, or if it is a group, every error in it at any depth."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(inner)
    else:
        yield error


def fatal_in(error: BaseException) -> BaseException | None:
    """The error that ends the program, such as KeyboardInterrupt, without its group; or None."""
    for leaf in leaves(error):
        if not isinstance(leaf, (Exception, trio.Cancelled, GeneratorExit)):
            return leaf
    return None


def is_cancellation(error: BaseException) -> bool:
    """Whether it consists of ``Cancelled`` only."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


@contextmanager
def errors_bare() -> Generator[None, None, None]:
    """Raise an error that ends the program, or a single error, without its groups."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors = [leaf for leaf in leaves(group) if not isinstance(leaf, trio.Cancelled)]
        failure = fatal_in(group) or (errors[0] if len(errors) == 1 else None)
        if failure is None:
            raise
    else:
        return
    raise_unchanged(failure)


def raise_unchanged(error: BaseException) -> NoReturn:
    """Raise what was raised elsewhere; its context stays, whatever is handled here."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context  # or the traceback would be part of a cycle
