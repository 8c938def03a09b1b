"""What the catalog and the instance types say about a Workspace at admission: pure, no cluster, no network.

`check` complements `kaito.api.workspace.validation.validate`, which looks at fields only. Called by the webhook on
create and update, and by the controller before it plans.
"""

from collections.abc import Iterator

from kaito.api import labels
from kaito.api.violation import Violation, introduced
from kaito.api.workspace import Workspace
from kaito.api.workspace.validation import NodeApi
from kaito.models import catalog, instance_types
from kaito.models.errors import InstanceTypeTooSmall, NoGpu, PlanError, UnknownInstanceType
from kaito.models.gpu import InstanceType
from kaito.models.instance_types import Cloud
from kaito.models.planning import plan_inference, plan_tuning
from kaito.models.preset import Preset, RuntimeName


def check(
    workspace: Workspace, old: Workspace | None = None, *, node_api: NodeApi = "machine", cloud: Cloud = "azure"
) -> list[Violation]:
    """What is wrong with the preset and the instance type; on update (`old` given) only what the update makes wrong.

    With existing nodes (`byo`) the instance type is not looked at: the controller reads the nodes' labels.
    """
    if workspace.deleting:
        return []
    found = list(_violations(workspace, node_api, cloud))
    return found if old is None else introduced(_violations(old, node_api, cloud), found)


def _violations(workspace: Workspace, node_api: NodeApi, cloud: Cloud) -> Iterator[Violation]:
    preset, instance = None, None
    try:
        preset = preset_of(workspace)
    except PlanError as error:
        yield error.violation()
    if node_api != "byo" and workspace.resource.instance_type:
        try:
            instance = instance_type_of(workspace, cloud)
        except PlanError as error:
            yield error.violation()
    if preset and instance:
        yield from _plan(workspace, preset, instance, cloud)
    if preset:
        yield from _credentials(workspace, preset)


def preset_of(workspace: Workspace) -> Preset | None:
    """The preset that the Workspace names; None for a pod template.

    Raises:
        UnknownPreset: the catalog does not have it.
    """
    if workspace.inference and workspace.inference.preset:
        return catalog.get(workspace.inference.preset.name)
    if workspace.tuning:
        return catalog.get(workspace.tuning.preset.name, field=catalog.TUNING_FIELD)
    return None


def instance_type_of(workspace: Workspace, cloud: Cloud) -> InstanceType | None:
    """The instance type that the Workspace names; None when it is not in the table and need not be.

    A pod template contains its own requests, and nothing is computed for it: it may run on a size without a GPU, and on
    a size that is newer than the table.

    Raises:
        UnknownInstanceType, NoGpu: nothing can be planned for it.
    """
    name = workspace.resource.instance_type
    is_template = workspace.inference is not None and workspace.inference.template is not None
    try:
        return instance_types.get(name, cloud)
    except (UnknownInstanceType, NoGpu):
        if is_template and instance_types.may_exist(name, cloud):
            return None
        raise


def wanted_runtime(workspace: Workspace) -> RuntimeName | None:
    """The runtime that the annotation asks for; None when absent or not understood (validation says so)."""
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
            warnings = _inference_warnings(workspace, preset, instance, cloud)
    except InstanceTypeTooSmall as error:
        # A configuration file may change what the model takes. The controller reads it and sizes again.
        if not (workspace.inference and workspace.inference.config):
            yield error.violation()
        return
    except PlanError as error:
        yield error.violation()
        return
    for warning in warnings:
        field, _, message = warning.partition(": ")
        yield Violation(field, message, "warning")


def _inference_warnings(workspace: Workspace, preset: Preset, instance: InstanceType, cloud: Cloud) -> tuple[str, ...]:
    adapters = workspace.inference.adapters if workspace.inference else []
    plan = plan_inference(
        preset,
        instance,
        nodes=workspace.resource.count,
        runtime=wanted_runtime(workspace),
        adapters=len(adapters),
        cloud=cloud,
        bypass_size=labels.is_true(workspace.annotations.get(labels.BYPASS_RESOURCE_CHECKS)),
    )
    count = workspace.resource.count
    if count > 1:
        # Upstream computes the nodes that one copy needs and ignores a larger number; the same object costs more here.
        several = (
            f"resource.count: is {count}: {count} nodes are used, and each serves a whole copy of {preset.name}: "
            "for one copy set it to 1"
        )
        return (several, *plan.warnings)
    return plan.warnings


def _credentials(workspace: Workspace, preset: Preset) -> Iterator[Violation]:
    """A gated model that is downloaded needs a token."""
    field = "inference.preset" if workspace.inference else "tuning.preset"
    spec = workspace.inference.preset if workspace.inference else workspace.tuning.preset if workspace.tuning else None
    if spec is None or spec.access_mode == "private":
        return
    if preset.gated and not preset.image_tag and not spec.preset_options.model_access_secret:
        yield Violation(
            f"{field}.presetOptions.modelAccessSecret",
            f"is empty, and {preset.repository} is gated: name the Secret whose key HF_TOKEN holds a token with access",
        )
