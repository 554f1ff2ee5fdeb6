"""`python -m docs.pictures`: write each drawing beside this file."""

from pathlib import Path

from .frames import LAYOUTS, draw
from .scenes import SCENES

HERE = Path(__file__).parent


def drawings() -> dict[str, str]:
    """The text of each file by its name."""
    canvases = {name: scene() for name, scene in SCENES.items()}
    canvases |= {name: draw(name) for name in LAYOUTS}
    return {f"{name}.svg": canvas.svg() for name, canvas in canvases.items()}


if __name__ == "__main__":
    for name, text in drawings().items():
        (HERE / name).write_text(text, encoding="utf-8")
