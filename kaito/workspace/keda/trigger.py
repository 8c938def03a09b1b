"""Reads the metadata of a trigger of a ScaledObject: which object is scaled, and the targets of its load."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, final

from kaito.runtime.meta import ObjectKey

Metric = Literal["requests", "queue-seconds", "cache-usage-percent"]
"""Name of a metric. HorizontalPodAutoscalers have it in a path, in lower case."""

TARGETS: Final[Mapping[str, Metric]] = MappingProxyType(
    {"requests": "requests", "queueSeconds": "queue-seconds", "cacheUsagePercent": "cache-usage-percent"}
)
"""Fields of the metadata, those of `spec.autoscaling.target`, and the metric of each."""

_OBJECTS: Final = ("workspace", "inferenceSet")


class InvalidTrigger(ValueError):
    """The metadata of the trigger is not valid; the message names the field and the remedy."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What a trigger scales, and by what."""

    kind: Literal["Workspace", "InferenceSet"]
    key: ObjectKey
    targets: Mapping[Metric, float]
    """Load of each copy that is kept."""


def parse_trigger(name: str, namespace: str, metadata: Mapping[str, str]) -> Trigger:
    """Returns the trigger of a ScaledObject. Fields of KEDA itself, such as `scalerAddress`, are skipped.

    Args:
        name: name of the ScaledObject, for messages.
        namespace: its namespace, which is that of the scaled object.
        metadata: `metadata` of the trigger.

    Raises:
        InvalidTrigger: a field is missing, misspelled or has a value that is not valid.
    """
    known = {field.lower(): field for field in (*_OBJECTS, *TARGETS)}
    for given in metadata:
        meant = known.get(given.lower().replace("-", "").replace("_", ""), given)
        if meant != given:
            raise InvalidTrigger(f"metadata.{given} of the trigger is misspelled: write {meant}")
    objects = [field for field in _OBJECTS if metadata.get(field)]
    if not namespace or len(objects) != 1:
        raise InvalidTrigger(
            f"the trigger of ScaledObject {namespace}/{name} must name one object: set metadata.workspace to the name "
            "of a Workspace in the same namespace, or metadata.inferenceSet"
        )
    targets: dict[Metric, float] = {
        metric: _target(field, metadata[field]) for field, metric in TARGETS.items() if field in metadata
    }
    if not targets:
        raise InvalidTrigger("the trigger has no target: set metadata.requests, for example to '16'")
    kind: Literal["Workspace", "InferenceSet"] = "Workspace" if objects[0] == "workspace" else "InferenceSet"
    return Trigger(kind=kind, key=ObjectKey(namespace, metadata[objects[0]]), targets=targets)


def _target(field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    most = 100.0 if field == "cacheUsagePercent" else 1e6
    if not 0 < value <= most:  # false for NaN
        raise InvalidTrigger(f"metadata.{field} is {text!r}: it must be a number above 0 and at most {most:.0f}")
    return value
