"""What a package index shows of README.md: its relative links lead nowhere there.

With a `Repository` in `[project.urls]` they become links into the repository. Without one, their
text stays and the link goes.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# An image or a link, with a target that is no address and no anchor of the page itself.
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def readable_outside(text: str, repository: str | None) -> str:
    """``text`` with absolute links, or with none."""

    def replace(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        if repository is None:
            return "" if picture else words
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({repository.rstrip('/')}/{kind}/main/{target})"

    return RELATIVE.sub(replace, text)


class ReadmeHook(MetadataHookInterface):
    """Fills in `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = readable_outside(text, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
