"""Rules for `resource`: instance type, selector, count and partition."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from kaito.api import labels
from kaito.api.object_names import is_label_key, is_label_value, object_name_problem
from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.node_count import MAX_NODE_COUNT
from kaito.api.workspace.resource import MAX_ALTERNATIVES
from kaito.api.workspace.validation.annotations import has_provider_class
from kaito.api.workspace.validation.autoscaling import target_violations
from kaito.api.workspace.validation.policy import Policy, Rule

_MIG_PROFILE: Final = re.compile(r"\d+g\.\d+gb")
_AMOUNT: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,4})?")
_AZURE_ZONE: Final = re.compile(r"([A-Za-z0-9]+-)?[1-9]")


def instance_type_given(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks that an instance type or alternatives are set, except with existing nodes."""
    instance_type, alternatives = workspace.resource.instance_type, workspace.resource.instance_types
    if policy.node_api == "byo" and alternatives:
        yield Violation(
            "resource.instanceTypes",
            "is set, but this controller uses existing nodes (--node-api byo): remove it, and label the GPU nodes so "
            "that resource.labelSelector matches them",
        )
    elif alternatives:
        yield from _alternatives(instance_type, alternatives)
    elif policy.node_api == "byo":
        if instance_type:
            yield Violation(
                "resource.instanceType",
                f"{instance_type!r} is set, but this controller uses existing nodes (--node-api byo): remove it, and "
                "label the GPU nodes so that resource.labelSelector matches them",
            )
    elif not instance_type:
        yield Violation("resource.instanceType", "is empty: set an instance type, for example Standard_NC24ads_A100_v4")
    elif not is_label_value(instance_type):
        yield Violation("resource.instanceType", f"{instance_type!r} is not an instance type: it must fit a node label")


def _alternatives(instance_type: str, alternatives: Sequence[str]) -> Iterator[Violation]:
    """Checks the form of the alternatives, and that they are alone."""
    if instance_type:
        yield Violation(
            "resource.instanceTypes", f"is set together with resource.instanceType {instance_type!r}: remove one"
        )
    if len(alternatives) > MAX_ALTERNATIVES:
        yield Violation("resource.instanceTypes", f"has {len(alternatives)} entries: use at most {MAX_ALTERNATIVES}")
    seen: set[str] = set()
    for index, name in enumerate(alternatives):
        path = f"resource.instanceTypes[{index}]"
        if not name or not is_label_value(name):
            yield Violation(path, f"{name!r} is not an instance type: it must fit a node label")
        elif name.lower() in seen:
            yield Violation(path, f"{name!r} is named twice: remove one of them")
        seen.add(name.lower())


def offering_possible(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks capacity type, zones and the limit of the cost, which only nodes that are created have."""
    resource = workspace.resource
    if policy.node_api == "byo":
        remedy = "is set, but this controller uses existing nodes (--node-api byo) and creates none: remove it"
        if resource.capacity_type is not None:
            yield Violation("resource.capacityType", remedy)
        if resource.on_demand_copies is not None:
            yield Violation("resource.onDemandCopies", remedy)
        if resource.zones:
            yield Violation("resource.zones", remedy)
        if resource.max_hourly_cost is not None:
            yield Violation("resource.maxHourlyCost", remedy)
        return
    if resource.max_hourly_cost is not None and not _AMOUNT.fullmatch(resource.max_hourly_cost):
        message = f"{resource.max_hourly_cost!r} is not an amount of money: use a decimal number such as 12.50"
        yield Violation("resource.maxHourlyCost", message)
    yield from _on_demand_copies(workspace, policy)
    for index, zone in enumerate(resource.zones):
        path = f"resource.zones[{index}]"
        if not zone or not is_label_value(zone):
            yield Violation(path, f"{zone!r} is not a zone: it must fit a node label")
        elif policy.cloud != "aws" and not _AZURE_ZONE.fullmatch(zone):
            yield Violation(path, f"{zone!r} is not a zone: use a number such as 1, or REGION-1")
        elif policy.zones_need_region and zone.isdecimal():
            yield Violation(path, f"{zone!r} has no region: use REGION-{zone}, or set --region of the controller")
        elif policy.cloud == "azure" and policy.region and _region_of(zone) not in {"", policy.region.lower()}:
            number = zone.rpartition("-")[2]
            message = f"{zone!r} is not in {policy.region}, where nodes are created: use {number}, or "
            yield Violation(path, f"{message}{policy.region}-{number}")


def _region_of(zone: str) -> str:
    """Returns the region in the name of a zone of Azure; empty for a number."""
    return zone.rpartition("-")[0].lower()


def _on_demand_copies(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    resource, field = workspace.resource, "resource.onDemandCopies"
    if resource.on_demand_copies is None:
        return
    if policy.node_api == "karpenter":
        message = (
            "is not possible with NodePools (--node-api karpenter), whose nodes all have the same template: remove it, "
            "or run this controller with --node-api nodeclaim"
        )
        yield Violation(field, message)
    if resource.capacity_type != "spot-preferred":
        message = (
            "is only for capacityType spot-preferred, whose other copies are on spot nodes: set it, or remove this"
        )
        yield Violation(field, message)
    if workspace.tuning is not None:
        yield Violation(field, "is for copies of a model that is served, not for tuning: remove it")


def selector_selects(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks that the selector is not empty, and that its expressions have the values that they need."""
    selector = workspace.resource.label_selector
    if selector.is_empty:
        yield Violation(
            "resource.labelSelector",
            "is empty and would match every node: add a label, for example matchLabels: {apps: my-model}",
        )
    elif policy.node_api != "byo" and not selector.match_labels:
        yield Violation(
            "resource.labelSelector.matchLabels",
            "is empty: new nodes are labeled with it, so at least one label is needed next to matchExpressions",
        )
    for key, value in selector.match_labels.items():
        path = f"resource.labelSelector.matchLabels[{key}]"
        if not is_label_key(key):
            yield Violation(path, "is not the key of a label: use letters, digits, '-', '_' and '.', at most 63")
        elif not is_label_value(value):
            message = f"{value!r} is not the value of a label: use letters, digits, '-', '_' and '.', at most 63"
            yield Violation(path, message)
    for index, expression in enumerate(selector.match_expressions):
        path = f"resource.labelSelector.matchExpressions[{index}].values"
        wants_values = expression.operator in {"In", "NotIn"}
        if wants_values and not expression.values:
            yield Violation(path, f"is empty: operator {expression.operator} needs at least one value")
        if not wants_values and expression.values:
            yield Violation(path, f"must be empty with operator {expression.operator}")


def selector_keys_free(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the selector uses no keys of the controllers or of Karpenter."""
    selector = workspace.resource.label_selector
    remedy = "is a reserved label key: use one of your own, for example apps"
    for key in selector.match_labels:
        if labels.is_reserved(key):
            yield Violation("resource.labelSelector.matchLabels", f"{key!r} {remedy}")
    for index, expression in enumerate(selector.match_expressions):
        if labels.is_reserved(expression.key):
            yield Violation(f"resource.labelSelector.matchExpressions[{index}].key", f"{expression.key!r} {remedy}")


def new_nodes_not_restricted(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks that new nodes get no label by which administrators separate nodes."""
    if policy.node_api == "byo":
        return
    for key in workspace.resource.label_selector.match_labels:
        if labels.is_of_administrators(key):
            message = (
                f"{key!r} would be set on new nodes, and only administrators may set it: use another label, or select "
                "preferredNodes with matchExpressions"
            )
            yield Violation("resource.labelSelector.matchLabels", message)


def selector_not_contradictory(workspace: Workspace) -> Iterator[Violation]:
    """Checks that no expression contradicts `matchLabels`."""
    selector = workspace.resource.label_selector
    for index, expression in enumerate(selector.match_expressions):
        if expression.key in selector.match_labels and not expression.matches(selector.match_labels):
            yield Violation(
                f"resource.labelSelector.matchExpressions[{index}]",
                f"({expression}) contradicts matchLabels, so no node can match: remove one of the two",
            )


def selector_fits_new_nodes(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks that new nodes, which have the labels of `matchLabels`, match every expression."""
    resource = workspace.resource
    if policy.node_api == "byo" or resource.preferred_nodes or not resource.label_selector.match_labels:
        return
    known = {labels.OS: "linux", labels.INSTANCE_TYPE: resource.instance_type, **resource.label_selector.match_labels}
    if resource.instance_types:
        del known[labels.INSTANCE_TYPE]  # depends on the alternative
    for index, expression in enumerate(resource.label_selector.match_expressions):
        key = expression.key
        malformed = (expression.operator in {"In", "NotIn"}) != bool(expression.values)
        if malformed or key in resource.label_selector.match_labels or expression.matches(known):
            continue  # reported by other rules
        if key == labels.ZONE and expression.operator == "In":
            if not resource.zones:
                message = (
                    f"({expression}) matches only some new nodes, which can be in any zone: set resource.zones instead"
                )
                yield Violation(f"resource.labelSelector.matchExpressions[{index}]", message)
        elif key in known or not labels.is_set_by_others(key):
            has = f"{known[key]!r}" if key in known else "no such label"
            yield Violation(
                f"resource.labelSelector.matchExpressions[{index}]",
                f"({expression}) matches no new node, which has {has}: remove it, or set the label in matchLabels",
            )


def count_positive(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the number of nodes is within its limits, and 1 for tuning."""
    count = workspace.resource.count
    if count < 1:
        yield Violation("resource.count", f"{count} is less than 1: a Workspace needs at least one node")
    if count > MAX_NODE_COUNT:
        yield Violation("resource.count", f"{count} is more than {MAX_NODE_COUNT}, the maximum for one Workspace")
    if workspace.tuning and count > 1:
        yield Violation(
            "resource.count", f"{count} nodes for tuning: a tuning Job runs on one node, set 1 or remove it"
        )


def replicas_in_range(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the number of copies is within its limits, and is not set for tuning."""
    replicas = workspace.spec.replicas
    if replicas is None:
        return
    if workspace.tuning:
        yield Violation("spec.replicas", "a tuning Job is not scaled: remove spec.replicas")
    elif replicas < 0:
        yield Violation("spec.replicas", f"{replicas} is less than 0: use 0 for no copies and no nodes")
    elif replicas > MAX_NODE_COUNT:
        yield Violation("spec.replicas", f"{replicas} is more than {MAX_NODE_COUNT}, the maximum for one Workspace")


def autoscaling_possible(workspace: Workspace) -> Iterator[Violation]:
    """Checks that autoscaling is for a preset, and that its limits do not contradict each other."""
    scaling = workspace.spec.autoscaling
    if scaling is None:
        return
    field = "spec.autoscaling"
    if workspace.inference is None or workspace.inference.preset is None:
        yield Violation(field, "is only for presets, whose servers report their requests: remove spec.autoscaling")
    if scaling.max_replicas is not None and scaling.max_replicas < scaling.min_replicas:
        yield Violation(f"{field}.maxReplicas", f"{scaling.max_replicas} is less than minReplicas: raise it")
    if scaling.idle_seconds is not None and not scaling.scales_to_zero:
        message = "has no effect unless minReplicas is 0: set minReplicas to 0, or remove it"
        yield Violation(f"{field}.idleSeconds", message)
    yield from target_violations(scaling, field)


def preferred_nodes_used(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Reports preferred nodes that are not used as warnings: with existing nodes, and names that no node can have."""
    names = workspace.resource.preferred_nodes
    if policy.node_api == "byo" and names:
        message = "has no effect with existing nodes (--node-api byo): resource.labelSelector chooses the nodes"
        yield Violation("resource.preferredNodes", message, "warning")
        return
    for index, name in enumerate(names):
        if problem := object_name_problem(name, "node"):
            yield Violation(f"resource.preferredNodes[{index}]", problem, "warning")


def partition_shape(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks that a partition is possible, and has the profile or the count that its mode needs."""
    partition = workspace.resource.partition
    if partition is None:
        return
    if policy.node_api != "byo" and (problem := _problem_of_new_nodes(workspace, policy)):
        yield Violation("resource.partition", problem)
        return
    if workspace.inference is not None and workspace.inference.template is not None:
        yield Violation("resource.partition", "has no effect on a pod template, which has its own requests: remove it")
    if workspace.tuning:
        yield Violation("resource.partition", "tuning takes a whole node: remove it")
    if partition.mode == "mig":
        if partition.count is not None:
            yield Violation("resource.partition.count", "belongs to mode accelerator: remove it, or change the mode")
        if not partition.profile or not _MIG_PROFILE.fullmatch(partition.profile):
            yield Violation(
                "resource.partition.profile", f"{partition.profile or ''!r} is not a MIG profile such as 1g.10gb"
            )
    else:
        if partition.profile:
            yield Violation("resource.partition.profile", "belongs to mode mig: remove it, or change the mode")
        if not partition.count or partition.count < 1:
            yield Violation("resource.partition.count", "is missing: mode accelerator needs the number of GPUs")


def _problem_of_new_nodes(workspace: Workspace, policy: Policy) -> str:
    """Returns why new nodes cannot have the partition; empty if they can, as far as the fields show."""
    partition = workspace.resource.partition
    if partition is None or partition.mode == "accelerator":
        return (
            "with mode accelerator needs existing nodes (--node-api byo), because a copy uses all GPUs of a new node: "
            "remove it"
        )
    if policy.cloud != "azure":
        return f"divides the GPUs of new nodes on azure only, and the cloud is {policy.cloud}: remove it"
    if policy.node_api == "karpenter" or has_provider_class(workspace, policy):
        return (
            "needs gpu-provisioner, because Karpenter's providers do not divide the GPUs of new nodes: remove it, or "
            "run this controller with --node-api machine, or with nodeclaim and the node class of gpu-provisioner"
        )
    return ""


RULES: Final = (
    Rule("instance-type-given", instance_type_given),
    Rule("offering-possible", offering_possible),
    Rule("selector-not-empty", selector_selects),
    Rule.always("selector-keys-free", selector_keys_free),
    Rule("new-nodes-not-restricted", new_nodes_not_restricted),
    Rule.always("selector-not-contradictory", selector_not_contradictory),
    Rule("selector-fits-new-nodes", selector_fits_new_nodes),
    Rule.always("count-positive", count_positive),
    Rule.always("replicas-in-range", replicas_in_range),
    Rule.always("autoscaling-possible", autoscaling_possible),
    Rule("preferred-nodes-used", preferred_nodes_used),
    Rule("partition-shape", partition_shape),
)
