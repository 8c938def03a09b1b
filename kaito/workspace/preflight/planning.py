"""Checks of the hardware and of the model on it. They fill in the plan."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from kaito.api import conditions
from kaito.models.admission import instance_type_of
from kaito.models.alternatives import alternatives
from kaito.models.copies import counts_nodes
from kaito.models.errors import PlanError
from kaito.models.gpu import InstanceType
from kaito.models.nodes import UnknownGpus, uniform_instance_type
from kaito.models.partitions import FIELD, MIG_RESOURCE, PartitionUnavailable, part_of
from kaito.models.preset import Preset
from kaito.runtime.meta import Quantity
from kaito.workspace.digest import config_digest
from kaito.workspace.manifests.tuning import training_config
from kaito.workspace.measurements import measured_memory, settings_digest
from kaito.workspace.nodes import copies_on
from kaito.workspace.plan import Plan
from kaito.workspace.planning import inference_plan, performance_mode, template_plan, tuning_plan
from kaito.workspace.pod_options import pod_options
from kaito.workspace.preflight.configuration import drain_seconds, keeps_host_cache
from kaito.workspace.preflight.context import LookupUnavailable, PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import NodeApi

_NONE: Final = Quantity(0)


async def hardware(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks the instance type, or determines the GPUs of the existing nodes.

    Raises:
        PlanError: the instance type is unknown or cannot be divided, or nothing can be planned for the nodes.
    """
    if ctx.settings.node_api is not NodeApi.BYO and alternatives(ctx.workspace):
        return ()  # each is checked after what they share
    if ctx.settings.node_api is not NodeApi.BYO:
        ctx.instance = instance_type_of(ctx.workspace, ctx.settings.cloud, mig_strategy=ctx.settings.mig_strategy)
        return ()
    nodes = [node for node in await ctx.cluster.existing_nodes() if not node.deleting]
    ctx.nodes = nodes
    try:
        labels = {node.name: node.labels for node in nodes}
        ctx.instance = uniform_instance_type(labels, ctx.settings.cloud)
        partition = ctx.workspace.resource.partition
        if partition is not None and ctx.instance is not None:
            ctx.instance = part_of(ctx.instance, partition, labels.values())
            return tuple(_without_slices(ctx))
    except PlanError as error:
        if ctx.preset is None:
            return ()  # a pod template contains its own requests
        found = Finding.from_plan_error(error)
        is_of_nodes = isinstance(error, UnknownGpus | PartitionUnavailable)
        return (replace(found, resolved_by="watch") if is_of_nodes else found,)
    if ctx.instance is None and ctx.preset is not None:
        selector = ctx.workspace.resource.label_selector
        message = f"no node matches the label selector {selector}"
        return (Finding(conditions.NODE_NOT_READY, "resource.labelSelector", message, resolved_by="watch"),)
    return ()


def _without_slices(ctx: PreflightContext) -> Iterable[Finding]:
    """Reports a MIG profile that none of the nodes advertises."""
    resource = ctx.instance.resource if ctx.instance is not None else ""
    advertised = {name for node in ctx.nodes for name, amount in node.status.capacity.items() if amount > _NONE}
    if not resource or resource in advertised:
        return
    others = sorted(name.removeprefix(MIG_RESOURCE) for name in advertised if name.startswith(MIG_RESOURCE))
    have = f"they advertise {', '.join(others)}" if others else "they advertise no MIG slices"
    message = (
        f"no node that resource.labelSelector matches advertises {resource}; {have}: configure MIG with the strategy "
        f"mixed, or choose another profile"
    )
    yield Finding(conditions.NODE_NOT_READY, f"{FIELD}.profile", message, resolved_by="watch")


async def plan(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that the preset runs on the instance type with the settings of the configuration file.

    Raises:
        PlanError: it does not.
    """
    workspace, settings = ctx.workspace, ctx.settings
    preset, instance = ctx.preset, ctx.instance
    choice, memory_settings = ctx.weights, ""
    if preset is None or instance is None or choice is None:
        planned = template_plan(workspace, instance, settings)
    elif workspace.tuning is not None:
        planned = tuning_plan(workspace, workspace.tuning, preset, instance, settings, choice=choice)
    else:
        memory_settings = _memory_settings(ctx)
        preset = await _measured(ctx, preset, instance, memory_settings)
        planned = inference_plan(workspace, preset, instance, settings, choice=choice, engine=ctx.engine)
    planned = replace(_with_places(ctx, _with_config(ctx, planned)), memory_settings=memory_settings)
    ctx.plan = replace(planned, facts=ctx.facts or planned.facts, choice=ctx.choice)
    return ()


def _with_places(ctx: PreflightContext, planned: Plan) -> Plan:
    """Adds how many copies each existing node has the resources for, if a copy of a preset needs one node.

    Other pods may use some of these resources: the scheduler reports it then.
    """
    hardware = planned.hardware
    if ctx.workspace.inference is None or planned.container is None or counts_nodes(ctx.workspace):
        return planned
    if ctx.settings.node_api is not NodeApi.BYO or hardware.is_group or not hardware.gpus:
        return planned
    resources = pod_options(ctx.workspace, ctx.settings.pod_defaults).resources
    wanted = {**resources.limits, **resources.requests, hardware.gpu_resource: Quantity(hardware.gpus)}
    places = {node.name: copies_on(node, wanted) for node in ctx.nodes}
    places = {name: copies for name, copies in places.items() if copies}
    if max(places.values(), default=1) == 1:
        return planned
    shared = replace(hardware, places=places)
    note = f"its copies share nodes, which have the resources for {sum(places.values())}"
    return replace(planned, hardware=shared, explanation=planned.explanation or (note if hardware.copies > 1 else ""))


def _memory_settings(ctx: PreflightContext) -> str:
    inference = ctx.workspace.inference
    return settings_digest(
        config=config_digest(ctx.config) if ctx.config is not None else "",
        performance_mode=performance_mode(ctx.workspace),
        adapters=len(inference.adapters) if inference else 0,
    )


async def _measured(ctx: PreflightContext, preset: Preset, instance: InstanceType, settings: str) -> Preset:
    """Returns the model with what its servers measured before the Workspace was created."""
    try:
        records = await ctx.cluster.measurements()
    except LookupUnavailable:
        return preset
    created = ctx.workspace.metadata.creation_timestamp
    found = measured_memory(records, preset, instance, created=created, settings=settings)
    return preset.model_copy(update={"measured": found}) if found else preset


def _with_config(ctx: PreflightContext, planned: Plan) -> Plan:
    """Adds the ConfigMap that the pods mount; a tuning Workspace without one gets the defaults of its method."""
    tuning = ctx.workspace.tuning
    if tuning is not None and not tuning.config:
        downloads = planned.container is not None and planned.container.weights.downloads
        revision = ctx.preset.revision if ctx.preset is not None else ""
        defaults = training_config(ctx.workspace, tuning, downloads=downloads, revision=revision)
        return replace(planned, config_map=defaults.name, config_hash=config_digest(defaults), training_config=defaults)
    if ctx.config is None:
        return planned
    return replace(
        planned,
        config_map=ctx.config.name,
        config_hash=config_digest(ctx.config),
        host_cache=keeps_host_cache(ctx),
        drain_seconds=drain_seconds(ctx, planned),
    )
