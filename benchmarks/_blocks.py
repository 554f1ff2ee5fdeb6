"""A page of docs/ with marked blocks, which the figures of one run fill in.

A block stands between `<!-- NAME: BLOCK -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Page:
    """A page, and what its program makes of a run: the text of each block."""

    path: Path
    name: str
    tables: Callable[[dict[str, Any]], Mapping[str, str]]

    @property
    def blocks(self) -> re.Pattern[str]:
        """The page's blocks; the second group is the block's name."""
        marks = rf"(<!-- {self.name}: (\w+) -->\n\n)((?:(?!<!--).)*)(<!-- end of {self.name} -->)"
        return re.compile(marks, re.DOTALL)

    def filled(self, text: str, document: dict[str, Any]) -> str:
        """The page with the figures of a run."""
        found = self.tables(document)
        return self.blocks.sub(lambda block: f"{block[1]}{found[block[2]]}\n{block[4]}", text)

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Options of a program that fills in the page."""
        page = "/".join(self.path.parts[-2:])
        parser.add_argument("--json", type=Path, help="where the figures are kept")
        parser.add_argument("--redraw", action="store_true", help="take them from there")
        parser.add_argument("--page", action="store_true", help=f"write them into {page}")

    def publish(self, args: argparse.Namespace, measure: Callable[[], dict[str, Any]]) -> None:
        """Do what these options ask for."""
        if args.redraw:
            document = json.loads(args.json.read_text("utf-8"))
        else:
            document = measure()
            if args.json:
                args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        for name, text in self.tables(document).items():
            sys.stdout.write(f"{name}\n{text}\n")
        if args.page:
            text = self.filled(self.path.read_text("utf-8"), document)
            self.path.write_text(text, "utf-8")
