"""The matrix of what was seen to work: scenarios down, peers and their roles across."""

from __future__ import annotations

from dataclasses import dataclass, field

from .build import PEERS, Peer

SIGNS = {"passed": "yes", "failed": "**NO**", "skipped": "not run"}

# What a cell says where a test has passed, and shows that the peer can't do it.
ENDS_THE_SESSION = "ends the session"

NOTES = {
    ENDS_THE_SESSION: (
        "Rust sends nothing after its own GOAWAY and treats a received one as the end. Running "
        "streams break, whichever side sent the GOAWAY. That is [a defect of the crate]"
        "(specification/peers.md#goaway-of-rust). The test checks that the session ends in "
        "bounded time, with errors that say why."
    ),
}


@dataclass(frozen=True)
class Column:
    """A peer in one of the two roles.  We have the other one."""

    peer: Peer
    serves: bool

    def __str__(self) -> str:
        return f"{self.peer.name}-{'serves' if self.serves else 'dials'}"

    @property
    def title(self) -> str:
        return f"{self.peer.title} {'serves' if self.serves else 'dials'}"


COLUMNS = [Column(peer, serves) for peer in PEERS for serves in (True, False)]


@dataclass
class Matrix:
    """What cells say, by row and column; of several tests for one cell the worst is told."""

    cells: dict[str, dict[Column, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.cells)

    def record(self, row: str, column: Column, outcome: str) -> None:
        cells = self.cells.setdefault(row, {})
        if cells.get(column) not in (SIGNS["failed"], SIGNS["skipped"]) or outcome == "failed":
            cells[column] = SIGNS.get(outcome, outcome)

    def table(self) -> list[list[str]]:
        """The lines of the table, the columns' titles first."""
        used = [column for column in COLUMNS if any(column in row for row in self.cells.values())]
        lines = [["", *(column.title for column in used)]]
        for name, row in self.cells.items():
            lines.append([name, *(row.get(column, "") for column in used)])
        return lines

    def notes(self) -> list[str]:
        """What some of the cells mean, a sentence or two each."""
        said = {cell for row in self.cells.values() for cell in row.values()}
        return [f"*{words}*: {note}" for words, note in NOTES.items() if words in said]

    def as_markdown(self) -> str:
        table = self.table()
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        table.insert(1, ["-" * width for width in widths])
        lines = [
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            + " |"
            for line in table
        ]
        for note in self.notes():
            lines += ["", note]
        return "\n".join(lines)
