"""Checks that a node of the planned kind could run a template: its requests, and selectors that exclude every node."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kaito.api import Workspace, conditions, labels
from kaito.api.raw import json_list, json_object
from kaito.models import instance_types, node_capacity
from kaito.models.errors import NoGpu, UnknownInstanceType
from kaito.models.gpu import GIB
from kaito.runtime.meta import Quantity
from kaito.workspace.ownership import owner_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.preflight.examination import Examination
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import NodeApi

_TEMPLATE: Final = "inference.template.spec"
_GPU_RESOURCES: Final = (labels.NVIDIA_GPU, labels.AMD_GPU, labels.NEURON_DEVICE)
_PARTS_OF_GPUS: Final = ("nvidia.com/mig-", "nvidia.com/gpu.shared")
_LARGEST_DISK: Final = Quantity("32Ti")
"""Bound of a node's own disk: an operating system disk has at most 4 TiB, the largest local disks 28 TB."""

_OF_NODES: Final = ("cpu", "memory", "ephemeral-storage", *_GPU_RESOURCES)


async def requests(examination: Examination) -> Iterable[Finding]:
    """A pod template asks for no more than a node has, and selects labels that a node can have."""
    inference, plan = examination.workspace.inference, examination.plan
    if inference is None or inference.template is None or plan is None:
        return ()
    spec = json_object(inference.template.get("spec"))
    wanted = pod_requests(spec)
    if examination.settings.node_api is NodeApi.BYO:
        return tuple(_beyond_own_nodes(examination, wanted))
    known = examination.instance is not None or _has_no_gpu(examination)
    found = [*_beyond_instance(wanted, plan.hardware, known=known), *_beyond_name(wanted, examination)]
    found += _never_offered(wanted, plan.hardware)
    preferred = bool(examination.workspace.resource.preferred_nodes)
    known_labels = _node_labels(examination.workspace, plan.hardware)
    return (*found, *_contradictions(spec, known_labels, preferred=preferred))


def _has_no_gpu(examination: Examination) -> bool:
    """Whether the instance type is known to have no GPU, rather than to be newer than the table."""
    try:
        instance_types.get(examination.workspace.resource.instance_type, examination.settings.cloud)
    except NoGpu:
        return True
    except UnknownInstanceType:
        return False
    return False


def pod_requests(spec: Mapping[str, Any]) -> dict[str, Quantity]:
    """What the scheduler counts for a pod: the sum of its containers, or the largest init container.

    A limit without a request is a request. Init containers that restart always run beside the others. Requests of the
    pod itself (`spec.resources`) take the place of the sum, and the overhead is added.
    """
    running: dict[str, Quantity] = {}
    largest: dict[str, Quantity] = {}
    for container in json_list(spec.get("containers")):
        _add(running, _container_requests(container))
    for container in json_list(spec.get("initContainers")):
        asked = _container_requests(container)
        if json_object(container).get("restartPolicy") == "Always":
            _add(running, asked)
        else:
            largest = _larger(largest, asked)
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
        return None  # the structure of the template is judged elsewhere


def _add(total: dict[str, Quantity], more: Mapping[str, Quantity]) -> None:
    for name, quantity in more.items():
        total[name] = total.get(name, Quantity(0)) + quantity


def _larger(one: Mapping[str, Quantity], other: Mapping[str, Quantity]) -> dict[str, Quantity]:
    nothing = Quantity(0)
    return {name: max(one.get(name, nothing), other.get(name, nothing)) for name in {*one, *other}}


def _beyond_instance(wanted: Mapping[str, Quantity], hardware: Hardware, *, known: bool) -> Iterator[Finding]:
    """GPUs that a node of the instance type does not have. A size that the table does not have is left alone."""
    for name in _GPU_RESOURCES:
        asked = wanted.get(name, Quantity(0))
        if asked <= Quantity(0):
            continue
        has = hardware.gpus if name == hardware.gpu_resource else 0
        if known and asked > Quantity(has):
            message = (
                f"asks for {asked} {name}, a node of {hardware.instance_type} has {has}: ask for at most {has}, or "
                f"choose a larger instance type"
            )
            yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.containers", message)


def _never_offered(wanted: Mapping[str, Quantity], hardware: Hardware) -> Iterator[Finding]:
    """Parts of GPUs, which only nodes that an administrator partitioned offer, and more disk than a node gets."""
    for name, asked in wanted.items():
        if name.startswith(_PARTS_OF_GPUS) and asked > Quantity(0):
            message = f"asks for {asked} {name}, and new nodes offer whole GPUs: ask for {hardware.gpu_resource}"
            yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.containers", message)
    disk = wanted.get("ephemeral-storage", Quantity(0))
    if disk > max(hardware.disk, _LARGEST_DISK):
        message = f"asks for {disk} of ephemeral-storage, a node has at most {_LARGEST_DISK}: use a volume for more"
        yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.containers", message)


def _beyond_name(wanted: Mapping[str, Quantity], examination: Examination) -> Iterator[Finding]:
    """More CPU or memory than any node of the instance type offers, by the bounds that its name gives."""
    name, cloud = examination.workspace.resource.instance_type, examination.settings.cloud
    bounds = {"cpu": node_capacity.most_cpus(name, cloud), "memory": node_capacity.most_memory(name, cloud)}
    for resource, most in bounds.items():
        asked = wanted.get(resource)
        if asked is None or most is None or asked <= Quantity(most):
            continue
        if resource == "memory":
            much, bound = f"{int(asked) // GIB} GiB of memory", f"less than {most // GIB} GiB"
        else:
            much, bound = f"{asked} cpu", str(most)
        message = f"asks for {much}, a node of {name} has {bound}: ask for less, or choose a larger instance type"
        yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.containers", message)


def _beyond_own_nodes(examination: Examination, wanted: Mapping[str, Quantity]) -> Iterator[Finding]:
    """More than any existing node has (`--node-api byo`)."""
    if not examination.nodes:
        return
    devices = [name for name in wanted if "/" in name and name not in _OF_NODES]
    for name in (*_OF_NODES, *devices):
        asked = wanted.get(name)
        if asked is None or asked <= Quantity(0):
            continue
        offered = [node.status.allocatable.get(name, node.status.capacity.get(name)) for node in examination.nodes]
        most = max((each for each in offered if each is not None), default=None)
        if most is None and "/" not in name:
            continue
        if most is None or asked > most:
            message = f"asks for {asked} {name}, the nodes that the selector matches have {most or 0} at most"
            yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.containers", message, cure="watched")


def _node_labels(workspace: Workspace, hardware: Hardware) -> dict[str, str]:
    """Labels that every new node of the Workspace has."""
    return {
        **workspace.resource.label_selector.match_labels,
        **owner_labels(workspace),
        labels.INSTANCE_TYPE: hardware.instance_type,
        labels.OS: "linux",
        labels.ARCH: "amd64",
    }


def _contradictions(spec: Mapping[str, Any], known: Mapping[str, str], *, preferred: bool) -> Iterator[Finding]:
    """Selectors that exclude the Workspace's nodes; `preferred` nodes exist and may have labels that new ones lack."""
    if spec.get("nodeName"):
        message = "names a node, and the Workspace's nodes do not exist yet: remove it"
        yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.nodeName", message)
    for key, value in json_object(spec.get("nodeSelector")).items():
        if key in known and known[key] != value:
            message = f"wants {value!r}, the Workspace's nodes have {known[key]!r}: remove it"
            yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.nodeSelector[{key}]", message)
        elif key not in known and not preferred and not labels.is_set_by_others(key):
            message = "is a label that no new node has: remove it, or add it to resource.labelSelector.matchLabels"
            yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.nodeSelector[{key}]", message)
    node = json_object(json_object(spec.get("affinity")).get("nodeAffinity"))
    required = json_object(node.get("requiredDuringSchedulingIgnoredDuringExecution"))
    terms = json_list(required.get("nodeSelectorTerms"))
    excluded = [next(_excluding(term, known, preferred=preferred), None) for term in terms]
    if terms and all(excluded):
        message = f"no node of the Workspace can satisfy it: {excluded[0]}: remove it"
        yield Finding(conditions.INVALID_SPEC, f"{_TEMPLATE}.affinity.nodeAffinity", message)


def _excluding(term: Any, known: Mapping[str, str], *, preferred: bool) -> Iterator[str]:
    """Expressions of a term that a node with the known labels does not satisfy, in words."""
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
