"""Prints tables as kubectl does: columns separated by spaces, numbers aligned to the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from kaito.planning.style import Style

NOTHING = "-"
"""Cell without a value, such as an unknown price."""


@final
@dataclass(frozen=True, slots=True)
class Column:
    """Heading and alignment of a column."""

    heading: str
    right: bool = False


@final
@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a cell, with a color where the output can show it."""

    text: str
    color: str = ""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], style: Style) -> str:
    """Returns the table with its headings; each line ends in a newline."""
    widths = [
        max(len(column.heading), *(len(row[number].text) for row in rows)) if rows else len(column.heading)
        for number, column in enumerate(columns)
    ]
    lines = [_line([Cell(column.heading) for column in columns], columns, widths, style)]
    lines += [_line(row, columns, widths, style) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], style: Style) -> str:
    shown: list[str] = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        padding = " " * (width - len(cell.text))
        text = style.paint(cell.text, cell.color) if cell.color else cell.text
        shown.append(f"{padding}{text}" if column.right else f"{text}{padding}")
    return "  ".join(shown).rstrip()
