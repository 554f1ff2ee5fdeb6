"""The page that a visitor of HTTP reads when no service answers: it says why."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Page:
    """A whole answer of the relay's own."""

    status: int
    body: bytes
    content_type: bytes = b"text/html; charset=utf-8"

    @property
    def headers(self) -> Headers:
        """What goes in front of the body, in lower case."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
        ]


def page(status: HTTPStatus, why: str) -> Page:
    """A page that says why."""
    title = f"{status.value} {status.phrase}"
    text = (
        f'<!doctype html><html lang="en"><title>{title}</title>'
        f"<h1>{title}</h1><p>{escape(why)}</p></html>\n"
    )
    return Page(status.value, text.encode())


NO_TUNNEL = "There is no such tunnel: no agent serves the host {host}."
WHY = {
    "agent": "The tunnel is there, but its agent is gone. Try again in a moment.",
    "silent": "The tunnel's agent does not answer.",
    "service": "The agent is there, but the service behind it refused the connection.",
}
"""By the reason of :class:`~trio_muxado.tunnel._opening.NoAgentError`."""
