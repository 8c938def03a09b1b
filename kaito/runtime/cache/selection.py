"""The selection of a list, so that it waits only for own writes that could change its result.

The cache creates one per list; `own_writes` and the shard evaluate it for written and stored objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from kaito.runtime.client.consistency import IndexKey
from kaito.runtime.meta import LabelSelector


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """The selectable fields of an object at one moment."""

    labels: Mapping[str, str]
    owners: Sequence[str]
    """UIDs of the owner references."""
    filed: Mapping[str, Sequence[str]]
    """Values by index, without the indexes whose function failed."""


@final
@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that all must hold; an empty one always does."""

    namespace: str = ""
    labels: LabelSelector | None = None
    owner: str = ""
    """The UID of an owner reference."""
    index: IndexKey[Any] | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether it distinguishes objects of one namespace."""
        return self.labels is not None or bool(self.owner) or self.index is not None

    def shows(self, shape: Shape) -> bool:
        """Whether the list contains such an object; True if unknown."""
        if self.labels is not None and not self.labels.matches(shape.labels):
            return False
        if self.owner and self.owner not in shape.owners:
            return False
        filed = None if self.index is None else shape.filed.get(self.index.name)
        return self.index is None or filed is None or self.index.answered_by(filed)


EVERYTHING: Final = Selection()
