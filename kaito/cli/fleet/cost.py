"""Runs `kaito cost`: what Workspaces cost, and which nodes do nothing useful. Exit codes: 0 printed, 2 not readable."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from kaito.cli.fleet.reader import Fleet, Row, sorted_rows
from kaito.cli.table import NOTHING, Cell, Column, table
from kaito.planning.documents import to_yaml
from kaito.planning.style import Style, duration
from kaito.prices.price import HOURS_PER_MONTH, amount
from kaito.runtime.meta import format_time

_COLORS: Final = {"Ready": "green", "Succeeded": "green", "Running": "green", "NotReady": "red", "Failed": "red"}


def format_cost(fleet: Fleet, arguments: argparse.Namespace, style: Style) -> str:
    """Returns the output in the format of the arguments."""
    rows = sorted_rows(fleet.rows, arguments.sort, reverse=arguments.reverse)
    idle = [row for row in rows if is_idle(row, fleet, arguments.idle_after)]
    if arguments.output == "text":
        return _text(fleet, rows, idle, style)
    data = _data(fleet, rows, idle)
    return json.dumps(data, indent=2) + "\n" if arguments.output == "json" else to_yaml(data)


def is_idle(row: Row, fleet: Fleet, seconds: float) -> bool:
    """Whether the servers of a Workspace have had no request for that long."""
    load = row.load
    if load is None or load.last_request is None or load.running or load.waiting or not row.nodes:
        return False
    return fleet.now - load.last_request >= timedelta(seconds=seconds)


def state_cell(row: Row) -> Cell:
    """Returns the cell with the state."""
    return Cell(row.state, _COLORS.get(row.state, "yellow"))


def money(value: Decimal | None, currency: str) -> str:
    """Formats an amount; an unknown one is `-`."""
    if value is None or not currency:
        return NOTHING
    return f"{amount(value) if value else '0'} {currency}"


def _text(fleet: Fleet, rows: Sequence[Row], idle: Sequence[Row], style: Style) -> str:
    if not rows and not fleet.orphans:
        return "".join(f"{line}\n" for line in ("no Workspaces", *(f"note: {note}" for note in fleet.notes)))
    columns = (
        Column("NAMESPACE"),
        Column("NAME"),
        Column("STATE"),
        Column("INSTANCE"),
        Column("NODES", right=True),
        Column("PER HOUR", right=True),
        Column("IDLE PER HOUR", right=True),
        Column("TOTAL", right=True),
        Column("NODE HOURS", right=True),
        Column("AGE", right=True),
    )
    cells = [_cells(row, fleet) for row in rows]
    for (namespace, name), members in _sets(rows).items():
        cells += _sums(members, (namespace, f"set {name}"))
    cells += _sums(rows, ("sum", ""))
    return table(columns, cells, style) + "".join(f"{line}\n" for line in _remarks(fleet, rows, idle))


def _cells(row: Row, fleet: Fleet) -> list[Cell]:
    is_wasted = bool(row.idle_per_hour)
    age = duration((fleet.now - row.created).total_seconds()) if row.created is not None else NOTHING
    return [
        Cell(row.namespace),
        Cell(row.name),
        state_cell(row),
        Cell(row.instance_type or NOTHING),
        Cell(str(row.nodes)),
        Cell(money(row.per_hour, row.currency)),
        Cell(money(row.idle_per_hour, row.currency), "red" if is_wasted else ""),
        Cell(money(row.total, row.currency)),
        Cell(f"{row.node_hours:.1f}" if row.node_hours is not None else NOTHING),
        Cell(age),
    ]


def _sets(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Returns the Workspaces of each InferenceSet, by namespace and name of the set."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.inference_set:
            found.setdefault((row.namespace, row.inference_set), []).append(row)
    return dict(sorted(found.items()))


def _sums(rows: Sequence[Row], title: tuple[str, str]) -> list[list[Cell]]:
    """Returns a line with the sums of each currency."""
    return [_sum_cells(rows, currency, title) for currency in sorted({row.currency for row in rows if row.currency})]


def _sum_cells(rows: Sequence[Row], currency: str, title: tuple[str, str]) -> list[Cell]:
    same = [row for row in rows if row.currency == currency]

    def known(value: Callable[[Row], Decimal | None]) -> Decimal:
        return sum((found for row in same if (found := value(row)) is not None), Decimal(0))

    texts = [
        money(known(lambda row: row.per_hour), currency),
        money(known(lambda row: row.idle_per_hour), currency),
        money(known(lambda row: row.total), currency),
    ]
    nodes = sum(row.nodes for row in same)
    return [*map(Cell, title), Cell(""), Cell(""), Cell(str(nodes)), *map(Cell, texts), Cell(""), Cell("")]


def _remarks(fleet: Fleet, rows: Sequence[Row], idle: Sequence[Row]) -> Iterator[str]:
    """Yields what costs money without use, and what is not known."""
    reasons = {
        "not-serving": "the model does not answer",
        "tuning-finished": "tuning is finished",
        "tuning-not-running": "tuning is not running",
        "deleting": "the Workspace is being deleted",
    }
    for row in rows:
        if row.idle_per_hour:
            why = reasons.get(row.idle_reason, row.idle_reason)
            cost = money(row.idle_per_hour, row.currency)
            hint = f"kaito explain {row.name} -n {row.namespace}"
            if row.idle_reason == "tuning-finished":
                hint = "set tuning.ttlSecondsAfterFinished, or delete the Workspace"
            yield f"idle: {row.namespace}/{row.name} costs {cost} per hour, and {why}: {hint}"
    for row in idle:
        since = row.load.last_request if row.load is not None else None
        if since is not None:
            span = duration((fleet.now - since).total_seconds())
            month = money(row.per_hour * HOURS_PER_MONTH if row.per_hour is not None else None, row.currency)
            yield (
                f"idle: {row.namespace}/{row.name} has had no request for {span}, and costs {month} per month: "
                f"kubectl -n {row.namespace} scale workspace {row.name} --replicas=0"
            )
    if fleet.orphans:
        costs = ", ".join(f"{money(rate, currency)} per hour" for currency, rate in sorted(fleet.orphan_rates.items()))
        names = ", ".join(fleet.orphans[:5]) + (" and others" if len(fleet.orphans) > 5 else "")
        yield f"idle: {len(fleet.orphans)} claims without a Workspace ({names}) cost {costs or 'an unknown amount'}"
    unknown = [f"{row.namespace}/{row.name}" for row in rows if row.nodes and row.per_hour is None]
    if unknown:
        yield f"note: the price of {', '.join(unknown[:5])} is unknown: set --region or a price table"
    yield from (f"note: {note}" for note in fleet.notes)


def _data(fleet: Fleet, rows: Sequence[Row], idle: Sequence[Row]) -> dict[str, Any]:
    orphans = {"claims": list(fleet.orphans), "perHour": {c: str(rate) for c, rate in fleet.orphan_rates.items()}}
    return {
        "time": format_time(fleet.now),
        "workspaces": [_row_data(row, is_unused=row in idle) for row in rows],
        **({"inferenceSets": sets} if (sets := _sets_data(rows)) else {}),
        **({"orphans": orphans} if fleet.orphans else {}),
        "notes": list(fleet.notes),
    }


def _sets_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the cost of each InferenceSet; an amount is left out unless it is known of every Workspace."""
    found: list[dict[str, Any]] = []
    for (namespace, name), members in _sets(rows).items():
        data: dict[str, Any] = {"namespace": namespace, "name": name, "workspaces": len(members)}
        data["nodes"] = sum(row.nodes for row in members)
        currencies = {row.currency for row in members}
        amounts = {"perHour": [row.per_hour for row in members], "total": [row.total for row in members]}
        for field, values in amounts.items():
            known = [value for value in values if value is not None]
            if len(known) == len(members) and len(currencies) == 1:
                data["currency"] = next(iter(currencies))
                data[field] = _number(sum(known, Decimal(0)))
        found.append(data)
    return found


def _row_data(row: Row, *, is_unused: bool) -> dict[str, Any]:
    load = row.load
    data: dict[str, Any] = {
        "namespace": row.namespace,
        "name": row.name,
        "inferenceSet": row.inference_set or None,
        "task": "tuning" if row.tuning else "inference",
        "state": row.state,
        "copies": row.copies,
        "readyCopies": row.ready,
        "nodes": row.nodes,
        "instanceType": row.instance_type or None,
        "currency": row.currency or None,
        "perHour": _number(row.per_hour),
        "idlePerHour": _number(row.idle_per_hour),
        "idleReason": row.idle_reason or None,
        "total": _number(row.total),
        "nodeHours": _number(row.node_hours),
        "created": format_time(row.created) if row.created is not None else None,
        "runningRequests": load.running if load is not None else None,
        "waitingRequests": load.waiting if load is not None else None,
        "lastRequest": format_time(load.last_request) if load is not None and load.last_request is not None else None,
        "withoutRequests": is_unused or None,
    }
    return {name: value for name, value in data.items() if value is not None}


def _number(value: Decimal | None) -> float | None:
    return None if value is None else round(float(value), 6)
