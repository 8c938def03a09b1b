"""First step: what does the Workspace need? Or why can nobody say.

Runs the same rules as admission, because an object may have been stored while the webhook was off, and then everything
that admission cannot know: ConfigMaps, Secrets, and nodes of the user's own. ConfigMaps and Secrets are read live, when
named: a cluster's Secrets do not belong in a cache.
"""

from collections.abc import Sequence
from dataclasses import replace

from kaito.api import conditions as words, labels
from kaito.api.violation import Violation
from kaito.api.workspace.validation import Policy, validate
from kaito.models.admission import check, instance_type_of, preset_of
from kaito.models.errors import PlanError
from kaito.models.gpu import InstanceType
from kaito.models.nodes import instance_type_of as instance_type_of_node
from kaito.runtime.kinds import ConfigMap, Node, Secret
from kaito.workspace.context import Pass
from kaito.workspace.digest import config_digest
from kaito.workspace.manifests.tuning import training_config
from kaito.workspace.plan import Plan, Refusal
from kaito.workspace.serving import access_secret, inference_plan, template_plan, tuning_plan
from kaito.workspace.settings import NodeApi

INFERENCE_KEY = "inference_config.yaml"
TRAINING_KEY = "training_config.yaml"

MISSING_SECONDS = 30.0
"""How often a missing Secret is looked for: Secrets are not watched."""


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
    """Rules about fields, then the catalogue, then what the cluster must have.

    Raises:
        PlanError: the catalogue or the table of instance types says no.
        Refused: a rule, or something missing, does.
    """
    workspace, settings = run.workspace, run.settings
    notes = _obey(validate(workspace, policy=Policy(node_api=settings.node_api.value)))
    preset = preset_of(workspace)
    instance = await _instance(run)
    if preset is None or instance is None:
        plan = template_plan(workspace, instance, settings)
        return replace(plan, notes=(*notes, *plan.notes))
    if workspace.tuning is not None:
        plan = tuning_plan(workspace, workspace.tuning, preset, instance, settings)
    else:
        plan = inference_plan(workspace, preset, instance, settings)
    _obey(check(workspace, node_api=settings.node_api.value, cloud=settings.cloud))
    await _require_secrets(run)
    return replace(await _with_config(run, plan), notes=(*notes, *plan.notes))


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
    """The instance type: by name, or as the nodes of the user's own tell. None for a pod template only.

    Raises:
        PlanError: the name is not in the table.
        Refused: no node of the user's own matches, or none tells what it has.
    """
    workspace, settings = run.workspace, run.settings
    if settings.node_api is not NodeApi.BYO:
        return instance_type_of(workspace, settings.cloud)
    selector = workspace.resource.label_selector
    matching = await run.api.list(Node, labels=selector)
    for node in sorted(matching, key=lambda node: not node.is_ready):
        found = instance_type_of_node(node.labels, settings.cloud)
        if found is not None:
            return found
    if workspace.inference is not None and workspace.inference.template is not None:
        return None
    if not matching:
        raise Refused(words.NODE_NOT_READY, f"no node matches the label selector {selector}", waiting=True)
    names = ", ".join(node.name for node in matching)
    wanted = f"{labels.GPU_PRODUCT}, {labels.GPU_COUNT} and {labels.GPU_MEMORY}"
    message = f"{names} do not tell which GPUs they have: install GPU feature discovery, or set the labels {wanted}"
    raise Refused(words.UNKNOWN_INSTANCE_TYPE, message, waiting=True)


async def _with_config(run: Pass, plan: Plan) -> Plan:
    """The plan with the ConfigMap that the pods mount; a tuning run without one gets its method's defaults.

    Raises:
        Refused: it does not exist, or lacks its key.
    """
    workspace = run.workspace
    if workspace.tuning is not None and not workspace.tuning.config:
        downloads = plan.serving is not None and plan.serving.downloads
        defaults = training_config(workspace, workspace.tuning, downloads=downloads)
        return replace(plan, config_map=defaults.name, config_hash=config_digest(defaults), training=defaults)
    part = workspace.tuning or workspace.inference
    if part is None or not part.config:
        return plan
    field, key = ("tuning.config", TRAINING_KEY) if workspace.tuning else ("inference.config", INFERENCE_KEY)
    found = await run.api.find(ConfigMap, part.config, workspace.namespace, consistency="live")
    if found is None:
        message = f"{field}: ConfigMap {part.config!r} does not exist in namespace {workspace.namespace}"
        raise Refused(words.CONFIG_NOT_FOUND, message)
    if key not in found.data:
        raise Refused(words.CONFIG_NOT_FOUND, f"{field}: ConfigMap {part.config!r} has no key {key!r}")
    return replace(plan, config_map=part.config, config_hash=config_digest(found))


async def _require_secrets(run: Pass) -> None:
    """Every Secret that a mount or a variable needs must exist: a pod would wait for it without saying so.

    Raises:
        Refused: one does not.
    """
    workspace = run.workspace
    needed = {"presetOptions.modelAccessSecret": access_secret(workspace)}
    if workspace.tuning is not None:
        needed["tuning.output.imagePushSecret"] = workspace.tuning.output.image_push_secret
    for field, name in needed.items():
        if name and await run.api.find(Secret, name, workspace.namespace, consistency="live") is None:
            message = f"{field}: Secret {name!r} does not exist in namespace {workspace.namespace}"
            raise Refused(words.SECRET_NOT_FOUND, message, waiting=True)
