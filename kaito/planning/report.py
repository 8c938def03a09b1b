"""Collects the result of a plan as data, in the form that `-o json` and `-o yaml` print.

Sizes are in bytes, prices in the currency that the report names. What is unknown is absent or has a reason; it is never
0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, final

from kaito.api import Claim
from kaito.api.karpenter import NodePool
from kaito.models.memory import GpuMemory, gpu_memory
from kaito.models.planning import InferencePlan
from kaito.planning.comparison import Change, bare
from kaito.prices.book import PriceBook
from kaito.prices.price import CapacityType, Price
from kaito.runtime.meta import Resource
from kaito.workspace.alternatives import Choice
from kaito.workspace.cost import Cost, offering
from kaito.workspace.preflight import Finding
from kaito.workspace.preview import PLACEHOLDER_UID, Preview
from kaito.workspace.settings import NodeApi, WorkspaceSettings

_CLAIM_PREFIX: Final = "ws"
"""Prefix of the names of claims."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PriceQuestion:
    """How the price of nodes is looked up."""

    book: PriceBook
    region: str = ""
    capacity_type: CapacityType | None = None
    """None for what the Workspace requests."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PriceAnswer:
    """The price of the planned nodes, or why there is none."""

    cost: Cost | None = None
    region: str = ""
    unknown: str = ""
    """Why the price is unknown; empty if it is known."""
    regions: Mapping[str, Price] | None = None
    """Prices of one node in other regions, if no region is known."""
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan:
    """The Workspaces of an InferenceSet, each of which is planned like the first one."""

    namespace: str
    name: str
    replicas: int
    """Workspaces that are requested."""
    workspaces: int
    """Workspaces that `nodeCountLimit` allows of these."""
    nodes: int
    """Nodes of all of them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """The plan of one Workspace with everything that is printed about it."""

    preview: Preview
    origin: str
    settings: WorkspaceSettings
    changes: Sequence[Change]
    """Objects with what would happen to them."""
    price: PriceAnswer | None = None
    """None if nothing is bought."""
    warnings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    """What the plan does not contain, and why."""
    inference_set: SetPlan | None = None
    """The InferenceSet of which this is the plan of one Workspace; None for a Workspace without a set."""

    @property
    def is_refused(self) -> bool:
        """Whether the Workspace would be rejected or get no node."""
        return bool(self.preview.errors)

    @property
    def memory(self) -> GpuMemory | None:
        """Memory of one GPU; None for a pod template."""
        plan, inference = self.preview.plan, self.preview.workspace.inference
        if plan is None or plan.model is None:
            return None
        return gpu_memory(plan.model, adapters=len(inference.adapters) if inference is not None else 0)


async def ask_price(found: Preview, settings: WorkspaceSettings, question: PriceQuestion) -> PriceAnswer | None:
    """Looks up the price of the planned nodes; None for existing nodes, and if nothing is planned."""
    if found.plan is None or settings.node_api is NodeApi.BYO or found.wanted_claims == 0:
        return None
    wanted = offering(
        found.plan.hardware, cloud=settings.cloud, region=question.region, capacity_type=question.capacity_type
    )
    quote = await question.book.find(wanted)
    if quote.price is not None:
        cost = Cost(nodes=found.wanted_claims, price=quote.price)
        return PriceAnswer(cost=cost, region=question.region, notes=quote.notes)
    if not question.region:
        regions = question.book.regions(wanted.cloud, wanted.instance_type, wanted.capacity_type)
        return PriceAnswer(unknown="no region is named", regions=regions, notes=quote.notes)
    unknown = f"no source has a price of {wanted.instance_type} in {question.region} ({wanted.capacity_type})"
    return PriceAnswer(region=question.region, unknown=unknown, notes=quote.notes)


def price_of_set(report: PlanReport) -> PriceAnswer | None:
    """Returns the price of the nodes of all Workspaces of the set; None without a set, or if nothing is bought."""
    price, each = report.price, report.inference_set
    if price is None or each is None or price.cost is None:
        return price if each is not None else None
    return replace(price, cost=Cost(nodes=each.nodes, price=price.cost.price))


def as_data(report: PlanReport) -> dict[str, Any]:
    """Returns the report as JSON values."""
    found = report.preview
    workspace = found.workspace
    data: dict[str, Any] = {
        "workspace": {"name": workspace.name, "namespace": workspace.namespace, "origin": report.origin},
        "result": "refused" if report.is_refused else "planned",
        "errors": [_finding(finding) for finding in found.errors],
        "warnings": [_finding(finding) for finding in report.warnings],
        "notes": list(report.notes),
    }
    if report.inference_set is not None:
        each = report.inference_set
        data["inferenceSet"] = {"name": each.name, "namespace": each.namespace, "replicas": each.replicas}
        data["inferenceSet"] |= {"workspaces": each.workspaces, "nodes": each.nodes}
        data["inferenceSet"] |= {"price": _price(price_of_set(report))}
    if found.plan is not None:
        data["model"] = _model(report)
        data["nodes"] = _nodes(report)
        data["alternatives"] = _alternatives(found.plan.choice)
        if report.memory is not None:
            data["memoryPerGPU"] = _memory(report.memory)
        data["price"] = _price(report.price)
        data["objects"] = [_change(change, workspace.uid) for change in report.changes]
    return {name: value for name, value in data.items() if value not in (None, {}, [])}


def _finding(finding: Finding) -> dict[str, str]:
    return {"reason": finding.reason, "field": finding.field, "message": finding.message}


def _model(report: PlanReport) -> dict[str, Any] | None:
    plan = report.preview.plan
    if plan is None or plan.model is None or plan.container is None:
        return None
    data: dict[str, Any] = {"preset": plan.container.preset, "image": plan.container.image}
    data["weights"] = plan.container.weights.method
    data["weightsProvisional"] = plan.container.is_weights_provisional
    model = plan.model
    if not isinstance(model, InferencePlan):
        return {**data, "task": "tuning", "method": model.method}
    divided = model.parallelism
    sizes = {"tensor": divided.tensor, "pipeline": divided.pipeline, "data": divided.data}
    data |= {"task": "inference", "runtime": model.runtime, "dtype": model.dtype, "parallelism": sizes}
    return data | ({"measured": model.measured} if model.measured else {})


def _nodes(report: PlanReport) -> dict[str, Any]:
    found = report.preview
    if found.plan is None:
        return {}
    hardware = found.plan.hardware
    data: dict[str, Any] = {"count": hardware.count, "instanceType": hardware.instance_type, "gpus": hardware.gpus}
    data["copies"] = hardware.copies
    data |= {"perCopy": hardware.nodes_per_copy} if hardware.nodes_per_copy > 1 else {}
    data |= {"copiesPerNode": hardware.copies_per_node} if hardware.gpu_profile else {}
    data |= {"copiesByNode": dict(hardware.places)} if hardware.places else {}
    data |= {"capacityTypes": list(hardware.capacity_types)} if hardware.capacity_types else {}
    data |= {"zones": list(hardware.zones)} if hardware.zones else {}
    if found.plan.model is not None:
        instance = found.plan.model.instance
        data |= {"gpu": instance.gpu.name, "memoryPerGPU": instance.memory_per_gpu}
    disk = str(hardware.disk)
    data |= {"disk": disk} if disk != "0" and report.settings.node_api is not NodeApi.BYO else {}
    data["toCreate"] = found.new_claims
    data |= {"adopted": list(found.adopted)} if found.adopted else {}
    if found.decision.next_creation_at is not None:
        data["nextCreationAt"] = found.decision.next_creation_at.isoformat()
    return data


def _alternatives(choice: Choice | None) -> list[dict[str, Any]]:
    """Returns the alternatives in order; empty if the Workspace names one instance type."""
    if choice is None:
        return []
    passed = {each.instance_type: each for each in choice.passed}
    found: list[dict[str, Any]] = []
    for index, candidate in enumerate(choice.candidates):
        is_chosen = index == choice.position and choice.resume_at is None
        data: dict[str, Any] = {"instanceType": candidate.instance_type, "chosen": is_chosen}
        data |= {"nodes": candidate.nodes} if candidate.nodes else {}
        each = passed.get(candidate.instance_type)
        why = each.why if each is not None else candidate.problem or candidate.over_budget
        data |= {"passed": why} if why else {}
        data |= {"retryAt": each.retry_at.isoformat()} if each is not None and each.retry_at is not None else {}
        found.append(data)
    return found


def _memory(memory: GpuMemory) -> dict[str, Any]:
    sizes = {
        "total": memory.total,
        "usable": memory.usable,
        "weights": memory.weights,
        "adapters": memory.adapters,
        "state": memory.state,
        "keyValueCache": memory.cache,
        "overhead": memory.overhead,
        "free": memory.free,
    }
    tokens = {"keyValueCacheTokens": memory.context} if memory.context else {}
    return {name: round(size) for name, size in sizes.items()} | tokens


def _price(answer: PriceAnswer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    if answer.cost is None:
        regions = {region: _number(price.per_hour) for region, price in sorted((answer.regions or {}).items())}
        return {"unknown": answer.unknown, "region": answer.region or None, "nodePerHourByRegion": regions or None}
    price = answer.cost.price
    return {
        "perHour": _number(answer.cost.per_hour),
        "perMonth": _number(answer.cost.per_month),
        "nodePerHour": _number(price.per_hour),
        "nodes": answer.cost.nodes,
        "currency": price.currency,
        "capacityType": price.capacity_type,
        "region": answer.region,
        "source": price.source,
        "asOf": str(price.as_of) if price.as_of is not None else None,
    }


def _number(amount: Decimal) -> float:
    return round(float(amount), 6)


def _change(change: Change, uid: str) -> dict[str, Any]:
    data: dict[str, Any] = {"action": change.action, "object": manifest(change.object, uid)}
    return {**data, **({"note": change.note} if change.note else {}), **({"diff": change.diff} if change.diff else {})}


def manifest(obj: Resource, uid: str) -> dict[str, Any]:
    """Returns an object as it would be created; without the names and labels that depend on an unknown UID."""
    document = bare(obj)
    if uid == PLACEHOLDER_UID and isinstance(obj, Claim | NodePool):
        document["metadata"] = {**_without_uid(document["metadata"]), "generateName": name_prefix(obj)}
        del document["metadata"]["name"]
        if isinstance(obj, NodePool):
            template = document["spec"]["template"]
            template["metadata"] = _without_uid(template["metadata"])
        else:
            _without_template_name(document)
    return document


def name_prefix(obj: Claim | NodePool) -> str:
    """Returns the part of a name that does not depend on the UID, which the API server assigns."""
    return f"{obj.name.rpartition('-')[0]}-" if isinstance(obj, NodePool) else _CLAIM_PREFIX


def _without_uid(metadata: dict[str, Any]) -> dict[str, Any]:
    own_labels = {name: value for name, value in metadata.get("labels", {}).items() if value != PLACEHOLDER_UID}
    return {**metadata, "labels": own_labels}


def _without_template_name(document: dict[str, Any]) -> None:
    """Removes the name of a Machine's template, which is that of the Machine."""
    document.get("spec", {}).pop("machineTemplateRef", None)
