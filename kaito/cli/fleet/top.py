"""Formats the table of `kaito top`: state, copies, nodes, price and requests of each Workspace."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from kaito.cli.fleet.cost import money, state_cell
from kaito.cli.fleet.reader import Fleet, Row, sorted_rows
from kaito.cli.table import NOTHING, Cell, Column, table
from kaito.planning.style import Style, duration

CLEAR: Final = "\033[H\033[J"
"""Moves the cursor to the upper left corner and clears the screen below it."""


def format_top(fleet: Fleet, style: Style, *, key: str, reverse: bool = False) -> str:
    """Returns a heading and the table."""
    rows = sorted_rows(fleet.rows, key, reverse=reverse)
    columns = (
        Column("NAMESPACE"),
        Column("NAME"),
        Column("STATE"),
        Column("COPIES", right=True),
        Column("NODES", right=True),
        Column("PER HOUR", right=True),
        Column("RUNNING", right=True),
        Column("WAITING", right=True),
        Column("LAST REQUEST", right=True),
    )
    notes = "".join(f"note: {note}\n" for note in fleet.notes)
    return f"{_heading(fleet, rows)}\n\n{table(columns, [_cells(row, fleet) for row in rows], style)}{notes}"


def _heading(fleet: Fleet, rows: Sequence[Row]) -> str:
    costs: dict[str, Decimal] = {}
    for row in rows:
        if row.per_hour is not None:
            costs[row.currency] = costs.get(row.currency, Decimal(0)) + row.per_hour
    price = ", ".join(f"{money(cost, currency)} per hour" for currency, cost in sorted(costs.items()))
    counts = f"{len(rows)} Workspaces, {sum(row.nodes for row in rows)} nodes"
    loads = [row.load for row in rows if row.load is not None]
    running, waiting = sum(load.running for load in loads), sum(load.waiting for load in loads)
    requests = f"{running} requests running, {waiting} waiting" if loads else ""
    return ", ".join(filter(None, (f"{fleet.now:%H:%M:%SZ}", counts, price, requests)))


def _cells(row: Row, fleet: Fleet) -> list[Cell]:
    load = row.load
    last = load.last_request if load is not None else None
    return [
        Cell(row.namespace),
        Cell(row.name),
        state_cell(row),
        Cell(NOTHING if row.tuning else f"{row.ready}/{row.copies}"),
        Cell(str(row.nodes)),
        Cell(money(row.per_hour, row.currency)),
        Cell(str(load.running) if load is not None else NOTHING),
        Cell(str(load.waiting) if load is not None else NOTHING, "yellow" if load is not None and load.waiting else ""),
        Cell(f"{duration((fleet.now - last).total_seconds())} ago" if last is not None else NOTHING),
    ]
