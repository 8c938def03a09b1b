"""Columns of the built-in types, as `kubectl get` shows them (`kubernetes/pkg/printers/internalversion`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from kaito.apiserver.kinds import Column
from kaito.apiserver.wire import Json, Object


@dataclass(frozen=True, slots=True)
class Printer:
    """Columns of one type and the function that fills them."""

    columns: tuple[Column, ...]
    cells: Callable[[Object, datetime], list[Json]]


PRINTERS: dict[str, Printer] = {}
"""By storage name."""
