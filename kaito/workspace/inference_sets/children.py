"""Renders the Workspaces of an InferenceSet, and evaluates those that exist.

A Workspace of a set is named `<set>-<number>`, with the lowest number that no Workspace of the namespace has. Creating
one twice, after a crash or with a stale cache, therefore ends in the same name and not in a second Workspace.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Final, Literal, final

from kaito.api import InferenceSet, Workspace, conditions, labels
from kaito.api.inference_set.template import template_annotations, template_labels
from kaito.api.workspace import NodeSelector, ResourceSpec, WorkspaceSpec
from kaito.api.workspace.validation import TRANSITION_RULES
from kaito.api.workspace.validation.annotations import SETTABLE
from kaito.models.copies import copies_per_workspace
from kaito.runtime.kinds import StatefulSet
from kaito.runtime.meta import Condition, Model, ObjectMeta, find_condition
from kaito.workspace.digest import digest

INHERITED_ANNOTATIONS: Final = SETTABLE - {labels.ENABLE_LOAD_BALANCER}
"""Annotations of an InferenceSet that its Workspaces inherit unless the template has them. The load balancer belongs to
the Service of the set."""

Change = Literal["none", "in-place", "replace"]
"""What a Workspace needs for the current template."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A Workspace of the set and its state."""

    name: str
    number: int
    """Number in the name; a large one for a Workspace that another controller named."""
    change: Change = "none"
    is_serving: bool = False
    """Whether its pods are ready."""
    is_partial: bool = False
    """Whether some of its copies are ready, but not all."""
    is_settled: bool = False
    """Whether it is ready with everything that was requested: no pod is about to be replaced."""
    is_deleting: bool = False
    requests: float | None = None
    """Running and waiting requests; None if they are unknown or were not read."""
    created: datetime | None = None
    """When it was created."""
    nodes: int = 0
    """Number of nodes that it needs; 0 if unknown."""
    pending: str = ""
    """Digest of the pod template of a new release that waits for the set; empty if there is none."""
    cause: str = ""
    """Why it is not settled."""

    @property
    def has_ready_copy(self) -> bool:
        """Whether it answers requests, with all copies or with some."""
        return self.is_serving or self.is_partial


UNNUMBERED: Final = 1_000_000


def child_annotations(inference_set: InferenceSet) -> dict[str, str]:
    """Returns the annotations of the Workspaces."""
    inherited = {key: value for key, value in inference_set.annotations.items() if key in INHERITED_ANNOTATIONS}
    return {**inherited, **template_annotations(inference_set)}


def revision(inference_set: InferenceSet) -> str:
    """Returns the digest of everything that Workspaces take from the set except labels, which change no pod."""
    spec = inference_set.spec
    return digest(
        {
            "annotations": child_annotations(inference_set),
            "labelSelector": spec.label_selector.to_dict(),
            "resource": _without_defaults(spec.template.resource),
            "inference": _without_defaults(spec.template.inference),
        }
    )[:10]


def _without_defaults(model: Model) -> dict[str, Any]:
    """Returns the fields that differ from their defaults, so that a new field of a later release changes nothing."""
    return model.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def child_workspace(inference_set: InferenceSet, name: str, *, upgrade_to: str = "") -> Workspace:
    """Renders a Workspace of the set.

    Args:
        inference_set: the set.
        name: of the Workspace.
        upgrade_to: digest of the pod template of a new release that the Workspace may apply; empty for none.
    """
    spec, template = inference_set.spec, inference_set.spec.template
    copies = copies_per_workspace(inference_set)
    resource = {"count": copies, **template.resource.to_dict()}
    return Workspace(
        metadata=ObjectMeta(
            name=name,
            namespace=inference_set.namespace,
            labels={
                **template_labels(inference_set),
                labels.CREATED_BY_INFERENCESET: inference_set.name,
                labels.INFERENCESET_REVISION: revision(inference_set),
            },
            annotations=child_annotations(inference_set) | ({labels.UPGRADE_TO: upgrade_to} if upgrade_to else {}),
        ),
        spec=WorkspaceSpec(replicas=copies),
        resource=ResourceSpec.model_validate(
            resource | {"labelSelector": NodeSelector.model_validate(spec.label_selector.to_dict())}
        ),
        inference=template.inference,
    )


def evaluate_child(
    inference_set: InferenceSet, workspace: Workspace, stateful_set: StatefulSet | None, upgrade: Change = "none"
) -> Child:
    """Returns the state of a Workspace of the set.

    Args:
        inference_set: the set.
        workspace: the Workspace.
        stateful_set: its StatefulSet.
        upgrade: how pods of a new release reach the Workspace now; `none` if they wait.
    """
    pending = workspace.status.pending_template
    change = "none" if workspace.deleting else _change(inference_set, workspace)
    inference = find_condition(workspace.status.conditions, conditions.INFERENCE_READY)
    summary = find_condition(workspace.status.conditions, conditions.WORKSPACE_SUCCEEDED)
    is_observed = workspace.status.observed_generation >= workspace.metadata.generation
    is_serving = inference is not None and inference.is_true and not workspace.deleting
    is_ready = is_serving and is_observed and summary is not None and summary.is_true
    is_rolled = stateful_set is not None and is_rolled_out(stateful_set)
    is_partial = not is_serving and not workspace.deleting and (workspace.spec.replicas or 1) > 1
    return Child(
        name=workspace.name,
        number=_number(inference_set, workspace.name),
        change=upgrade if change == "none" and pending and not workspace.deleting else change,
        pending=pending,
        is_serving=is_serving,
        is_partial=is_partial and workspace.status.ready_replicas > 0,
        is_settled=is_ready and is_rolled,
        is_deleting=workspace.deleting,
        created=workspace.metadata.creation_timestamp,
        nodes=workspace.status.target_node_count,
        cause=_cause(workspace, inference if inference is not None and not inference.is_true else summary),
    )


def is_rolled_out(stateful_set: StatefulSet) -> bool:
    """Whether every pod of the StatefulSet has its current template and is ready."""
    status, wanted = stateful_set.status, 1 if stateful_set.spec.replicas is None else stateful_set.spec.replicas
    is_updated = status.update_revision == status.current_revision or status.updated_replicas >= wanted
    return (
        status.observed_generation >= stateful_set.metadata.generation
        and is_updated
        and status.ready_replicas >= wanted
    )


def free_names(inference_set: InferenceSet, taken: Iterable[str]) -> Iterator[str]:
    """Yields names for new Workspaces, lowest number first, without those of existing objects."""
    used = set(taken)
    return (name for number in count() if (name := f"{inference_set.name}-{number}") not in used)


def _number(inference_set: InferenceSet, name: str) -> int:
    prefix, _, digits = name.rpartition("-")
    is_numbered = prefix == inference_set.name and digits.isascii() and digits.isdigit() and len(digits) < 6
    return int(digits) if is_numbered else UNNUMBERED


def _change(inference_set: InferenceSet, workspace: Workspace) -> Change:
    """Returns how the current template reaches the Workspace, by the rules for updates of Workspaces."""
    if workspace.labels.get(labels.INFERENCESET_REVISION) == revision(inference_set):
        return "none"
    wanted = child_workspace(inference_set, workspace.name)
    forbidden = any(True for rule in TRANSITION_RULES for _ in rule.check(workspace, wanted))
    return "replace" if forbidden else "in-place"


def _cause(workspace: Workspace, condition: Condition | None) -> str:
    """Returns why a Workspace is not ready, for the message of a condition."""
    if workspace.deleting:
        return "is being deleted"
    if condition is None:
        return "has not been reconciled yet"
    if condition.is_true:
        return "applies its last change"
    return ": ".join(filter(None, (condition.reason, condition.message)))
