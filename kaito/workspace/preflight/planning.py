"""Checks that end in a plan: what the nodes are, and whether the model runs on them as configured."""

from collections.abc import Iterable
from dataclasses import replace

from kaito.api import conditions
from kaito.models.admission import instance_type_of, preset_of
from kaito.models.errors import PlanError
from kaito.models.nodes import UnknownGpus, uniform_instance_type
from kaito.workspace.digest import config_digest
from kaito.workspace.manifests.tuning import training_config
from kaito.workspace.plan import Plan
from kaito.workspace.planning import inference_plan, template_plan, tuning_plan
from kaito.workspace.preflight.examination import Examination
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import NodeApi


async def hardware(examination: Examination) -> Iterable[Finding]:
    """The preset is in the catalog; the instance type in the table, or the existing nodes show their GPUs.

    Raises:
        PlanError: they do not.
    """
    examination.preset = preset_of(examination.workspace)
    if examination.settings.node_api is not NodeApi.BYO:
        examination.instance = instance_type_of(examination.workspace, examination.settings.cloud)
        return ()
    nodes = [node for node in await examination.cluster.own_nodes() if not node.deleting]
    examination.nodes = nodes
    try:
        labels = {node.name: node.labels for node in nodes}
        examination.instance = uniform_instance_type(labels, examination.settings.cloud)
    except PlanError as error:
        if examination.preset is None:
            return ()  # a pod template contains its own requests
        found = Finding.of_plan(error)
        return (replace(found, cure="watched") if isinstance(error, UnknownGpus) else found,)
    if examination.instance is None and examination.preset is not None:
        selector = examination.workspace.resource.label_selector
        message = f"no node matches the label selector {selector}"
        return (Finding(conditions.NODE_NOT_READY, "resource.labelSelector", message, cure="watched"),)
    return ()


async def plan(examination: Examination) -> Iterable[Finding]:
    """The preset runs on the instance type with the settings of the configuration file.

    Raises:
        PlanError: it does not.
    """
    workspace, settings = examination.workspace, examination.settings
    preset, instance = examination.preset, examination.instance
    if preset is None or instance is None:
        made = template_plan(workspace, instance, settings)
    elif workspace.tuning is not None:
        made = tuning_plan(workspace, workspace.tuning, preset, instance, settings)
    else:
        made = inference_plan(workspace, preset, instance, settings, engine=examination.engine)
    examination.plan = _with_config(examination, made)
    return ()


def _with_config(examination: Examination, made: Plan) -> Plan:
    """The plan with the ConfigMap that the pods mount; a tuning run without one gets its method's defaults."""
    tuning = examination.workspace.tuning
    if tuning is not None and not tuning.config:
        downloads = made.serving is not None and made.serving.downloads
        defaults = training_config(examination.workspace, tuning, downloads=downloads)
        return replace(made, config_map=defaults.name, config_hash=config_digest(defaults), training=defaults)
    if examination.config is None:
        return made
    return replace(made, config_map=examination.config.name, config_hash=config_digest(examination.config))
