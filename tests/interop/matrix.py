"""The matrix of what was seen to work: scenarios down, peers and their roles across."""

from __future__ import annotations

from dataclasses import dataclass, field

from .build import PEERS, Peer

SIGNS = {"passed": "yes", "failed": "**NO**", "skipped": "not run"}


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
    """Outcomes by row and column; the worst one stays."""

    cells: dict[str, dict[Column, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.cells)

    def record(self, row: str, column: Column, outcome: str) -> None:
        cells = self.cells.setdefault(row, {})
        if cells.get(column) != "failed":
            cells[column] = outcome

    def as_markdown(self) -> str:
        used = [column for column in COLUMNS if any(column in row for row in self.cells.values())]
        table = [["", *(column.title for column in used)]]
        for name, row in self.cells.items():
            table.append([name, *(SIGNS.get(row.get(column, ""), "") for column in used)])
        widths = [max(len(line[i]) for line in table) for i in range(len(used) + 1)]
        table.insert(1, ["-" * width for width in widths])
        return "\n".join(
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            + " |"
            for line in table
        )
