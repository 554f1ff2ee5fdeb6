"""What holds for every drawing of the documentation."""

import xml.etree.ElementTree as ET

from docs.pictures.svg import COLOURS, SMALL


def check_it_reads(drawing: str) -> None:
    """In the dark, and on a phone: all colours are of the two schemes, and no text is cut."""
    root = ET.fromstring(drawing)
    style = root.findtext("{*}style")
    assert style is not None
    used = {word for element in root.iter() for word in element.get("class", "").split()}
    for word in used & COLOURS.keys():
        assert style.count(f".{word}{{") == 2, f"{word} has no colour in the dark"
    assert used <= COLOURS.keys() | {"mono"}
    assert all(
        element.get("fill") in (None, "none") and element.get("stroke") is None
        for element in root.iter()
    )
    width = float(root.get("width", ""))
    for text in root.iterfind(".//{*}text"):
        size = float(text.get("font-size", ""))
        assert size >= SMALL
        # No font that is taken here is wider on average than 0.62 of its height.
        reach = 0.62 * size * len(text.text or "")
        x = float(text.get("x", ""))
        begin = {"start": x, "middle": x - reach / 2, "end": x - reach}[text.get("text-anchor", "")]
        assert begin >= 0, text.text
        assert begin + reach <= width, text.text
