"""Keeps the answers of a price API in a file, so that a plan sends no request while the answers are recent.

A file that is missing, malformed or not writable costs requests, and is not an error.
"""

import contextlib
import json
import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast, final

MAX_ENTRIES: Final = 1024
"""Number of answers that are kept; the oldest one is dropped first. About 200 KiB."""

MAX_FILE_BYTES: Final = 2**20


@final
@dataclass(frozen=True, slots=True)
class CachedPrices:
    """Prices of one instance type in one region, as text of decimal numbers."""

    read_at: datetime
    on_demand: tuple[str, ...] = ()
    """Distinct prices; several are ambiguous, none is unknown."""
    spot: tuple[str, ...] = ()


@final
class PriceCache:
    """Answers by key, in memory and in a file."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads the file; without one, the answers are kept in memory only."""
        self._path = path
        self._entries: OrderedDict[str, CachedPrices] = OrderedDict(_read(path) if path is not None else ())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> CachedPrices | None:
        """Returns an answer, of any age."""
        return self._entries.get(key)

    def put(self, key: str, prices: CachedPrices) -> None:
        """Stores an answer and writes the file."""
        self._entries[key] = prices
        self._entries.move_to_end(key)
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
        if self._path is not None:
            with contextlib.suppress(OSError):
                _write(self._path, self._entries)


def default_path(cloud: str) -> Path:
    """Returns the file of a cloud below `$XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "kaito" / "prices" / f"{cloud}.json"


def _read(path: Path) -> list[tuple[str, CachedPrices]]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            return []
        document: object = json.loads(content)
        if not isinstance(document, dict):
            return []
        found = [(key, _entry(raw)) for key, raw in cast("dict[str, Any]", document).items()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return sorted(found, key=lambda entry: entry[1].read_at)[-MAX_ENTRIES:]


def _entry(raw: dict[str, Any]) -> CachedPrices:
    read_at = datetime.fromisoformat(raw["readAt"]).astimezone(UTC)
    return CachedPrices(read_at, tuple(map(str, raw["onDemand"])), tuple(map(str, raw["spot"])))


def _write(path: Path, entries: OrderedDict[str, CachedPrices]) -> None:
    """Replaces the file in one step, so that a reader never sees half of it."""
    document = {
        key: {"readAt": entry.read_at.isoformat(), "onDemand": entry.on_demand, "spot": entry.spot}
        for key, entry in entries.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
        try:
            json.dump(document, file)
            file.close()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
