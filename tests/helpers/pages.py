"""The code blocks of README.md and docs/, and what the comments above them say.

A comment right above a fence is what no renderer shows:

    <!-- snippet: OPTION ... -->  how the block below is run; options may stand together
    <!-- output -->               above a fence: exactly what the program before it prints; `...`
                                  stands for anything within a line

The options:

    name=NAME          the block has a name
    after=NAME,...     these blocks, further up on the page, are pasted first: one program
    first=NAME,...     these programs run to their end first, in the same folder
    file=FILE          the block is what this file in the folder of every later program has
    server, server=N   it serves until it is stopped, on N ports (1 where it is not said);
                       its test is that it comes to listen
    client             it runs while the last `server` above it does
    with=NAME,...      it runs while these do, which are started in this order, each as often as
                       it is named
    pytest             it is a file of tests
    shell              above a fence of `sh`: the commands run, and succeed
    extra=NAME,...     it imports these, which the test extra lacks: `nox -s applications` runs it
    peer=go-v1, ...    it is a program in another language; tests/interop builds and runs it
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *(.*?) *$")
_COMMENT = re.compile(r"^ *<!-- *(snippet|output|ci)(?:: *(.*?))? *-->$")
_PYTHON = re.compile(r"^(python|python3|py|pycon|\{code-block\} *python|\{code\} *python)\b")
_SHELL = re.compile(r"^(sh|bash|shell|console)\b")
_OPTIONS = {
    *("name", "after", "first", "file", "server", "client", "with", "pytest", "shell"),
    *("extra", "peer"),
}


@dataclass
class Block:
    """A fence, and what is said of it."""

    page: Path
    line: int  # of the first line of text, counted from 1
    language: str
    text: str
    kind: str = ""  # of the comment above it
    words: str = ""
    options: dict[str, str] = field(default_factory=dict)
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_python(self) -> bool:
        return _PYTHON.match(self.language) is not None

    @property
    def is_shell(self) -> bool:
        return _SHELL.match(self.language) is not None

    def named(self, option: str) -> list[str]:
        """The names that an option lists."""
        return [name for name in self.options.get(option, "").split(",") if name]


@dataclass
class Page:
    """The blocks of a page, in order."""

    path: Path
    blocks: list[Block]

    def find(self, name: str, before: Block) -> Block:
        """The block of this name above another one."""
        found = [b for b in self.above(before) if b.options.get("name") == name]
        assert len(found) == 1, f"{before}: {len(found)} blocks above it are called {name}"
        return found[0]

    def above(self, block: Block) -> list[Block]:
        return [other for other in self.blocks if other.line < block.line]

    def last_server(self, block: Block) -> Block:
        servers = [other for other in self.above(block) if "server" in other.options]
        assert servers, f"{block}: a client of which server?"
        return servers[-1]

    def source(self, block: Block) -> str:
        """A program on the lines where the page has it, so that a traceback points there."""
        source = ""
        for part in [*(self.find(name, block) for name in block.named("after")), block]:
            missing = part.line - 1 - source.count("\n")
            assert missing >= 0, f"{block}: what is pasted first stands in another order"
            source += "\n" * missing + part.text
        return source


def read_page(path: Path) -> Page:
    """The fences of a page."""
    blocks: list[Block] = []
    comment = ""
    opened: tuple[str, str, str, int] | None = None
    body: list[str] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None:
            indent, ticks, language, first = opened
            if fence and fence[2].startswith(ticks) and not fence[3]:
                text = "".join(f"{row[len(indent) :]}\n" for row in body)
                _add(blocks, Block(path, first, language, text), comment)
                comment, opened, body = "", None, []
            else:
                body.append(line)
        elif fence:
            opened = (fence[1], fence[2], fence[3], number + 1)
        elif _COMMENT.match(line):
            comment = line.strip()
        elif line.strip():
            comment = ""
    assert opened is None, f"{path} ends inside a fence"
    return Page(path, blocks)


def _add(blocks: list[Block], block: Block, comment: str) -> None:
    if mark := _COMMENT.match(comment):
        block.kind, block.words = mark[1], mark[2] or ""
    if block.kind == "output":
        programs = [b for b in blocks if b.is_python or b.is_shell or "peer" in b.options]
        assert programs, f"{block}: the output of what?"
        programs[-1].output = block.text
    elif block.kind == "snippet":
        pairs = (word.partition("=") for word in block.words.split())
        block.options = {name: value for name, _, value in pairs}
        assert block.options.keys() <= _OPTIONS, f"{block}: {comment}"
    blocks.append(block)


PAGES = [
    read_page(path)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_build" not in path.parts
]
