"""Prints plans for people: a table of facts, the memory of a GPU as bars, and the refusals.

On a terminal, bars are drawn with block characters and colors; otherwise the output is plain ASCII.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kaito.api import Claim
from kaito.api.karpenter import NodePool
from kaito.api.labels import INSTANCE_TYPE
from kaito.models.gpu import GIB
from kaito.models.memory import GpuMemory
from kaito.models.planning import InferencePlan
from kaito.planning.comparison import Change
from kaito.planning.report import PlanReport, PriceAnswer, SetPlan, name_prefix, price_of_set
from kaito.planning.style import BAR_WIDTH, Style
from kaito.prices.price import amount
from kaito.runtime.kinds import StatefulSet
from kaito.workspace.alternatives import Choice, describe_why
from kaito.workspace.plan import Hardware
from kaito.workspace.preview import PLACEHOLDER_UID
from kaito.workspace.settings import NodeApi

WIDTH: Final = 100
"""Width at which messages are wrapped."""

_MARKS: Final[Mapping[str, str]] = {
    "create": "+",
    "update": "~",
    "replace": "~",
    "delete": "-",
    "conflict": "!",
    "unchanged": " ",
    "unknown": "?",
}


def render(report: PlanReport, style: Style, *, compared: bool) -> str:
    """Returns the text of one plan.

    Args:
        report: the plan.
        style: what the output can show.
        compared: whether the objects were compared with a cluster.
    """
    return "\n".join(_lines(report, style, compared=compared))


def _lines(report: PlanReport, style: Style, *, compared: bool) -> Iterator[str]:
    workspace = report.preview.workspace
    name = f"Workspace {workspace.namespace}/{workspace.name or workspace.metadata.generate_name}"
    if report.inference_set is not None:
        name = f"InferenceSet {report.inference_set.namespace}/{report.inference_set.name}"
    if report.is_refused:
        yield style.paint(f"{name}: refused", "red")
        yield ""
        for finding in report.preview.errors:
            yield from _wrapped(f"{finding.field}: {finding.message}", style.paint(f"{'error':<9}", "red"))
    else:
        yield style.paint(f"{name}: planned", "green")
        yield ""
        if report.inference_set is not None:
            yield from _set(report.inference_set, price_of_set(report))
        yield from _facts(report, style)
        yield from _objects(report.changes, workspace.uid, style, compared=compared)
    for finding in report.warnings:
        yield from _wrapped(str(finding), style.paint(f"{'warning':<9}", "yellow"))
    for note in report.notes:
        yield from _wrapped(note, style.paint(f"{'note':<9}", "dim"))


def _facts(report: PlanReport, style: Style) -> Iterator[str]:
    plan = report.preview.plan
    if plan is None:
        return
    hardware = plan.hardware
    model = plan.model
    if plan.container is not None and model is not None:
        if isinstance(model, InferencePlan):
            sizes = (("tensor", model.parallelism.tensor), ("pipeline", model.parallelism.pipeline))
            shown = [f"{name} parallel {size}" for name, size in (*sizes, ("data", model.parallelism.data)) if size > 1]
            what = f"inference, {', '.join((f'{model.runtime} in {model.dtype}', *shown))}"
        else:
            what = f"tuning with {model.method}"
        yield f"model    {plan.container.preset}: {what}"
        mounted = ", or ImageVolume if all nodes support it" if plan.container.is_weights_provisional else ""
        yield f"weights  {plan.container.weights.method}{mounted}"
        kind = str(model.instance)
    else:
        kind = hardware.instance_type or "existing nodes"
    disk = "" if report.settings.node_api is NodeApi.BYO else f", {hardware.disk} of disk each"
    yield from _copies(report, hardware)
    yield f"nodes    {hardware.count} x {kind}{_offered(hardware)}{disk}"
    if plan.explanation:
        yield f"         {plan.explanation}"
    if plan.choice is not None:
        yield from _alternatives(plan.choice)
    yield from _node_notes(report)
    if report.memory is not None:
        yield from _memory(report.memory, style)
    if isinstance(model, InferencePlan) and model.measured:
        yield from _wrapped(model.measured, "measured ")
    if report.price is not None:
        yield from _price(report.price)


def _set(found: SetPlan, price: PriceAnswer | None) -> Iterator[str]:
    """Describes all Workspaces of the set together; the lines that follow are about each of them."""
    allowed = f" of {found.replicas}, because of nodeCountLimit" if found.workspaces < found.replicas else ""
    nodes = f"{found.nodes} node{'s' if found.nodes != 1 else ''}"
    cost = f", {price.cost}" if price is not None and price.cost is not None else ""
    yield f"set      {found.workspaces} Workspaces{allowed}, {nodes} in all{cost}; of each Workspace:"


def _alternatives(choice: Choice) -> Iterator[str]:
    """Lists the alternatives in order: the chosen one, and why each earlier one is not used."""
    passed = {each.instance_type: str(each) for each in choice.passed}
    for index, candidate in enumerate(choice.candidates):
        name = candidate.instance_type
        if index == choice.position:
            text = f"{name}: chosen" if choice.resume_at is None else passed.get(name, name)
        elif name in passed:
            text = passed[name]
        elif candidate.problem or candidate.over_budget:
            text = describe_why(name, candidate.problem or candidate.over_budget)
        else:
            text = (
                f"{name}: {candidate.nodes} node{'s' if candidate.nodes != 1 else ''}, if those before are unavailable"
            )
        heading = "choices  " if index == 0 else "         "
        yield from _wrapped(text, f"{heading}{index + 1} ")


def _offered(hardware: Hardware) -> str:
    """Describes capacity types and zones that the Workspace names, as a part of a line."""
    capacity = f", {' or '.join(hardware.capacity_types)}" if hardware.capacity_types else ""
    if copies := hardware.on_demand_copies:
        capacity += f", on-demand for {copies} cop{'ies' if copies > 1 else 'y'}"
    return capacity + (f", in zone {' or '.join(hardware.zones)}" if hardware.zones else "")


def _copies(report: PlanReport, hardware: Hardware) -> Iterator[str]:
    """Describes the number of copies of a model that is served, unless it is always one copy on one node."""
    workspace = report.preview.workspace
    scaling = workspace.spec.autoscaling
    idle = f"; none after {scaling.idle_limit_seconds} s without requests" if scaling and scaling.scales_to_zero else ""
    if workspace.inference is None or (hardware.copies == 1 and not hardware.is_group and not idle):
        return
    if hardware.copies == 0:
        starts = ": a request starts one" if idle else ": spec.replicas is 0, so that no node is used"
        yield f"copies   0{starts}"
        return
    each = f", each on {hardware.nodes_per_copy} nodes" if hardware.is_group else ", each on a node"
    each = ", each on a slice of a GPU" if hardware.gpu_profile else each
    each = ", which share nodes" if hardware.places else each
    yield f"copies   {hardware.copies}{each}{idle}"


def _node_notes(report: PlanReport) -> Iterator[str]:
    found = report.preview
    if found.adopted:
        yield f"         preferred nodes that are free: {', '.join(found.adopted)}"
    existing = found.wanted_claims - found.new_claims
    if existing > 0:
        what = "exist" if found.decision.next_creation_at is None else "exist or wait for the end of the backoff"
        yield f"         {existing} of {found.wanted_claims} claims {what}"
    if found.decision.next_creation_at is not None:
        yield f"         the next claim is created at {found.decision.next_creation_at:%Y-%m-%dT%H:%M:%SZ}"


def _memory(memory: GpuMemory, style: Style) -> Iterator[str]:
    tokens = f"  {memory.context} tokens" if memory.context else ""
    parts = (
        ("weights", memory.weights, "", ""),
        ("adapters", memory.adapters, "", ""),
        ("state", memory.state, "", ""),
        ("KV cache", memory.cache, tokens, ""),
        ("overhead", memory.overhead, "", ""),
        ("free", max(memory.free, 0.0), "", "dim"),
        ("reserved", memory.total - memory.usable, "", "dim"),
        ("missing", max(-memory.free, 0.0), "", "red"),
    )
    yield f"memory   {_gib(memory.total)} on each GPU"
    for name, size, note, color in parts:
        if size > 0:
            bar = style.bar(size / memory.total)
            padding = " " * (BAR_WIDTH - len(bar))
            painted = style.paint(bar, color) if color else style.paint(bar, "green")
            yield f"         {name:<9}{painted}{padding}{_gib(size):>10}{note}"


_LEAST_GIB: Final = 0.05 * GIB
"""Smaller sizes would be printed as 0.0 GiB."""


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= _LEAST_GIB else f"{size / 2**20:.0f} MiB"


def _price(answer: PriceAnswer) -> Iterator[str]:
    if answer.cost is None:
        yield from _wrapped(f"unknown: {answer.unknown}{_range(answer)}", "price    ")
        return
    cost, price = answer.cost, answer.cost.price
    yield f"price    {cost}"
    nodes = f"{cost.nodes} nodes at {amount(price.per_hour)}" if cost.nodes > 1 else "1 node"
    place = f" in {answer.region}" if answer.region else ""
    spot = " (changes often)" if price.capacity_type == "spot" else ""
    as_of = f", {price.as_of}" if price.as_of is not None else ""
    yield f"         {nodes}, {price.capacity_type}{place}{spot}; {price.source}{as_of}"


def _range(answer: PriceAnswer) -> str:
    """Describes the prices of the regions that a table contains."""
    if answer.region:
        return ""
    prices = sorted((answer.regions or {}).values(), key=lambda price: price.per_hour)
    if not prices:
        return "; name it with --region"
    low, high = prices[0], prices[-1]
    between = " to ".join(dict.fromkeys(amount(price.per_hour) for price in (low, high)))
    count = f"{len(prices)} region{'s' if len(prices) > 1 else ''}"
    return (
        f"; name it with --region. One {low.capacity_type} node costs {between} {low.currency} per hour in "
        f"{count} ({low.source})"
    )


def _objects(changes: Sequence[Change], uid: str, style: Style, *, compared: bool) -> Iterator[str]:
    heading = "changes" if compared else "creates"
    for number, change in enumerate(changes):
        color = {"create": "green", "delete": "red", "conflict": "red", "unchanged": "dim"}.get(change.action, "yellow")
        line = f"{_MARKS[change.action]} " if compared else ""
        line += f"{change.object.kind} {_name(change, uid)}"
        details: list[str] = [change.action] if compared and change.action not in {"create", "update"} else []
        details += [change.note] if change.note else _details(change)
        shown = f" ({', '.join(details)})" if details else ""
        text = style.paint(line, color) if compared else line
        yield f"{heading if number == 0 else '':<9}{text}{shown}"
        for diff_line in change.diff.splitlines()[2:]:
            mark = {"+": "green", "-": "red"}.get(diff_line[:1], "dim")
            yield f"           {style.paint(diff_line, mark)}"


def _name(change: Change, uid: str) -> str:
    if uid == PLACEHOLDER_UID and isinstance(change.object, Claim | NodePool):
        return f"{name_prefix(change.object)}*"
    return change.object.name or f"{change.object.metadata.generate_name}*"


def _details(change: Change) -> list[str]:
    if isinstance(change.object, Claim):
        return [change.object.instance_type]
    if isinstance(change.object, NodePool):
        pool = change.object.spec
        nodes = pool.replicas or 0
        found = next(each for each in pool.template.spec.requirements if each.key == INSTANCE_TYPE)
        return [f"{nodes} node{'s' if nodes != 1 else ''} of {' or '.join(found.values)}"]
    if isinstance(change.object, StatefulSet):
        replicas = change.object.spec.replicas or 0
        return [f"{replicas} pod{'s' if replicas != 1 else ''}"]
    return []


def _wrapped(text: str, heading: str) -> Iterator[str]:
    lines = textwrap.wrap(text, WIDTH - 9, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"{heading}{lines[0]}"
    yield from (f"         {line}" for line in lines[1:])
