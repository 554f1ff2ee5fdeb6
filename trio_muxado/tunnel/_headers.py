"""Headers on their way through the relay, without those that are for one connection only."""

from __future__ import annotations

from collections.abc import Iterable

from ._visitors import Visitor

Headers = list[tuple[bytes, bytes]]
"""Names in lower case."""

ONE_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"upgrade",
        b"http2-settings",
    }
)
"""What RFC 9110 (7.6.1) has a proxy remove."""

ABOUT_THE_VISITOR = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
"""Only the relay knows: what the visitor says of himself is not passed on, and not with underscores
for hyphens either, which are the same to a service of CGI or WSGI."""

OF_THE_MESSAGE = frozenset({b"content-length", b"host", b"transfer-encoding"})
"""Whom a message is for, and where it ends.  ``Connection`` can't remove these, and trailers can't
add them."""


def named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """What the ``Connection`` headers name, in lower case."""
    return {
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    }


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What goes on to the other side, in either direction."""
    headers = list(headers)
    gone = ONE_HOP | (named_by_connection(headers) - OF_THE_MESSAGE)
    # Chunks say how long a body is, and a length beside them may lie.
    if any(name == b"transfer-encoding" for name, _ in headers):
        gone = gone | {b"content-length"}
    return [(name, value) for name, value in headers if name not in gone]


def trailers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What goes on of the fields after a body.  Some servers add them to the headers."""
    gone = ABOUT_THE_VISITOR | OF_THE_MESSAGE
    return [each for each in passed_on(headers) if _with_hyphens(each[0]) not in gone]


def _with_hyphens(name: bytes) -> bytes:
    return name.replace(b"_", b"-")


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], visitor: Visitor, *, secure: bool
) -> Headers:
    """A request's, with what the service is to know of the visitor."""
    kept = [each for each in passed_on(headers) if _with_hyphens(each[0]) not in ABOUT_THE_VISITOR]
    if visitor.source is not None:
        kept.append((b"x-forwarded-for", str(visitor.source[0]).encode("ascii", "replace")))
    kept.append((b"x-forwarded-proto", b"https" if secure else b"http"))
    return kept


def upgrade_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The protocols of which a request asks to switch to one, where it may have that.

    HTTP/2 it may not: what follows would be requests for any host, which nobody looks at.
    """
    headers = list(headers)
    if b"upgrade" not in named_by_connection(headers):
        return None
    named = [
        word.strip() for name, value in headers if name == b"upgrade" for word in value.split(b",")
    ]
    wanted = [word for word in named if word and not word.lower().startswith(b"h2")]
    return b", ".join(wanted) or None
