"""Keeps the source of a workload's weights.

The source is recorded in an annotation of the StatefulSet or Job. While the fields of the Workspace that select it are
unchanged, a reconcile takes the recorded source: an upgraded node or a changed setting of the installation does not
replace pods that run.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, cast, final

from kaito.api import Workspace, labels
from kaito.api.json_values import json_object
from kaito.api.workspace import PresetSpec
from kaito.models.weights import Weights, WeightsMethod
from kaito.runtime.kinds import Job, StatefulSet
from kaito.workspace.digest import digest

_METHODS: Final = frozenset({"Image", "ImageVolume", "Pull", "NodeCache", "Download"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsChoice:
    """The source of the weights of one workload."""

    weights: Weights
    inputs: str = ""
    """Digest of the fields of the Workspace that select the source."""
    is_provisional: bool = False
    """Whether the nodes, which do not all exist yet, may decide otherwise. No workload is created before."""


def preset_spec(workspace: Workspace) -> tuple[PresetSpec, str] | None:
    """Returns the preset that the Workspace serves or tunes, and the path of its field; None for a pod template."""
    if workspace.tuning is not None:
        return workspace.tuning.preset, "tuning.preset"
    if workspace.inference is not None and workspace.inference.preset is not None:
        return workspace.inference.preset, "inference.preset"
    return None


def weights_inputs(spec: PresetSpec) -> str:
    """Returns a digest of the fields that select the source."""
    options, weights = spec.preset_options, spec.preset_options.weights
    given = [spec.name.lower(), spec.access_mode, options.image, weights.source, weights.artifact, weights.cache_claim]
    return digest(given)


def weights_record(choice: WeightsChoice) -> str:
    """Returns the value of the annotation."""
    weights = choice.weights
    record = {
        "method": weights.method,
        "artifact": weights.artifact,
        "cacheClaim": weights.cache_claim,
        "cacheDirectory": weights.cache_directory,
        "inputs": choice.inputs,
    }
    return json.dumps({name: value for name, value in record.items() if value}, sort_keys=True)


def recorded_weights(workload: StatefulSet | Job | None, inputs: str) -> Weights | None:
    """Returns the source that a workload was created with; None if there is none, or if it was for other inputs."""
    if workload is None:
        return None
    try:
        record = json_object(cast("object", json.loads(workload.annotations.get(labels.WEIGHTS, ""))))
    except ValueError:
        return None
    if record.get("inputs") != inputs or record.get("method") not in _METHODS:
        return None

    def text(name: str) -> str:
        value: Any = record.get(name)
        return value if isinstance(value, str) else ""

    return Weights(
        method=cast("WeightsMethod", record["method"]),
        artifact=text("artifact"),
        cache_claim=text("cacheClaim"),
        cache_directory=text("cacheDirectory"),
    )
