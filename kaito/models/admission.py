"""Checks a Workspace against the catalog and the instance types, without cluster or network.

`check` complements `kaito.api.workspace.validation.validate`, which checks only the fields. The webhook calls it on
create and update, and the controller before it plans.
"""

from collections.abc import Iterator
from typing import Final

from kaito.api import labels
from kaito.api.violation import Violation, introduced
from kaito.api.workspace import Workspace
from kaito.api.workspace.validation import NodeApi
from kaito.models import catalog, instance_types
from kaito.models.alternatives import FIELD as ALTERNATIVES_FIELD, alternatives, resolved
from kaito.models.copies import COUNT_FIELD, REPLICAS_FIELD, nodes_of, wanted_copies
from kaito.models.errors import InstanceTypeTooSmall, NoGpu, PlanError, UnknownInstanceType
from kaito.models.gpu import InstanceType
from kaito.models.instance_types import FIELD as INSTANCE_FIELD, Cloud
from kaito.models.partitions import MigStrategy, divided
from kaito.models.planning import InferencePlan, plan_inference, plan_tuning
from kaito.models.preset import Preset, RuntimeName
from kaito.models.weights import WeightsDefaults, WeightsUnavailable, select_weights

_DEFAULTS: Final = WeightsDefaults()


def check(
    workspace: Workspace,
    old: Workspace | None = None,
    *,
    node_api: NodeApi = "machine",
    cloud: Cloud = "azure",
    weights: WeightsDefaults = _DEFAULTS,
    preset: Preset | None = None,
) -> list[Violation]:
    """Returns the violations of preset and instance type, or those that an update from `old` introduces.

    With existing nodes (`byo`) the instance type is not checked: the controller reads the nodes' labels. A model that
    is not in the catalog is checked only if `preset` contains its facts.
    """
    if workspace.deleting:
        return []
    found = list(_violations(workspace, node_api, cloud, weights, preset))
    return found if old is None else introduced(_violations(old, node_api, cloud, weights, preset), found)


def wrong_names(workspace: Workspace, *, node_api: NodeApi = "machine", cloud: Cloud = "azure") -> list[Violation]:
    """Returns the errors of the names alone: an unknown preset, and instance types of which none can be used.

    Nothing else, such as annotations of a stored Workspace, changes them.
    """
    found: list[Violation] = []
    try:
        preset_of(workspace)
    except PlanError as error:
        found.append(error.violation())
    named = alternatives(workspace) or tuple(filter(None, (workspace.resource.instance_type,)))
    refused: list[Violation] = []
    for index, name in enumerate(named if node_api != "byo" else ()):
        try:
            instance_type_of(resolved(workspace, name), cloud)
        except PlanError as error:
            field = f"{ALTERNATIVES_FIELD}[{index}]" if alternatives(workspace) else error.field
            refused.append(Violation(field, error.message))
    return found + (refused if len(refused) == len(named) else [])


def _violations(
    workspace: Workspace, node_api: NodeApi, cloud: Cloud, weights: WeightsDefaults, preset: Preset | None
) -> Iterator[Violation]:
    try:
        if preset is None:
            preset = preset_of(workspace)
            yield from _outside(workspace)
    except PlanError as error:
        yield error.violation()
    if node_api != "byo":
        yield from _hardware(workspace, preset, cloud)
    if preset:
        yield from _weights(workspace, preset, weights)
        yield from _adapter_names(workspace, preset)


def _hardware(workspace: Workspace, preset: Preset | None, cloud: Cloud) -> Iterator[Violation]:
    """Checks the instance type, or that one of the alternatives can run the model."""
    named = alternatives(workspace)
    if not named:
        yield from _of_instance_type(workspace, preset, cloud)
        return
    found = [list(_of_instance_type(resolved(workspace, name), preset, cloud)) for name in named]
    possible = [not any(violation.severity == "error" for violation in each) for each in found]
    for index, (name, violations) in enumerate(zip(named, found, strict=True)):
        # What holds for every alternative is reported once.
        common = {str(each) for each in found[0]} if index else set[str]()
        for each in violations:
            if str(each) in common:
                continue
            field = each.field
            message = each.message
            if field == INSTANCE_FIELD:
                field = f"{ALTERNATIVES_FIELD}[{index}]"
                message = each.message if name in each.message else f"{name} {each.message}"
            if each.severity == "error" and any(possible):
                yield Violation(field, f"{message}; this alternative is skipped", "warning")
            else:
                yield Violation(field, message, each.severity)


def _of_instance_type(workspace: Workspace, preset: Preset | None, cloud: Cloud) -> Iterator[Violation]:
    """Checks the only instance type of a Workspace, and the preset on it."""
    if not workspace.resource.instance_type:
        return
    try:
        instance = instance_type_of(workspace, cloud)
    except PlanError as error:
        yield error.violation()
        return
    if preset and instance:
        yield from _plan(workspace, preset, instance, cloud)


def preset_of(workspace: Workspace) -> Preset | None:
    """Returns the catalog's preset of the Workspace; None for a pod template, and for a model outside the catalog.

    Raises:
        UnknownPreset: the name is neither in the catalog nor a Hugging Face ID.
    """
    named = _named(workspace)
    if named is None:
        return None
    name, field = named
    return None if catalog.outside(name, field=field) else catalog.get(name, field=field)


def _named(workspace: Workspace) -> tuple[str, str] | None:
    """Returns the name of the preset and its field; None for a pod template."""
    if workspace.inference and workspace.inference.preset:
        return workspace.inference.preset.name, catalog.INFERENCE_FIELD
    return (workspace.tuning.preset.name, catalog.TUNING_FIELD) if workspace.tuning else None


def _outside(workspace: Workspace) -> Iterator[Violation]:
    """Warns that a model outside the catalog is not checked at admission."""
    named = _named(workspace)
    if named is None or catalog.outside(named[0], field=named[1]) is None:
        return
    name, field = named
    yield Violation(
        field,
        f"{name!r} is not in the catalog{catalog.near(name)}: the controller reads its size and dimensions before it "
        "creates a node, and reports in the condition ModelResolved whether it can be served",
        "warning",
    )


def instance_type_of(
    workspace: Workspace, cloud: Cloud, *, mig_strategy: MigStrategy = "single"
) -> InstanceType | None:
    """Returns the instance type of the Workspace; None for a pod template if the table does not contain it.

    A pod template contains its own requests, so that it may run on an instance type without a GPU, or on one that is
    newer than the table. With `resource.partition`, the GPUs are divided.

    Raises:
        UnknownInstanceType, NoGpu: a preset cannot be planned for the instance type.
        PartitionUnavailable: its GPUs do not have the part.
    """
    partition = workspace.resource.partition
    found = _whole_instance_type(workspace, cloud)
    if found is None or partition is None or not partition.profile:
        return found
    return divided(found, partition, mig_strategy)


def _whole_instance_type(workspace: Workspace, cloud: Cloud) -> InstanceType | None:
    name = workspace.resource.instance_type
    is_template = workspace.inference is not None and workspace.inference.template is not None
    try:
        return instance_types.get(name, cloud)
    except (UnknownInstanceType, NoGpu):
        if is_template and instance_types.may_exist(name, cloud):
            return None
        raise


def wanted_runtime(workspace: Workspace) -> RuntimeName | None:
    """Returns the runtime in the annotation; None if it is missing or invalid, which validation reports."""
    match workspace.annotations.get(labels.RUNTIME, "").strip().lower():
        case "transformers":
            return "transformers"
        case "vllm":
            return "vllm"
        case _:
            return None


def _plan(workspace: Workspace, preset: Preset, instance: InstanceType, cloud: Cloud) -> Iterator[Violation]:
    try:
        if workspace.tuning:
            warnings = plan_tuning(preset, instance, method=workspace.tuning.method).warnings
        else:
            plan = _inference_plan(workspace, preset, instance, cloud)
            warnings = _inference_warnings(workspace, plan)
            yield from _unreported_load(workspace, plan)
    except InstanceTypeTooSmall as error:
        # A configuration file may change the memory that the model needs. The controller reads it and sizes again.
        if not (workspace.inference and workspace.inference.config):
            yield error.violation()
        return
    except PlanError as error:
        yield error.violation()
        return
    for warning in warnings:
        field, _, message = warning.partition(": ")
        yield Violation(field, message, "warning")


def _inference_plan(workspace: Workspace, preset: Preset, instance: InstanceType, cloud: Cloud) -> InferencePlan:
    adapters = workspace.inference.adapters if workspace.inference else []
    return plan_inference(
        preset,
        instance,
        runtime=wanted_runtime(workspace),
        adapters=len(adapters),
        cloud=cloud,
        bypass_size=labels.is_true(workspace.annotations.get(labels.BYPASS_RESOURCE_CHECKS)),
    )


def _inference_warnings(workspace: Workspace, plan: InferencePlan) -> tuple[str, ...]:
    copies = wanted_copies(workspace, plan.nodes_per_copy, plan.copies_per_node)
    is_own_choice = plan.nodes_per_copy == 1 and copies != workspace.resource.count
    field = COUNT_FIELD if copies == workspace.resource.count else REPLICAS_FIELD
    several = "" if is_own_choice or copies == 0 else _nodes_warning(copies, plan, field)
    return (several, *plan.warnings) if several else plan.warnings


def _nodes_warning(copies: int, plan: InferencePlan, field: str) -> str:
    """Returns a warning with the number of nodes; empty for one node.

    Upstream uses as many nodes as one copy needs and ignores a larger count, so the same object costs more here.
    """
    name, each = plan.preset.name, plan.nodes_per_copy
    nodes = nodes_of(copies, each, plan.copies_per_node)
    if plan.instance.profile:
        used = f"{nodes} node{'s are' if nodes > 1 else ' is'} used for {copies} cop{'ies' if copies > 1 else 'y'}"
        return f"{field}: is {copies}: {used} of {name}: {plan.explanation}"
    if each == 1 and copies > 1:
        return (
            f"{field}: is {copies}: {copies} nodes are used, and each serves a whole copy of {name}: "
            "set it to 1 for one copy"
        )
    if each == 1:
        return ""
    if copies == 1:
        return f"{INSTANCE_FIELD}: {nodes} nodes are used for one copy of {name}: {plan.explanation}"
    return (
        f"{field}: is {copies}: {nodes} nodes are used for {copies} copies of {name}: {plan.explanation}: set it "
        f"to 1 for one copy on {each} nodes"
    )


def _adapter_names(workspace: Workspace, preset: Preset) -> Iterator[Violation]:
    """Checks that no adapter has the name that requests use for the model."""
    for index, adapter in enumerate(workspace.inference.adapters if workspace.inference else ()):
        if adapter.source.name == preset.name:
            message = f"{preset.name!r} is the name of the model in requests: use another name"
            yield Violation(f"inference.adapters[{index}].source.name", message)


def _unreported_load(workspace: Workspace, plan: InferencePlan) -> Iterator[Violation]:
    """Checks that the servers report the load that copies are scaled by; without it, no copy is ever removed."""
    scaling = workspace.spec.autoscaling
    if plan.runtime != "transformers" or scaling is None or scaling.target is None:
        return
    target = {"queueSeconds": scaling.target.queue_seconds, "cacheUsagePercent": scaling.target.cache_usage_percent}
    for name in (name for name, value in target.items() if value is not None):
        message = (
            f"is not reported by the transformers runtime, on which {plan.preset.name} runs here, so that no copy "
            "would be removed: use target.requests"
        )
        yield Violation(f"spec.autoscaling.target.{name}", message)


def _weights(workspace: Workspace, preset: Preset, defaults: WeightsDefaults) -> Iterator[Violation]:
    """Checks that the source of the weights is known, and that a gated model that is downloaded has a token."""
    field = "inference.preset" if workspace.inference else "tuning.preset"
    spec = workspace.inference.preset if workspace.inference else workspace.tuning.preset if workspace.tuning else None
    if spec is None:
        return
    try:
        selected = select_weights(spec, preset, defaults, path=field, image_volumes=False)
    except WeightsUnavailable as error:
        yield error.violation()
        return
    if preset.gated and selected.downloads and not spec.preset_options.model_access_secret:
        yield Violation(
            f"{field}.presetOptions.modelAccessSecret",
            f"is empty, and {preset.repository} is gated: name a Secret whose key HF_TOKEN contains a token",
        )
