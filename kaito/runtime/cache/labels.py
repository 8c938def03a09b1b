"""Finds the cached objects that have a label, for lists by a label selector.

A table for a label name is built by the first list that needs it, and kept up to date afterwards. Small stores and
selectors without an equality are searched object by object.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, final

from kaito.runtime.meta import LabelSelector, ObjectKey

MIN_OBJECTS: Final = 64
"""A store with fewer objects has no tables."""

MAX_NAMES: Final = 16
"""Largest number of tables of a store; lists by further label names search all objects."""


@final
class LabelTables:
    """The keys of each value of some labels."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, set[ObjectKey]]] = {}

    def put(self, key: ObjectKey, old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> None:
        """Moves a key from its old labels to the new ones; None if it does not exist before or after."""
        for name, table in self._tables.items():
            before = None if old is None else old.get(name)
            after = None if new is None else new.get(name)
            if before == after:
                continue
            if before is not None:
                keys = table[before]
                keys.discard(key)
                if not keys:
                    del table[before]
            if after is not None:
                table.setdefault(after, set()).add(key)

    def candidates(
        self, selector: LabelSelector, size: int, objects: Iterable[tuple[ObjectKey, Mapping[str, str]]]
    ) -> Collection[ObjectKey] | None:
        """Returns keys that contain those of all objects that match; None if all objects must be searched.

        Args:
            selector: the selector.
            size: number of objects in the store.
            objects: the keys and labels of all objects, read only to build a table.
        """
        wanted = selector.match_labels
        known = [name for name in wanted if name in self._tables]
        if not known:
            name = min(wanted, default=None)
            if name is None or size < MIN_OBJECTS or len(self._tables) >= MAX_NAMES:
                return None
            self._build(name, objects)
            known = [name]
        found = [self._tables[name].get(wanted[name], ()) for name in known]
        return min(found, key=len)

    def _build(self, name: str, objects: Iterable[tuple[ObjectKey, Mapping[str, str]]]) -> None:
        table: dict[str, set[ObjectKey]] = {}
        for key, labels in objects:
            value = labels.get(name)
            if value is not None:
                table.setdefault(value, set()).add(key)
        self._tables[name] = table
