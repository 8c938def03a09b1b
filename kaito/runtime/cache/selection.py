"""What a list asks for, so that it waits for those own writes only that could change its answer.

The cache makes one per list; `own_writes` holds it against what was written, the shard against what it stores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from kaito.runtime.client.consistency import IndexKey
from kaito.runtime.meta import LabelSelector


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """What lists can ask of an object, as of one moment."""

    labels: Mapping[str, str]
    owners: Sequence[str]
    """UIDs of the owner references."""
    filed: Mapping[str, Sequence[str]]
    """Values by index; an index that could not tell is missing."""


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
        """Whether it tells apart objects of one namespace."""
        return self.labels is not None or bool(self.owner) or self.index is not None

    def shows(self, shape: Shape) -> bool:
        """Whether the list contains such an object; in doubt it does."""
        if self.labels is not None and not self.labels.matches(shape.labels):
            return False
        if self.owner and self.owner not in shape.owners:
            return False
        filed = None if self.index is None else shape.filed.get(self.index.name)
        return self.index is None or filed is None or self.index.answered_by(filed)


EVERYTHING: Final = Selection()
