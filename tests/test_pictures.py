"""The drawings in docs/pictures are what the programs beside them draw, and what the code does."""

import re
import xml.etree.ElementTree as ET

import pytest

from docs.pictures.__main__ import HERE, drawings
from docs.pictures.frames import LAYOUTS, RESERVED, described
from docs.pictures.scenes import EDGES, RESETS, SCENES, STATES
from trio_muxado._protocol.states import STREAM_TRANSITIONS, StreamInput, StreamState
from trio_muxado._protocol.wire_v1 import V1
from trio_muxado._protocol.wire_v2 import V2

from .helpers.drawings import check_it_reads

DOCS = HERE.parent
DRAWN = drawings()


@pytest.mark.parametrize("name", DRAWN)
def test_the_file_is_what_is_drawn(name: str) -> None:
    """If not: `python -m docs.pictures`."""
    assert (HERE / name).read_text("utf-8") == DRAWN[name]


def test_no_drawing_is_left_over() -> None:
    assert {path.name for path in HERE.glob("*.svg")} == set(DRAWN)
    pages = "".join(
        path.read_text("utf-8") for path in (*DOCS.rglob("*.md"), DOCS.parent / "README.md")
    )
    assert {name for name in DRAWN if f"pictures/{name})" not in pages} == set()


@pytest.mark.parametrize("name", DRAWN)
def test_it_reads_in_the_dark_and_on_a_phone(name: str) -> None:
    check_it_reads(DRAWN[name])


@pytest.mark.parametrize("name", DRAWN)
def test_it_says_in_words_what_it_shows(name: str) -> None:
    title = ET.fromstring(DRAWN[name]).findtext("{*}title")
    assert title
    for page in DOCS.rglob("*.md"):
        for words in re.findall(rf"!\[([^\]]*)\]\([^)]*{name}\)", page.read_text("utf-8")):
            assert " ".join(words.split()) == title


def test_the_life_of_a_stream_is_the_table_s() -> None:
    drawn = {
        (StreamState[edge.before], StreamInput[edge.input], StreamState[edge.after])
        for edge in EDGES
    }
    real = {
        (before, what, after)
        for before, row in STREAM_TRANSITIONS.items()
        for what, after in row.items()
        if before is not after and what.name not in RESETS
    }
    assert drawn == real
    assert set(STATES) == {state.name for state in StreamState}
    for row in STREAM_TRANSITIONS.values():
        assert {row[StreamInput[name]] for name in RESETS} == {StreamState.CLOSED}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_the_bits_of_the_codec(name: str) -> None:
    version, kind = name.split("-")
    wire = {"v1": V1, "v2": V2}[version]
    rows = LAYOUTS[name]
    assert [sum(field.bits for field in row) for row in rows] == [32] * len(rows)
    place = 32
    found: dict[int, tuple[int, int, str]] = {}
    for field in rows[0]:
        place -= field.bits
        if field.name != RESERVED:
            found[len(found)] = (place, (1 << field.bits) - 1, field.name)
    length = (wire.length_shift, wire.length_mask)
    flags = (wire.flags_shift, wire.flags_mask)
    type_ = (wire.type_shift, wire.type_mask)
    order = [length, flags, type_] if version == "v1" else [length, type_, flags]
    assert [(shift, mask) for shift, mask, _ in found.values()] == order
    if kind != "header":
        said = found[order.index(type_)][2]
        assert int(said) == wire.types[kind.upper()]


def test_every_frame_has_a_layout_and_words() -> None:
    for version, wire in (("v1", V1), ("v2", V2)):
        assert {f"{version}-{kind.lower()}" for kind in wire.types} <= set(LAYOUTS)
    assert len({described(name) for name in LAYOUTS}) == len(LAYOUTS)
    assert len(SCENES) + len(LAYOUTS) == len(DRAWN)
