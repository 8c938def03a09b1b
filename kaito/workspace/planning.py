"""From a Workspace and the catalog to a plan: nodes, images, commands. Pure; `steps.plan` is the caller.

The catalog's own planning (`kaito.models.planning`) decides whether and how a preset runs; this adds what only the
Workspace and the controller's settings know.
"""

from kaito.api import Workspace, labels
from kaito.api.workspace import PresetSpec, TuningSpec, counts
from kaito.models.admission import wanted_runtime
from kaito.models.commands import PERFORMANCE_MODES, inference_command, inference_environment, tuning_command
from kaito.models.engine import NO_OPTIONS, EngineOptions
from kaito.models.errors import RuntimeUnsupported
from kaito.models.gpu import InstanceType
from kaito.models.instance_types import cloud_name
from kaito.models.planning import InferencePlan, TuningPlan, plan_inference, plan_tuning
from kaito.models.preset import Preset
from kaito.models.runtime import RUNTIME_FIELD
from kaito.models.sources import Download, ModelSource, model_source
from kaito.runtime.meta import Quantity
from kaito.workspace.manifests.tuning import PUSH_CREDENTIALS_FILE
from kaito.workspace.plan import Hardware, Plan, Serving
from kaito.workspace.settings import WorkspaceSettings

BASE_IMAGE = "kaito-base:0.5.0"
"""Image of the servers without weights; tag of upstream Kaito v0.12."""

_TEMPLATE_DISK = Quantity("1024Gi")
"""Disk for a pod template, whose image sizes nobody knows (upstream Kaito v0.12)."""


def template_plan(workspace: Workspace, instance: InstanceType | None, settings: WorkspaceSettings) -> Plan:
    """The plan of a pod template; GPUs are not looked for when the table does not know the instance type."""
    hardware = Hardware(
        count=node_count(workspace),
        instance_type=cloud_name(workspace.resource.instance_type, settings.cloud),
        gpus=instance.gpus if instance else 0,
        gpu_resource=instance.gpu.resource_name if instance else labels.NVIDIA_GPU,
        disk=_TEMPLATE_DISK,
    )
    return Plan(hardware=hardware, serving=None)


def inference_plan(
    workspace: Workspace,
    preset: Preset,
    instance: InstanceType,
    settings: WorkspaceSettings,
    *,
    engine: EngineOptions = NO_OPTIONS,
) -> Plan:
    """The plan of a preset to serve.

    Raises:
        PlanError: it cannot be served so.
    """
    inference = workspace.inference
    adapters = len(inference.adapters) if inference else 0
    wanted = wanted_runtime(workspace)
    if wanted == "vllm" and not settings.vllm:
        raise RuntimeUnsupported(RUNTIME_FIELD, "asks for vllm, which feature gate vLLM=false switches off: remove it")
    planned = plan_inference(
        preset,
        instance,
        nodes=node_count(workspace),
        runtime=wanted if settings.vllm else "transformers",
        adapters=adapters,
        engine=engine,
        cloud=settings.cloud,
        bypass_size=labels.is_true(workspace.annotations.get(labels.BYPASS_RESOURCE_CHECKS)),
    )
    source = _source(workspace, preset)
    config = bool(inference and inference.config)
    mode = workspace.annotations.get(labels.PERFORMANCE_MODE, "").strip().lower()
    if mode in PERFORMANCE_MODES and planned.runtime != "vllm":
        message = f"asks for {mode}, a mode of vllm, and {preset.name} runs on {planned.runtime} here: remove it"
        raise RuntimeUnsupported(f"metadata.annotations[{labels.PERFORMANCE_MODE}]", message)
    command = inference_command(planned, source=source, adapters=bool(adapters), config=config, performance_mode=mode)
    serving = Serving(
        model=preset.name,
        image=_image(workspace, preset, settings),
        tools_image=_tools_image(workspace, preset, settings),
        pull_secrets=_pull_secrets(workspace),
        command=tuple(command),
        env=inference_environment(planned),
        access_secret=access_secret(workspace),
        readiness_seconds=planned.readiness_timeout.total_seconds(),
        downloads=isinstance(source, Download),
    )
    return Plan(
        hardware=_hardware(workspace, planned, settings, count=planned.nodes), serving=serving, notes=planned.warnings
    )


def tuning_plan(
    workspace: Workspace, tuning: TuningSpec, preset: Preset, instance: InstanceType, settings: WorkspaceSettings
) -> Plan:
    """The plan of a preset to tune, on one node.

    Raises:
        PlanError: it cannot be tuned.
    """
    planned = plan_tuning(preset, instance, method=tuning.method)
    source = _source(workspace, preset)
    command = tuning_command(
        planned, source=source, push_image=tuning.output.image, docker_config=PUSH_CREDENTIALS_FILE
    )
    serving = Serving(
        model=preset.name,
        image=_image(workspace, preset, settings),
        tools_image=_tools_image(workspace, preset, settings),
        pull_secrets=_pull_secrets(workspace),
        command=tuple(command),
        access_secret=access_secret(workspace),
        downloads=isinstance(source, Download),
    )
    return Plan(hardware=_hardware(workspace, planned, settings, count=1), serving=serving, notes=planned.warnings)


def node_count(workspace: Workspace) -> int:
    """Nodes the user asked for, within `COUNT_LIMIT`; the annotation overrides."""
    override = counts.node_count(workspace.annotations.get(labels.NODE_COUNT_OVERRIDE, ""))
    return override or min(max(workspace.resource.count, 1), counts.COUNT_LIMIT)


def access_secret(workspace: Workspace) -> str:
    """Secret that opens a gated model; empty for none."""
    given = _preset_spec(workspace)
    return given.preset_options.model_access_secret if given else ""


def _hardware(
    workspace: Workspace, planned: InferencePlan | TuningPlan, settings: WorkspaceSettings, *, count: int
) -> Hardware:
    return Hardware(
        count=count,
        instance_type=cloud_name(workspace.resource.instance_type, settings.cloud),
        gpus=planned.gpus,
        gpu_resource=planned.resource_name,
        disk=planned.disk,
    )


def _preset_spec(workspace: Workspace) -> PresetSpec | None:
    if workspace.tuning is not None:
        return workspace.tuning.preset
    return workspace.inference.preset if workspace.inference else None


def _private_image(workspace: Workspace) -> str:
    """The user's own model image; empty for the public one."""
    given = _preset_spec(workspace)
    return given.preset_options.image if given is not None and given.access_mode == "private" else ""


def _source(workspace: Workspace, preset: Preset) -> ModelSource:
    return model_source(preset, private_image=bool(_private_image(workspace)))


def _image(workspace: Workspace, preset: Preset, settings: WorkspaceSettings) -> str:
    return _private_image(workspace) or preset.image(settings.registry) or f"{settings.registry}/{BASE_IMAGE}"


def _tools_image(workspace: Workspace, preset: Preset, settings: WorkspaceSettings) -> str:
    """Where the registry client is: in every image of ours, so that nodes pull one image and not two."""
    if _private_image(workspace):
        return f"{settings.registry}/{BASE_IMAGE}"
    return _image(workspace, preset, settings)


def _pull_secrets(workspace: Workspace) -> tuple[str, ...]:
    """Secrets of the model's image, for either access mode: the registry of public images may be a private mirror."""
    given = _preset_spec(workspace)
    return tuple(given.preset_options.image_pull_secrets) if given is not None else ()
