"""Checks that the planned nodes can run a pod template: its resource requests and its node selectors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from kaito.api import conditions, labels
from kaito.api.json_values import json_list, json_object
from kaito.models import instance_types, node_capacity
from kaito.models.errors import NoGpu, UnknownInstanceType
from kaito.models.gpu import GIB
from kaito.runtime.meta import Quantity
from kaito.workspace.ownership import owner_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.pod_options import pod_options
from kaito.workspace.preflight.context import PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import NodeApi
from kaito.workspace.weights import preset_spec

_TEMPLATE: Final = "inference.template.spec"
_CONTAINERS: Final = f"{_TEMPLATE}.containers"
_GPU_RESOURCES: Final = (labels.NVIDIA_GPU, labels.AMD_GPU, labels.NEURON_DEVICE)
_GPU_PARTITIONS: Final = ("nvidia.com/mig-", "nvidia.com/gpu.shared")
"""Prefixes of resources that only nodes with partitioned GPUs advertise."""

_MAX_DISK: Final = Quantity("32Ti")
"""Upper bound of a node's disk: an operating system disk has at most 4 TiB, the largest local disks have 28 TB."""

_NO_ZONE: Final = "0"
"""Zone label of nodes of Azure that are in no zone."""

_NODE_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage", *_GPU_RESOURCES)


async def requests(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that pods request no more than a node has, and select labels that a node can have."""
    inference, plan = ctx.workspace.inference, ctx.plan
    if plan is None:
        return ()
    if inference is None or inference.template is None:
        return tuple(_options(ctx, plan.hardware))
    spec = json_object(inference.template.get("spec"))
    wanted = pod_requests(spec)
    if ctx.settings.node_api is NodeApi.BYO:
        return tuple(_beyond_existing_nodes(ctx, wanted, _CONTAINERS))
    known = ctx.instance is not None or _has_no_gpu(ctx)
    found = [*_beyond_instance(wanted, plan.hardware, known=known), *_beyond_name(wanted, ctx, _CONTAINERS)]
    found += _never_available(wanted, plan.hardware)
    preferred = bool(ctx.workspace.resource.preferred_nodes)
    known_labels = _node_labels(ctx, plan.hardware)
    zones = () if preferred else tuple(_zones(spec, ctx, _TEMPLATE))
    return (*found, *_contradictions(spec, known_labels, _TEMPLATE, preferred=preferred), *zones)


def _options(ctx: PreflightContext, hardware: Hardware) -> Iterator[Finding]:
    """Checks the resources and the node selector of `podOptions`."""
    found = preset_spec(ctx.workspace)
    if found is None:
        return
    path = f"{found[1]}.podOptions"
    options = pod_options(ctx.workspace, ctx.settings.pod_defaults)
    wanted = {**options.resources.limits, **options.resources.requests}
    selector = dict(options.node_selector)
    yield from _too_small_for_weights(ctx, path)
    if ctx.settings.node_api is NodeApi.BYO:
        yield from _beyond_existing_nodes(ctx, wanted, f"{path}.resources")
        if ctx.nodes and not any(selector.items() <= node.labels.items() for node in ctx.nodes):
            shown = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
            message = f"no node that resource.labelSelector matches has {shown}: label the nodes, or remove it"
            yield Finding(conditions.INVALID_SPEC, f"{path}.nodeSelector", message, resolved_by="watch")
        return
    sharing = max(min(hardware.copies, hardware.copies_per_node), 1)
    yield from _beyond_name(wanted, ctx, f"{path}.resources", copies=sharing)
    yield from _beyond_any_disk(wanted, f"{path}.resources", copies=hardware.copies_per_node)
    preferred = bool(ctx.workspace.resource.preferred_nodes)
    known = _node_labels(ctx, hardware)
    yield from _contradictions({"nodeSelector": selector}, known, path, preferred=preferred)
    if not preferred:
        yield from _zones({"nodeSelector": selector}, ctx, path)


def _too_small_for_weights(ctx: PreflightContext, path: str) -> Iterator[Finding]:
    """Reports a limit of the disk that the weights exceed, which the pod pulls or downloads to the node."""
    if ctx.workload is None or ctx.weights is None or ctx.preset is None:
        return
    if ctx.weights.weights.method not in {"Pull", "Download"}:
        return
    containers = ctx.workload.spec.template.spec.containers
    limit = sum((each.resources.limits.get("ephemeral-storage", Quantity(0)) for each in containers), Quantity(0))
    if Quantity(0) < limit < ctx.preset.weights:
        weights = f"{float(ctx.preset.weights) / GIB:.1f} GiB of weights"
        given = pod_options(ctx.workspace, ctx.settings.pod_defaults).resources.limits["ephemeral-storage"]
        message = f"is {given}, and the pod stores {weights}, so that it would be evicted: raise it, or remove it"
        yield Finding(conditions.INVALID_SPEC, f"{path}.resources.limits[ephemeral-storage]", message)


def _zones(spec: Mapping[str, Any], ctx: PreflightContext, path: str) -> Iterator[Finding]:
    """Reports selected zones in which new nodes need not be: a node in another zone is of no use to the pods."""
    zones = ctx.workspace.resource.zones
    where = ", ".join(zones) or "any zone"
    selected = json_object(spec.get("nodeSelector")).get(labels.ZONE)
    if isinstance(selected, str) and not _contains_zones({selected}, zones):
        message = f"is {selected!r}, but new nodes can be in {where}: set resource.zones to {selected} instead"
        yield Finding(conditions.INVALID_SPEC, f"{path}.nodeSelector[{labels.ZONE}]", message)
    required = [_required_zones(term) for term in _node_affinity_terms(spec)]
    allowed = {zone for term in required for zone in term}
    if required and all(required) and not _contains_zones(allowed, zones):
        message = (
            f"the zones are {', '.join(sorted(allowed))}, but new nodes can be in {where}: set resource.zones instead"
        )
        yield Finding(conditions.INVALID_SPEC, f"{path}.affinity.nodeAffinity", message)


def _contains_zones(selected: set[str], zones: Sequence[str]) -> bool:
    """Whether selected zones contain all in which new nodes can be; `zones` is empty if these can be in any."""
    if _NO_ZONE in selected:
        return True
    known = selected | {zone.rpartition("-")[2] for zone in selected}
    return bool(zones) and known.issuperset(zones)


def _required_zones(term: Any) -> set[str]:
    """Returns the zones that a term of a node affinity requires; empty if it requires none."""
    expressions = map(json_object, json_list(json_object(term).get("matchExpressions")))
    required = [each for each in expressions if each.get("key") == labels.ZONE and each.get("operator") == "In"]
    return {str(zone) for each in required for zone in json_list(each.get("values"))}


def _node_affinity_terms(spec: Mapping[str, Any]) -> list[Any]:
    """Returns the terms of the required node affinity, of which a node must match one."""
    node = json_object(json_object(spec.get("affinity")).get("nodeAffinity"))
    required = json_object(node.get("requiredDuringSchedulingIgnoredDuringExecution"))
    return json_list(required.get("nodeSelectorTerms"))


def _has_no_gpu(ctx: PreflightContext) -> bool:
    """Whether the instance type is known to have no GPU. One that is newer than the table is not."""
    try:
        instance_types.get(ctx.workspace.resource.instance_type, ctx.settings.cloud)
    except NoGpu:
        return True
    except UnknownInstanceType:
        return False
    return False


def pod_requests(spec: Mapping[str, Any]) -> dict[str, Quantity]:
    """Returns the resource requests of a pod as the scheduler computes them.

    They are the sum of the containers, or the largest init container. A limit without a request counts as a request.
    Init containers with restartPolicy Always count like containers. Requests of the pod itself (`spec.resources`)
    replace the sum, and the overhead is added.
    """
    running: dict[str, Quantity] = {}
    largest: dict[str, Quantity] = {}
    for container in json_list(spec.get("containers")):
        _add(running, _container_requests(container))
    for container in json_list(spec.get("initContainers")):
        requested = _container_requests(container)
        if json_object(container).get("restartPolicy") == "Always":
            _add(running, requested)
        else:
            largest = _larger(largest, requested)
    total = {**_larger(running, largest), **_container_requests(spec)}
    _add(total, _quantities(json_object(spec.get("overhead"))))
    return total


def _container_requests(container: Any) -> dict[str, Quantity]:
    resources = json_object(json_object(container).get("resources"))
    return _quantities({**json_object(resources.get("limits")), **json_object(resources.get("requests"))})


def _quantities(given: Mapping[str, Any]) -> dict[str, Quantity]:
    return {name: quantity for name, value in given.items() if (quantity := _quantity(value)) is not None}


def _quantity(value: Any) -> Quantity | None:
    try:
        return Quantity(str(value))
    except ValueError:
        return None  # reported by the checks of the template's structure


def _add(total: dict[str, Quantity], more: Mapping[str, Quantity]) -> None:
    for name, quantity in more.items():
        total[name] = total.get(name, Quantity(0)) + quantity


def _larger(one: Mapping[str, Quantity], other: Mapping[str, Quantity]) -> dict[str, Quantity]:
    nothing = Quantity(0)
    return {name: max(one.get(name, nothing), other.get(name, nothing)) for name in {*one, *other}}


def _beyond_instance(wanted: Mapping[str, Quantity], hardware: Hardware, *, known: bool) -> Iterator[Finding]:
    """Reports requests for more GPUs than the instance type has, if the table contains the instance type."""
    for name in _GPU_RESOURCES:
        requested = wanted.get(name, Quantity(0))
        if requested <= Quantity(0):
            continue
        has = hardware.gpus if name == hardware.gpu_resource else 0
        if known and requested > Quantity(has):
            message = (
                f"requests {requested} {name}, a node of {hardware.instance_type} has {has}: request at most {has}, or "
                f"choose a larger instance type"
            )
            yield Finding(conditions.INVALID_SPEC, _CONTAINERS, message)


def _never_available(wanted: Mapping[str, Quantity], hardware: Hardware) -> Iterator[Finding]:
    """Reports requests for partitions of GPUs, which new nodes do not have, and for more disk than any node has."""
    for name, requested in wanted.items():
        if name.startswith(_GPU_PARTITIONS) and requested > Quantity(0):
            message = f"requests {requested} {name}, but new nodes have whole GPUs: request {hardware.gpu_resource}"
            yield Finding(conditions.INVALID_SPEC, _CONTAINERS, message)
    yield from _beyond_any_disk(wanted, _CONTAINERS)


def _beyond_any_disk(wanted: Mapping[str, Quantity], field: str, *, copies: int = 1) -> Iterator[Finding]:
    disk = wanted.get("ephemeral-storage", Quantity(0))
    if disk * copies > _MAX_DISK:
        has = "a node" if copies == 1 else f"and {copies} copies share a node, which"
        message = f"requests {disk} of ephemeral-storage, {has} has at most {_MAX_DISK}: use a volume for more"
        yield Finding(conditions.INVALID_SPEC, field, message)


def _beyond_name(
    wanted: Mapping[str, Quantity], ctx: PreflightContext, field: str, *, copies: int = 1
) -> Iterator[Finding]:
    """Reports requests for more CPU or memory than the name of the instance type allows to the copies on a node."""
    name, cloud = ctx.workspace.resource.instance_type, ctx.settings.cloud
    bounds = {"cpu": node_capacity.max_cpus(name, cloud), "memory": node_capacity.max_memory_bytes(name, cloud)}
    for resource, most in bounds.items():
        requested = wanted.get(resource)
        if requested is None or most is None or requested * copies <= Quantity(most):
            continue
        if resource == "memory":
            much, bound = f"{int(requested) // GIB} GiB of memory", f"less than {most // GIB} GiB"
        else:
            much, bound = f"{requested} cpu", str(most)
        has = f"a node of {name}" if copies == 1 else f"{copies} copies share a node of {name}, which"
        message = f"requests {much}, {has} has {bound}: request less, or choose a larger instance type"
        yield Finding(conditions.INVALID_SPEC, field, message)


def _beyond_existing_nodes(ctx: PreflightContext, wanted: Mapping[str, Quantity], field: str) -> Iterator[Finding]:
    """Reports requests for more than any existing node has (`--node-api byo`)."""
    if not ctx.nodes:
        return
    devices = [name for name in wanted if "/" in name and name not in _NODE_RESOURCES]
    for name in (*_NODE_RESOURCES, *devices):
        requested = wanted.get(name)
        if requested is None or requested <= Quantity(0):
            continue
        offered = [node.status.allocatable.get(name, node.status.capacity.get(name)) for node in ctx.nodes]
        most = max((each for each in offered if each is not None), default=None)
        if most is None and "/" not in name:
            continue
        if most is None or requested > most:
            message = f"requests {requested} {name}, the nodes that the selector matches have at most {most or 0}"
            yield Finding(conditions.INVALID_SPEC, field, message, resolved_by="watch")


def _node_labels(ctx: PreflightContext, hardware: Hardware) -> dict[str, str]:
    """Returns labels that every new node of the Workspace has."""
    workspace, region = ctx.workspace, ctx.settings.region
    return {
        **({labels.REGION: region} if region else {}),
        **workspace.resource.label_selector.match_labels,
        **owner_labels(workspace),
        labels.INSTANCE_TYPE: hardware.instance_type,
        labels.OS: "linux",
        labels.ARCH: "amd64",
    }


def _contradictions(
    spec: Mapping[str, Any], known: Mapping[str, str], path: str, *, preferred: bool
) -> Iterator[Finding]:
    """Reports selectors that no node of the Workspace can match.

    With `preferred`, existing nodes are used, which may have labels that new nodes lack.
    """
    if spec.get("nodeName"):
        message = "names a node, but the Workspace's nodes do not exist yet: remove it"
        yield Finding(conditions.INVALID_SPEC, f"{path}.nodeName", message)
    for key, value in json_object(spec.get("nodeSelector")).items():
        if key in known and known[key] != value:
            message = f"is {value!r}, but the Workspace's nodes have {known[key]!r}: remove it"
            yield Finding(conditions.INVALID_SPEC, f"{path}.nodeSelector[{key}]", message)
        elif key not in known and not preferred and not labels.is_set_by_others(key):
            message = "is a label that no new node has: remove it, or add it to resource.labelSelector.matchLabels"
            yield Finding(conditions.INVALID_SPEC, f"{path}.nodeSelector[{key}]", message)
    terms = _node_affinity_terms(spec)
    excluded = [next(_excluding(term, known, preferred=preferred), None) for term in terms]
    if terms and all(excluded):
        message = f"no node of the Workspace can satisfy it: {excluded[0]}: remove it"
        yield Finding(conditions.INVALID_SPEC, f"{path}.affinity.nodeAffinity", message)


def _excluding(term: Any, known: Mapping[str, str], *, preferred: bool) -> Iterator[str]:
    """Describes the expressions of a term that a node with the known labels does not match."""
    for raw in json_list(json_object(term).get("matchExpressions")):
        expression = json_object(raw)
        key, operator, values = expression.get("key"), expression.get("operator"), json_list(expression.get("values"))
        if not isinstance(key, str):
            continue
        if key not in known:
            if operator in {"In", "Exists", "Gt", "Lt"} and not preferred and not labels.is_set_by_others(key):
                yield f"{key} {operator} {', '.join(map(str, values))}, no new node has that label".replace(" ,", ",")
            continue
        satisfied = {
            "In": known[key] in values,
            "NotIn": known[key] not in values,
            "Exists": True,
            "DoesNotExist": False,
        }.get(str(operator), True)
        if not satisfied:
            yield f"{key} {operator} {', '.join(map(str, values))}, the nodes have {known[key]!r}"
