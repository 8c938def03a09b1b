"""First step: what does the Workspace need? Or why can nobody say.

Runs the same rules as admission, because an object may have been stored while the webhook was off, and then everything
that admission cannot know: ConfigMaps, Secrets, and nodes of the user's own. Those are read live, when named: a
cluster's Secrets do not belong in a cache.
"""

from collections.abc import Sequence

from kaito.api import Workspace, conditions as words, labels
from kaito.api.violation import Violation
from kaito.api.workspace import PresetSpec, TuningSpec
from kaito.api.workspace.validation import Policy, validate
from kaito.models.admission import check, instance_type_of, preset_of, wanted_runtime
from kaito.models.commands import inference_command, inference_environment, tuning_command
from kaito.models.errors import PlanError
from kaito.models.gpu import InstanceType
from kaito.models.nodes import instance_type_of as instance_type_of_node
from kaito.models.planning import InferencePlan, TuningPlan, plan_inference, plan_tuning
from kaito.models.preset import Preset
from kaito.models.sources import Download, model_source
from kaito.runtime.kinds import ConfigMap, Node, Secret
from kaito.runtime.meta import Quantity
from kaito.workspace.context import Pass
from kaito.workspace.digest import config_digest
from kaito.workspace.manifests.tuning import PUSH_CREDENTIALS_FILE, training_config
from kaito.workspace.plan import Hardware, Plan, Refusal, Serving
from kaito.workspace.settings import NodeApi, WorkspaceSettings

INFERENCE_KEY = "inference_config.yaml"
TRAINING_KEY = "training_config.yaml"
BASE_IMAGE = "kaito-base:0.5.0"
"""Image of the servers without weights; tag of upstream Kaito v0.12."""

MISSING_SECONDS = 30.0
"""How often a missing Secret is looked for: Secrets are not watched."""

_NO_STORAGE = Quantity("1024Gi")
"""Disk for a pod template, whose image sizes nobody knows (upstream Kaito v0.12)."""


class Refused(Exception):
    """There is no plan, for this reason."""

    def __init__(self, reason: str, message: str, *, waiting: bool = False) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message, waiting)


async def decide(run: Pass) -> None:
    """Plan the Workspace, or note why it cannot be planned; the other steps then only look."""
    try:
        run.seen.plan = await _plan(run)
    except PlanError as error:
        run.seen.refusal = Refusal(error.reason, str(error))
    except Refused as refused:
        run.seen.refusal = refused.refusal
        if refused.refusal.waiting:
            run.wake(MISSING_SECONDS, refused.refusal.reason)


async def _plan(run: Pass) -> Plan:
    workspace, settings = run.workspace, run.settings
    notes = _obey(validate(workspace, policy=Policy(node_api=settings.node_api.value)))
    preset = preset_of(workspace)
    instance = await _instance(run)
    if preset is None:
        gpus = instance.gpus if instance else 0
        hardware = Hardware(
            count=_count(workspace),
            instance_type=workspace.resource.instance_type,
            gpus=gpus,
            gpu_resource=instance.gpu.resource_name if instance else labels.NVIDIA_GPU,
            disk=_NO_STORAGE,
        )
        return Plan(hardware=hardware, serving=None, notes=notes)
    assert instance is not None  # noqa: S101 - only a template may do without, see `instance_type_of`
    await _require_secrets(run)
    config_map, config_hash = await _config(run)
    if workspace.tuning is not None:
        tuned = plan_tuning(preset, instance, method=workspace.tuning.method)
        _obey(check(workspace, node_api=settings.node_api.value, cloud=settings.cloud))
        return Plan(
            hardware=_hardware(workspace, tuned, count=1),
            serving=_tuning(workspace, workspace.tuning, tuned, settings),
            config_map=config_map,
            config_hash=config_hash,
            notes=(*notes, *tuned.warnings),
        )
    served = _served(workspace, preset, instance, settings)
    _obey(check(workspace, node_api=settings.node_api.value, cloud=settings.cloud))
    return Plan(
        hardware=_hardware(workspace, served, count=served.nodes),
        serving=_serving(workspace, served, settings),
        config_map=config_map,
        config_hash=config_hash,
        notes=(*notes, *served.warnings),
    )


def _obey(found: Sequence[Violation]) -> tuple[str, ...]:
    """The warnings among the broken rules.

    Raises:
        Refused: there are errors as well.
    """
    errors = [str(violation) for violation in found if violation.severity == "error"]
    if errors:
        raise Refused(words.INVALID_SPEC, "; ".join(errors))
    return tuple(str(violation) for violation in found if violation.severity == "warning")


async def _instance(run: Pass) -> InstanceType | None:
    """The instance type: by name, or as the first ready node of the user's own tells; None for a template only."""
    workspace, settings = run.workspace, run.settings
    if settings.node_api is not NodeApi.BYO:
        return instance_type_of(workspace, settings.cloud)
    selector = workspace.resource.label_selector
    ready = [node for node in await run.api.list(Node, labels=selector) if node.is_ready]
    for node in ready:
        found = instance_type_of_node(node.labels, settings.cloud)
        if found is not None:
            return found
    if workspace.inference is not None and workspace.inference.template is not None:
        return None
    if not ready:
        raise Refused(words.NODE_NOT_READY, f"no ready node matches the label selector {selector}", waiting=True)
    names = ", ".join(node.name for node in ready)
    wanted = f"{labels.GPU_PRODUCT}, {labels.GPU_COUNT} and {labels.GPU_MEMORY}"
    message = f"{names} do not tell which GPUs they have: install GPU feature discovery, or set the labels {wanted}"
    raise Refused(words.UNKNOWN_INSTANCE_TYPE, message, waiting=True)


def _count(workspace: Workspace) -> int:
    """Nodes the user asked for; the annotation overrides."""
    override = workspace.annotations.get(labels.NODE_COUNT_OVERRIDE, "")
    return int(override) if override.isdigit() and int(override) > 0 else max(workspace.resource.count, 1)


def _hardware(workspace: Workspace, planned: InferencePlan | TuningPlan, *, count: int) -> Hardware:
    return Hardware(
        count=count,
        instance_type=workspace.resource.instance_type,
        gpus=planned.gpus,
        gpu_resource=planned.resource_name,
        disk=planned.disk,
    )


def _served(workspace: Workspace, preset: Preset, instance: InstanceType, settings: WorkspaceSettings) -> InferencePlan:
    inference = workspace.inference
    return plan_inference(
        preset,
        instance,
        nodes=_count(workspace),
        runtime=wanted_runtime(workspace) if settings.vllm else "transformers",
        adapters=bool(inference and inference.adapters),
        cloud=settings.cloud,
        bypass_size=labels.is_true(workspace.annotations.get(labels.BYPASS_RESOURCE_CHECKS)),
    )


def _preset_spec(workspace: Workspace) -> PresetSpec | None:
    if workspace.tuning is not None:
        return workspace.tuning.preset
    return workspace.inference.preset if workspace.inference else None


def _images(workspace: Workspace, preset: Preset, settings: WorkspaceSettings) -> tuple[str, str, tuple[str, ...]]:
    """Image to run, image with the registry client, and the secrets for the first."""
    base = f"{settings.registry}/{BASE_IMAGE}"
    given = _preset_spec(workspace)
    if given is not None and given.access_mode == "private":
        return given.preset_options.image, base, tuple(given.preset_options.image_pull_secrets)
    image = preset.image(settings.registry) or base
    return image, image, ()


def _serving(workspace: Workspace, planned: InferencePlan, settings: WorkspaceSettings) -> Serving:
    inference, preset, given = workspace.inference, planned.preset, _preset_spec(workspace)
    private = given is not None and given.access_mode == "private"
    source = model_source(preset, private_image=private)
    image, tools_image, pull_secrets = _images(workspace, preset, settings)
    command = inference_command(
        planned,
        source=source,
        adapters=bool(inference and inference.adapters),
        config=bool(inference and inference.config),
    )
    return Serving(
        model=preset.name,
        image=image,
        tools_image=tools_image,
        pull_secrets=pull_secrets,
        command=tuple(command),
        env=inference_environment(planned),
        access_secret=given.preset_options.model_access_secret if given else "",
        readiness_seconds=planned.readiness_timeout.total_seconds(),
        downloads=isinstance(source, Download),
    )


def _tuning(workspace: Workspace, tuning: TuningSpec, planned: TuningPlan, settings: WorkspaceSettings) -> Serving:
    private = tuning.preset.access_mode == "private"
    source = model_source(planned.preset, private_image=private)
    image, tools_image, pull_secrets = _images(workspace, planned.preset, settings)
    return Serving(
        model=planned.preset.name,
        image=image,
        tools_image=tools_image,
        pull_secrets=pull_secrets,
        command=tuple(
            tuning_command(planned, source=source, push_image=tuning.output.image, docker_config=PUSH_CREDENTIALS_FILE)
        ),
        access_secret=tuning.preset.preset_options.model_access_secret,
        downloads=isinstance(source, Download),
    )


async def _config(run: Pass) -> tuple[str, str]:
    """Name and digest of the ConfigMap that the pods mount; a tuning run without one gets its method's defaults.

    Raises:
        Refused: it does not exist, or lacks its key.
    """
    workspace = run.workspace
    if workspace.tuning is not None and not workspace.tuning.config:
        defaults = training_config(workspace, workspace.tuning)
        return defaults.name, config_digest(defaults)
    part = workspace.tuning or workspace.inference
    if part is None or not part.config:
        return "", ""
    key = TRAINING_KEY if workspace.tuning else INFERENCE_KEY
    field = "tuning.config" if workspace.tuning else "inference.config"
    found = await run.api.find(ConfigMap, part.config, workspace.namespace, consistency="live")
    if found is None:
        message = f"{field}: ConfigMap {part.config!r} does not exist in namespace {workspace.namespace}"
        raise Refused(words.CONFIG_NOT_FOUND, message)
    if key not in found.data:
        raise Refused(words.CONFIG_NOT_FOUND, f"{field}: ConfigMap {part.config!r} has no key {key!r}")
    return part.config, config_digest(found)


async def _require_secrets(run: Pass) -> None:
    """Every Secret that a mount or a variable needs must exist: a pod would wait for it without saying so.

    Raises:
        Refused: one does not.
    """
    workspace, given = run.workspace, _preset_spec(run.workspace)
    needed: dict[str, str] = {}
    if given is not None and given.preset_options.model_access_secret:
        needed[given.preset_options.model_access_secret] = "presetOptions.modelAccessSecret"
    if workspace.tuning is not None and workspace.tuning.output.image_push_secret:
        needed[workspace.tuning.output.image_push_secret] = "tuning.output.imagePushSecret"
    for name, field in needed.items():
        if await run.api.find(Secret, name, workspace.namespace, consistency="live") is None:
            message = f"{field}: Secret {name!r} does not exist in namespace {workspace.namespace}"
            raise Refused(words.SECRET_NOT_FOUND, message, waiting=True)
