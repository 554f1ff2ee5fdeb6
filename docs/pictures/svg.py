"""A canvas for drawings that read in light and in dark, on a phone and on a desk.

A drawing has no background and takes its colours from the reader's preference. It is 560 units
wide, and its smallest text has 16: shown 350 pixels wide, as on a phone, that is 10 pixels high.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

WIDTH = 560
TEXT = 17  # units; for what matters less, SMALL
SMALL = 16

# class: what it styles, in light and in dark
COLOURS = {
    "ink": ("fill", "#1f2328", "#e6edf3"),
    "soft": ("fill", "#59636e", "#9da7b3"),
    "line": ("stroke", "#59636e", "#9da7b3"),
    "box": ("fill", "#f0f3f6", "#212830"),
    "pipe": ("fill", "#e2e7ec", "#2c343d"),
    "green": ("fill", "#bfe5d2", "#14543d"),
    "blue": ("fill", "#cadffb", "#1d4478"),
    "amber": ("fill", "#f6dfae", "#664a0c"),
    "ours": ("fill", "#0b6e4f", "#3fb98a"),
    "theirs": ("fill", "#b4bcc8", "#4d5763"),
    "whisker": ("stroke", "#1f2328", "#e6edf3"),
    "curve": ("stroke", "#0b6e4f", "#3fb98a"),
}


def style(names: set[str]) -> str:
    """The rules of the classes that a drawing uses."""
    light = "".join(f".{n}{{{COLOURS[n][0]}:{COLOURS[n][1]}}}" for n in COLOURS if n in names)
    dark = "".join(f".{n}{{{COLOURS[n][0]}:{COLOURS[n][2]}}}" for n in COLOURS if n in names)
    return (
        "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif}"
        ".mono{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
        f"{light}@media(prefers-color-scheme:dark){{{dark}}}"
    )


def number(value: float) -> str:
    """Without digits that say nothing."""
    return f"{value:.1f}".removesuffix(".0")


class Canvas:
    """Elements of one drawing, in the order in which they are painted."""

    def __init__(self, title: str, height: float, width: float = WIDTH) -> None:
        self.title = title
        self.width = width
        self.height = height
        self._elements: list[str] = []
        self._classes: set[str] = set()
        self._has_arrows = False

    def _class(self, *names: str) -> str:
        self._classes.update(names)
        return " ".join(names)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = TEXT,
        anchor: str = "middle",
        colour: str = "ink",
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        """Words whose middle line is at ``y``."""
        names = self._class(colour) + (" mono" if mono else "")
        weight = ' font-weight="bold"' if bold else ""
        self._elements.append(
            f'<text x="{number(x)}" y="{number(y + size * 0.35)}" font-size="{number(size)}" '
            f'text-anchor="{anchor}" class="{names}"{weight}>{escape(words)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *lines: str,
        colour: str = "box",
        size: float = TEXT,
        round: float = 6,
        mono: bool = False,
        outlined: bool = True,
    ) -> None:
        """A rectangle, and words in the middle of it; the first line is bold if there are more."""
        names = self._class(colour, "line") if outlined else self._class(colour)
        edge = ' stroke-width="1.5"' if outlined else ""
        self._elements.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}" rx="{number(round)}" class="{names}"{edge}/>'
        )
        step = size * 1.3
        top = y + height / 2 - step * (len(lines) - 1) / 2
        for index, words in enumerate(lines):
            bold = index == 0 and len(lines) > 1
            self.text(x + width / 2, top + index * step, words, size=size, bold=bold, mono=mono)

    def path(
        self,
        data: str,
        *,
        colour: str = "line",
        arrow: bool = False,
        both: bool = False,
        dashed: bool = False,
    ) -> None:
        """A line, by SVG's own path commands."""
        ends = ' marker-end="url(#arrow)"' if arrow or both else ""
        ends += ' marker-start="url(#arrow)"' if both else ""
        dashes = ' stroke-dasharray="6 5"' if dashed else ""
        self._has_arrows |= bool(ends)
        self._elements.append(
            f'<path d="{data}" fill="none" stroke-width="2" class="{self._class(colour)}"'
            f"{dashes}{ends}/>"
        )

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle without an edge."""
        self.box(x, y, width, height, colour=colour, round=2, outlined=False)

    def whisker(self, low: float, high: float, y: float, reach: float = 4) -> None:
        """A range, as a line with ends."""
        self._elements.append(
            f'<path d="M{number(low)} {number(y)}H{number(high)}M{number(low)} {number(y - reach)}'
            f"v{number(2 * reach)}M{number(high)} {number(y - reach)}v{number(2 * reach)}"
            f'" fill="none" stroke-width="1.5" class="{self._class("whisker")}"/>'
        )

    def svg(self) -> str:
        """The whole file."""
        arrows = ""
        if self._has_arrows:
            arrows = (
                '<marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" '
                'markerHeight="6" orient="auto-start-reverse">'
                f'<path d="M0 1L9 5L0 9z" class="{self._class("soft")}"/></marker>'
            )
        size = f"{number(self.width)} {number(self.height)}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
                f'width="{number(self.width)}" height="{number(self.height)}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<style>{style(self._classes)}</style>",
                *([f"<defs>{arrows}</defs>"] if arrows else []),
                *self._elements,
                "</svg>\n",
            ]
        )
