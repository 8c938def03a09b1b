"""Validation rules of an InferenceSet that need its fields alone.

The admission webhook adds the rules of the Workspace that the template describes (`kaito.workspace.inference_sets`).
As for Workspaces, an update reports only the violations that it introduces.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from kaito.api import labels
from kaito.api.inference_set.bounds import bound
from kaito.api.inference_set.kind import NAME_LIMIT, InferenceSet
from kaito.api.inference_set.template import template_labels
from kaito.api.object_names import is_label_key, is_label_value
from kaito.api.violation import Violation
from kaito.api.windows import parse_duration, schedule_problem
from kaito.api.workspace.validation.annotations import KNOWN
from kaito.api.workspace.validation.autoscaling import target_violations

_DNS_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

_METADATA: Final = "spec.template.metadata"
_STRATEGY: Final = "spec.updateStrategy"
_WINDOW: Final = "spec.autoUpgrade.maintenanceWindow"

_TEMPLATE_METADATA: Final = ("labels", "annotations")

_OWNED_LABELS: Final = frozenset({labels.CREATED_BY_INFERENCESET, labels.INFERENCESET_REVISION})


def name_fits(inference_set: InferenceSet) -> Iterator[Violation]:
    """Checks that the name is valid for the Service and leaves room for the numbers of the Workspaces."""
    name = inference_set.name or (inference_set.metadata.generate_name or "")
    if len(name) > NAME_LIMIT:
        message = f"{name!r} has {len(name)} characters, its Workspaces allow {NAME_LIMIT}: choose a shorter name"
        yield Violation("metadata.name", message)
    if inference_set.name and not _DNS_1035.fullmatch(name):
        message = (
            f"{name!r} cannot name its Service: begin with a lower-case letter, go on with lower-case letters, digits "
            "and '-', end with a letter or digit"
        )
        yield Violation("metadata.name", message)


def template_metadata(inference_set: InferenceSet) -> Iterator[Violation]:
    """Checks that the metadata of the template contains only labels and annotations."""
    for key, value in inference_set.spec.template.metadata.items():
        if key == "creationTimestamp" and value is None:  # written by Go programs
            continue
        if key not in _TEMPLATE_METADATA:
            yield Violation(f"{_METADATA}.{key}", "has no effect on Workspaces: use labels and annotations only")
        elif value is not None and not isinstance(value, Mapping):
            yield Violation(f"{_METADATA}.{key}", f"must be a map of texts, not {type(value).__name__}")
        else:
            yield from _map_entries(f"{_METADATA}.{key}", cast("Mapping[object, Any]", value or {}))


def _map_entries(path: str, entries: Mapping[object, Any]) -> Iterator[Violation]:
    for key, value in entries.items():
        name = str(key)
        if not is_label_key(name):
            yield Violation(f"{path}[{name[:120]}]", "is not a key: use name, or domain/name")
        elif not isinstance(value, str):
            yield Violation(f"{path}[{name}]", f"must be a text, not {type(value).__name__}: put it in quotes")
        elif path.endswith("labels") and not is_label_value(value):
            message = f"{value[:80]!r} is not a label value: at most 63 letters, digits, '-', '_' and '.'"
            yield Violation(f"{path}[{name}]", message)


def template_labels_free(inference_set: InferenceSet) -> Iterator[Violation]:
    """Checks that the template sets no labels that the controllers own."""
    for key in sorted(template_labels(inference_set)):
        if labels.is_reserved(key) or key in _OWNED_LABELS:
            yield Violation(f"{_METADATA}.labels[{key}]", "is reserved for the controllers: use a label of your own")


def update_bounds(inference_set: InferenceSet) -> Iterator[Violation]:
    """Checks the strategy and bounds of a rolling update: one of them must allow progress."""
    strategy = inference_set.spec.update_strategy
    rolling = strategy.rolling_update
    if rolling is None:
        return
    where = f"{_STRATEGY}.rollingUpdate"
    if strategy.type == "OnDelete":
        yield Violation(where, "belongs to type RollingUpdate: remove it")
    if rolling.partition:
        message = (
            "is not supported: remove it; type OnDelete keeps Workspaces with the old template until you delete them"
        )
        yield Violation(f"{where}.partition", message)
    numbers: list[int] = []
    for field, value in (("maxUnavailable", rolling.max_unavailable), ("maxSurge", rolling.max_surge)):
        try:
            numbers.append(bound(value, 100))
        except ValueError as error:
            yield Violation(f"{where}.{field}", str(error))
    if numbers == [0, 0]:
        yield Violation(
            where, "maxUnavailable and maxSurge are both 0, so that no Workspace could be updated: raise one"
        )


def auto_upgrade(inference_set: InferenceSet) -> Iterator[Violation]:
    """Checks the window of automatic upgrades, and that the update strategy permits them."""
    upgrade = inference_set.spec.auto_upgrade
    if upgrade is None:
        return
    if upgrade.enabled and inference_set.spec.update_strategy.type == "OnDelete":
        message = "has no effect with updateStrategy.type OnDelete: use RollingUpdate, or remove it"
        yield Violation("spec.autoUpgrade.enabled", message)
    window = upgrade.maintenance_window
    if window is None:
        return
    if problem := schedule_problem(window.schedule):
        yield Violation(f"{_WINDOW}.schedule", problem)
    try:
        parse_duration(window.duration)
    except ValueError as error:
        yield Violation(f"{_WINDOW}.duration", str(error))


def autoscaling(inference_set: InferenceSet) -> Iterator[Violation]:
    """Checks the limits and targets of the autoscaler."""
    scaling = inference_set.spec.autoscaling
    if scaling is None:
        return
    field = "spec.autoscaling"
    if inference_set.spec.template.inference.preset is None:
        yield Violation(field, "is only for presets, whose servers report their load: remove it")
    if scaling.min_replicas == 0:
        message = "0 is only for Workspaces without a set, which a request starts again: use 1"
        yield Violation(f"{field}.minReplicas", message)
    if scaling.idle_seconds is not None:
        yield Violation(f"{field}.idleSeconds", "is only for Workspaces without a set: remove it")
    if scaling.max_replicas is not None and scaling.max_replicas < scaling.min_replicas:
        yield Violation(f"{field}.maxReplicas", f"{scaling.max_replicas} is less than minReplicas: raise it")
    yield from target_violations(scaling, field)


def known_annotations(inference_set: InferenceSet) -> Iterator[Violation]:
    """Reports annotations of Kaito's domains that neither a set nor its Workspaces have as warnings."""
    for key in sorted(inference_set.annotations):
        if labels.is_own(key) and key not in KNOWN and key.partition("/")[0] != SCALED_OBJECT_DOMAIN:
            yield Violation(f"metadata.annotations[{key[:120]}]", "is not an annotation of InferenceSets", "warning")


SCALED_OBJECT_DOMAIN: Final = "scaledobject.kaito.sh"
"""Domain of the annotations that the external scaler keda-kaito-scaler reads."""

RULES: Final[tuple[Callable[[InferenceSet], Iterator[Violation]], ...]] = (
    name_fits,
    template_metadata,
    template_labels_free,
    update_bounds,
    auto_upgrade,
    autoscaling,
    known_annotations,
)


def violations(inference_set: InferenceSet) -> list[Violation]:
    """Returns the violations and warnings of one state of an InferenceSet."""
    return [violation for rule in RULES for violation in rule(inference_set)]
