"""The layout of each frame of both protocol versions, as rows of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .svg import SMALL, Canvas

BIT = 17  # units of width
ROW = 40
MARGIN = 8


class Field(NamedTuple):
    """A part of a row. Without a number of bits it has as many as it needs: a body."""

    name: str
    bits: int = 32

    @property
    def said(self) -> str:
        return self.name if self.bits == 32 else f"{self.name} ({self.bits})"


Row = Sequence[Field]
RESERVED = "R"


def first_row_v1(length: str, flags: str, type: str) -> Row:
    return (
        Field(RESERVED, 2),
        Field(length, 14),
        Field(flags, 8),
        Field(RESERVED, 3),
        Field(type, 5),
    )


def first_row_v2(length: str, flags: str, type: str) -> Row:
    return Field(length, 24), Field(type, 4), Field(flags, 4)


FIRST_ROWS = {"v1": first_row_v1, "v2": first_row_v2}
STREAM_ID = (Field(RESERVED, 1), Field("Stream Id", 31))
SESSION = (Field(RESERVED, 1), Field("0", 31))
INCREMENT = (Field(RESERVED, 1), Field("Increment", 31))
LAST_ID = (Field(RESERVED, 1), Field("Last Stream Id", 31))
CODE = (Field("Error Code"),)
DEBUG = (Field("Debug Data (Length - 8 bytes) ..."),)
BODY = (Field("Body (Length bytes) ..."),)
PAYLOAD = (Field("Payload (Length bytes) ..."),)
SYN_BODY = (
    (Field(RESERVED, 1), Field("Priority (with PRIORITY)", 31)),
    (Field("Stream Type (with TYPE)"),),
)


def frame(version: str, length: str, flags: str, type: str, *rest: Row) -> list[Row]:
    """The rows of one frame."""
    return [FIRST_ROWS[version](length, flags, type), *rest]


LAYOUTS: dict[str, list[Row]] = {
    "v1-header": frame("v1", "Length", "Flags", "Type", STREAM_ID, BODY),
    "v1-syn": frame("v1", "Length = 0, 4 or 8", "Flags", "1", STREAM_ID, *SYN_BODY),
    "v1-data": frame("v1", "Length", "Flags", "3", STREAM_ID, PAYLOAD),
    "v1-rst": frame("v1", "Length = 4", "0", "2", STREAM_ID, CODE),
    "v1-wndinc": frame("v1", "Length = 4", "0", "4", STREAM_ID, INCREMENT),
    "v1-goaway": frame("v1", "Length >= 8", "0", "6", SESSION, LAST_ID, CODE, DEBUG),
    "v2-header": frame("v2", "Length", "Flags", "Type", STREAM_ID, BODY),
    "v2-rst": frame("v2", "Length = 4", "0", "0", STREAM_ID, CODE),
    "v2-data": frame("v2", "Length", "Flags", "1", STREAM_ID, PAYLOAD),
    "v2-wndinc": frame("v2", "Length = 4", "0", "2", STREAM_ID, INCREMENT),
    "v2-goaway": frame("v2", "Length >= 8", "0", "3", SESSION, LAST_ID, CODE, DEBUG),
}


def described(name: str) -> str:
    """A layout in words, for who doesn't see it: fields with their bits, row by row."""
    version, kind = name.split("-")
    rows = "; ".join(", ".join(field.said for field in row) for row in LAYOUTS[name])
    what = "Every frame" if kind == "header" else kind.upper()
    return f"{what} of {version}, in rows of 32 bits: {rows}"


def draw(name: str) -> Canvas:
    """One layout, with the numbers of the bits at which the fields of the first row begin."""
    rows = LAYOUTS[name]
    top = 30
    canvas = Canvas(described(name), top + ROW * len(rows) + MARGIN)
    place = 0
    for field in rows[0]:
        canvas.text(
            MARGIN + place * BIT, top / 2, str(place), size=SMALL, anchor="start", colour="soft"
        )
        place += field.bits
    for index, row in enumerate(rows):
        place = 0
        for field in row:
            colour = "pipe" if field.name == RESERVED else "blue" if index < 2 else "green"
            canvas.box(
                MARGIN + place * BIT,
                top + index * ROW,
                field.bits * BIT,
                ROW,
                field.name,
                colour=colour,
                size=SMALL if field.bits < 6 else 17,
                round=0,
            )
            place += field.bits
        assert place == 32, name
    return canvas
