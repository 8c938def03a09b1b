"""Computes the plan of a Workspace: nodes, images and commands.

`kaito.models.planning` decides whether and how a preset runs. The functions here add the fields of the Workspace and
the settings of the controller. They are pure; `preflight.planning` calls them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kaito.api import Workspace, labels
from kaito.api.workspace import PresetSpec, TuningSpec
from kaito.models.admission import wanted_runtime
from kaito.models.commands import PERFORMANCE_MODES, inference_command, inference_environment, tuning_command
from kaito.models.copies import wanted_copies
from kaito.models.engine import DEFAULT_ENGINE, EngineSettings
from kaito.models.errors import RuntimeUnsupported
from kaito.models.gpu import GIB, InstanceType
from kaito.models.instance_types import cloud_name
from kaito.models.planning import PresetPlan, plan_inference, plan_tuning
from kaito.models.preset import Preset, RuntimeName
from kaito.models.runtime import RUNTIME_FIELD
from kaito.runtime.meta import Quantity
from kaito.workspace.capacity_types import capacity_types
from kaito.workspace.images import runtime_image
from kaito.workspace.manifests.tuning import PUSH_CREDENTIALS_FILE
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.pod_options import pod_options, pull_secrets
from kaito.workspace.settings import DEFAULT_HUB, WorkspaceSettings
from kaito.workspace.weights import WeightsChoice, preset_spec

_TEMPLATE_DISK = Quantity("1024Gi")
"""Disk for a pod template, because the sizes of its images are unknown (upstream Kaito v0.12)."""

_ALLOCATABLE_DISK: Final = 0.85
"""Part of a node's disk that pods can request: the kubelet keeps 10 % free, and AKS reserves some more."""


def template_plan(workspace: Workspace, instance: InstanceType | None, settings: WorkspaceSettings) -> Plan:
    """Returns the plan of a pod template; its nodes need no GPU if the instance type is not in the table."""
    hardware = Hardware(
        copies=wanted_copies(workspace),
        instance_type=cloud_name(workspace.resource.instance_type, settings.cloud),
        capacity_types=capacity_types(workspace),
        on_demand_copies=workspace.resource.on_demand_copies or 0,
        zones=tuple(dict.fromkeys(workspace.resource.zones)),
        gpus=instance.gpus if instance else 0,
        gpu_resource=instance.resource_name if instance else labels.NVIDIA_GPU,
        disk=_TEMPLATE_DISK,
    )
    return Plan(hardware=hardware, container=None)


def inference_plan(
    workspace: Workspace,
    preset: Preset,
    instance: InstanceType,
    settings: WorkspaceSettings,
    *,
    choice: WeightsChoice,
    engine: EngineSettings = DEFAULT_ENGINE,
) -> Plan:
    """Returns the plan of a preset that is served.

    Args:
        workspace: the Workspace.
        preset: the model to serve.
        instance: the nodes' instance type.
        settings: of the controller.
        choice: source of the weights.
        engine: settings of the user's configuration file.

    Raises:
        PlanError: the preset cannot be served with these settings.
    """
    inference = workspace.inference
    adapters = len(inference.adapters) if inference else 0
    wanted = wanted_runtime(workspace)
    if wanted == "vllm" and not settings.vllm:
        raise RuntimeUnsupported(RUNTIME_FIELD, "is vllm, which the feature gate vLLM=false disables: remove it")
    planned = plan_inference(
        preset,
        instance,
        runtime=wanted if settings.vllm else "transformers",
        adapters=adapters,
        engine=engine,
        cloud=settings.cloud,
        bypass_size=labels.is_true(workspace.annotations.get(labels.BYPASS_RESOURCE_CHECKS)),
    )
    copies = wanted_copies(workspace, planned.nodes_per_copy, planned.copies_per_node)
    planned = replace(planned, copies=copies)
    source = choice.weights.model_source(preset)
    config = bool(inference and inference.config)
    mode = performance_mode(workspace)
    if mode in PERFORMANCE_MODES and planned.runtime != "vllm":
        message = f"is {mode}, which only vllm supports, and {preset.name} runs on {planned.runtime}: remove it"
        raise RuntimeUnsupported(f"metadata.annotations[{labels.PERFORMANCE_MODE}]", message)
    command = inference_command(planned, source=source, adapters=bool(adapters), config=config, performance_mode=mode)
    container = replace(
        _container(workspace, preset, planned.runtime, settings, choice, command),
        env={**_hub_environment(settings, choice), **inference_environment(planned)},
        readiness_seconds=planned.readiness_timeout.total_seconds(),
    )
    if planned.nodes_per_copy > 1:
        # The workers of a group have no server that pulls adapters.
        container = replace(container, follows_adapter_list=False)
    return Plan(
        hardware=_hardware(workspace, planned, settings, copies=copies, nodes_per_copy=planned.nodes_per_copy),
        container=container,
        model=planned,
        explanation=planned.explanation,
        warnings=planned.warnings,
    )


def tuning_plan(
    workspace: Workspace,
    tuning: TuningSpec,
    preset: Preset,
    instance: InstanceType,
    settings: WorkspaceSettings,
    *,
    choice: WeightsChoice,
) -> Plan:
    """Returns the plan of a preset that is tuned on one node.

    Raises:
        PlanError: the preset cannot be tuned.
    """
    planned = plan_tuning(preset, instance, method=tuning.method)
    source = choice.weights.model_source(preset)
    command = tuning_command(
        planned, source=source, push_image=tuning.output.image, docker_config=PUSH_CREDENTIALS_FILE
    )
    container = replace(
        _container(workspace, preset, "transformers", settings, choice, command),
        env=_hub_environment(settings, choice),
    )
    hardware = _hardware(workspace, planned, settings, copies=1)
    return Plan(hardware=hardware, container=container, model=planned, warnings=planned.warnings)


def performance_mode(workspace: Workspace) -> str:
    """Returns the value of vLLM's flag `--performance-mode`; empty for the default."""
    return workspace.annotations.get(labels.PERFORMANCE_MODE, "").strip().lower()


def access_secret(workspace: Workspace) -> str:
    """Returns the name of the Secret with the token for a gated model; empty for none."""
    given = _preset_spec(workspace)
    return given.preset_options.model_access_secret if given else ""


def _container(
    workspace: Workspace,
    preset: Preset,
    runtime: RuntimeName,
    settings: WorkspaceSettings,
    choice: WeightsChoice,
    command: Sequence[str],
) -> ModelContainer:
    """Returns the container; a private image contains model and server, and the runtime's image the other programs."""
    program_image = runtime_image(runtime, settings)
    return ModelContainer(
        preset=preset.name,
        image=_private_image(workspace) or program_image,
        tools_image=program_image,
        pull_secrets=pull_secrets(workspace, settings.pod_defaults),
        command=tuple(command),
        access_secret=access_secret(workspace),
        # A private image contains a server of an unknown version.
        follows_adapter_list=not _private_image(workspace),
        is_private=bool(_private_image(workspace)),
        weights=choice.weights,
        is_weights_provisional=choice.is_provisional,
        weights_inputs=choice.inputs,
    )


def _hub_environment(settings: WorkspaceSettings, choice: WeightsChoice) -> dict[str, str]:
    """Returns the address from which a pod downloads, if it is a mirror."""
    is_mirror = settings.hub_endpoint not in {"", DEFAULT_HUB}
    return {"HF_ENDPOINT": settings.hub_endpoint} if is_mirror and choice.weights.downloads else {}


def _hardware(
    workspace: Workspace, planned: PresetPlan, settings: WorkspaceSettings, *, copies: int, nodes_per_copy: int = 1
) -> Hardware:
    return Hardware(
        copies=copies,
        nodes_per_copy=nodes_per_copy,
        copies_per_node=planned.instance.slices,
        instance_type=cloud_name(workspace.resource.instance_type, settings.cloud),
        capacity_types=capacity_types(workspace),
        on_demand_copies=workspace.resource.on_demand_copies or 0,
        zones=tuple(dict.fromkeys(workspace.resource.zones)),
        gpus=planned.gpus,
        gpu_resource=planned.resource_name,
        gpu_profile=planned.instance.profile,
        disk=max(planned.disk, _requested_disk(workspace, planned, settings)),
    )


def _requested_disk(workspace: Workspace, planned: PresetPlan, settings: WorkspaceSettings) -> Quantity:
    """Returns the disk that a node needs for what `podOptions` requests for each copy on it; 0 without a request."""
    resources = pod_options(workspace, settings.pod_defaults).resources
    requested = {**resources.limits, **resources.requests}.get("ephemeral-storage", Quantity(0))
    return Quantity.gib(math.ceil(float(requested * planned.instance.slices) / _ALLOCATABLE_DISK / GIB))


def _preset_spec(workspace: Workspace) -> PresetSpec | None:
    found = preset_spec(workspace)
    return found[0] if found is not None else None


def _private_image(workspace: Workspace) -> str:
    """Returns the image of a model with access mode `private`; empty for a public one."""
    given = _preset_spec(workspace)
    return given.preset_options.image if given is not None and given.access_mode == "private" else ""
