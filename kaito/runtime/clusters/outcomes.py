"""`Outcomes`: the results of a function that ran for several clusters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from kaito.runtime.errors import raise_collected

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """Results and errors of `ClusterSet.each`, by name of the cluster."""

    results: Mapping[str, T]
    errors: Mapping[str, Exception]
    """`ClusterUnavailable` for clusters that were skipped or did not answer in time."""

    def raise_errors(self) -> None:
        """Raises the only error, or a group of all; does nothing if there is none."""
        raise_collected(list(self.errors.values()), "clusters")
