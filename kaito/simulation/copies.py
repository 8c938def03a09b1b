"""The invariants of InferenceSets: how many Workspaces a set has, and what its conditions report."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from kaito.runtime.testing.simulate import Finding, Run
from kaito.simulation.history import History
from kaito.simulation.manifests import Object, condition, entries, is_terminating, name_of, section
from kaito.simulation.plans import nodes_on, preset_of, sizes_of
from kaito.simulation.reference import CAUSE_SECONDS, LATE_SECONDS, STALE_SECONDS

SETS: Final = "inferencesets.kaito.sh"
WORKSPACES: Final = "workspaces.kaito.sh"

MISSING_SECONDS: Final = 300.0
"""How long a set may have too few Workspaces: a new leader, and the names of Workspaces that are being deleted."""

SURPLUS_SECONDS: Final = 600.0
"""How long a set may have too many Workspaces."""

PER_HOUR: Final = 10
"""Workspaces that may be created in an hour for each wanted one: users delete some, and updates replace them."""


@final
@dataclass(slots=True)
class _Wanted:
    """What users wanted of one set."""

    specs: History[Object] = field(default_factory=History[Object])
    created: list[float] = field(default_factory=list[float])
    """Times at which Workspaces were created."""


@final
class Copies:
    """Compares the Workspaces of the sets of one run with what users want.

    Args:
        run: the run.
        serves: returns whether a Workspace serves.
        is_blocked: returns whether a Workspace waits for its user.
    """

    def __init__(self, run: Run, serves: Callable[[Object], bool], is_blocked: Callable[[Object], bool]) -> None:
        self._run, self._serves, self._is_blocked = run, serves, is_blocked
        self._wanted: dict[str, _Wanted] = {}
        self._broken_rules: list[Finding] = []
        run.world.server.on_write(self._on_write)

    def _on_write(self, resource: str, obj: Object, previous: Object | None) -> None:
        if resource == SETS:
            self._wanted.setdefault(obj["metadata"]["uid"], _Wanted()).specs.note(self._run.now, dict(obj["spec"]))
        elif resource == WORKSPACES and previous is None:
            owner = self._set_of(obj)
            if owner is not None:
                self._on_new_workspace(obj, owner)

    def _set_of(self, workspace: Mapping[str, Any]) -> Object | None:
        reference = next((e for e in entries(workspace, "metadata", "ownerReferences") if e.get("controller")), None)
        if reference is None or reference["kind"] != "InferenceSet":
            return None
        found = self._run.stored(SETS).get((workspace["metadata"]["namespace"], reference["name"]))
        return found if found is not None and found["metadata"]["uid"] == reference["uid"] else None

    def _workspaces_of(self, owner: Object) -> list[Object]:
        return [each for each in self._run.stored(WORKSPACES).values() if self._set_of(each) is owner]

    def _on_new_workspace(self, workspace: Object, owner: Object) -> None:
        wanted = self._wanted.setdefault(owner["metadata"]["uid"], _Wanted())
        recent = wanted.specs.recent(self._run.now)
        children = self._workspaces_of(owner)
        live = [each for each in children if not is_terminating(each)]
        is_rolling = len(recent) > 1 or any(differs(each, owner) for each in live)
        most = max(spec["replicas"] + (surge_of(spec) if is_rolling else 0) for spec in recent)
        if len(live) > most:
            text = f"{name_of(workspace)} is created: {name_of(owner)} has {len(live)} Workspaces, at most {most}"
            self._broken_rules.append(Finding("never more copies than wanted", text))
        wanted.created.append(self._run.now)
        hour = sum(moment > self._run.now - 3600.0 for moment in wanted.created)
        if hour > PER_HOUR * max(most, 1):
            self._broken_rules.append(
                Finding("no buying in a loop", f"{hour} Workspaces in an hour for {name_of(owner)}")
            )
        limits = [spec.get("nodeCountLimit") or 0 for spec in recent]
        nodes = sum(nodes_of(each) for each in children)
        if all(limits) and nodes > max(limits):
            text = f"{name_of(workspace)} is created: {name_of(owner)} needs {nodes} nodes, at most {max(limits)}"
            self._broken_rules.append(Finding("never more copies than wanted", text))

    # -- the state ---------------------------------------------------------------------------------------------------

    def check(self) -> Iterator[Finding]:
        """Returns what is wrong, or must not last."""
        yield from self._broken_rules
        for each in self._run.stored(SETS).values():
            children = self._workspaces_of(each)
            if is_terminating(each):
                if not children:
                    text = f"{name_of(each)} is terminating and has no Workspaces"
                    yield Finding("every deletion ends", text, LATE_SECONDS)
                continue
            yield from self._check_number(each, children)
            yield from self._check_conditions(each, children)

    def _check_number(self, owner: Object, children: list[Object]) -> Iterator[Finding]:
        name, replicas = name_of(owner), owner["spec"]["replicas"]
        live = [each for each in children if not is_terminating(each)]
        is_rolling = any(differs(each, owner) for each in live)
        most = replicas + (surge_of(owner["spec"]) if is_rolling else 0)
        if len(live) > most:
            text = f"{name} has {len(live)} Workspaces, and at most {most} are wanted"
            yield Finding("never more copies than wanted", text, SURPLUS_SECONDS)
        if len(live) < replicas and not is_rolling and not is_limited(owner, children):
            text = f"{name} has {len(live)} Workspaces of {replicas}"
            yield Finding("never fewer copies than wanted", text, MISSING_SECONDS)

    def _check_conditions(self, owner: Object, children: list[Object]) -> Iterator[Finding]:
        name, replicas = name_of(owner), owner["spec"]["replicas"]
        serving = sum(self._serves(each) for each in children if not is_terminating(each))
        for kind in ("InferenceSetReady", "InferenceSetUpdated"):
            found = condition(owner, kind)
            if found is None or (found["status"] != "True" and not (found.get("reason") and found.get("message"))):
                yield Finding("every wait has a cause", f"{name}: {kind} has no cause", CAUSE_SECONDS)
        found = condition(owner, "InferenceSetReady")
        is_true = found is not None and found["status"] == "True"
        if is_true and serving < replicas:
            text = f"{name}: InferenceSetReady is True and fewer than {replicas} Workspaces serve"
            yield Finding("conditions are true", text, STALE_SECONDS)
        if found is not None and not is_true and serving >= replicas:
            text = f"{name}: InferenceSetReady is {found['status']} ({found.get('reason')}) and holds"
            yield Finding("conditions are true", text, LATE_SECONDS)

    # -- the end -----------------------------------------------------------------------------------------------------

    def missing(self) -> Iterator[str]:
        """Returns what is not as users want it."""
        for each in self._run.stored(SETS).values():
            name, children = name_of(each), self._workspaces_of(each)
            if is_terminating(each):
                yield f"{name} is terminating"
            elif any(self._is_blocked(child) for child in children) or (
                is_limited(each, children)
                and (len(children) < each["spec"]["replicas"] or any(differs(child, each) for child in children))
            ):
                continue
            elif len(children) != each["spec"]["replicas"]:
                yield f"{name} has {len(children)} Workspaces and needs {each['spec']['replicas']}"
            else:
                for kind in ("InferenceSetReady", "InferenceSetUpdated"):
                    found = condition(each, kind)
                    if found is None or found["status"] != "True":
                        cause = "" if found is None else f" ({found.get('reason')}: {found.get('message')})"
                        yield f"{name}: {kind} is not True{cause}"


def differs(workspace: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    """Whether a Workspace has another model, instance type or annotation than the template of its set."""
    template = section(owner, "spec", "template")
    wanted = section(template, "metadata", "annotations")
    present = section(workspace, "metadata", "annotations")
    return (
        preset_of(workspace) != preset_of(template)
        or sizes_of(workspace) != sizes_of(template)
        or any(present.get(key) != value for key, value in wanted.items())
    )


def surge_of(spec: Mapping[str, Any]) -> int:
    """Returns the number of additional Workspaces during an update."""
    return int(section(spec, "updateStrategy", "rollingUpdate").get("maxSurge", 1))


def nodes_of(workspace: Mapping[str, Any]) -> int:
    """Returns the nodes of a Workspace of a set."""
    return nodes_on(workspace, sizes_of(workspace)[0])


def is_limited(owner: Object, children: list[Object]) -> bool:
    """Whether the limit of nodes forbids another Workspace."""
    limit, template = owner["spec"].get("nodeCountLimit") or 0, section(owner, "spec", "template")
    return bool(limit) and sum(map(nodes_of, [*children, template])) > limit
