"""The reconcile of an InferenceSet, and the controller that runs it.

It observes the Workspaces of the set, lets `rollout.decide` choose what to do, does it, and reports. Nothing waits: the
Workspaces, their StatefulSets and the Service are watched. Before a Workspace is created or deleted, the Workspaces are
read from the API server instead of the cache, which may be stale after a restart or a change of the leader.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, final

from pydantic import ValidationError

from kaito.api import InferenceSet, Workspace, conditions, labels
from kaito.api.inference_set import AutoUpgradeStatus
from kaito.api.inference_set.bounds import bound
from kaito.runtime import Again, Request
from kaito.runtime.cache import View
from kaito.runtime.client import ConditionUpdate, MergePatch, StatusScope
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ApiError, NotLeader
from kaito.runtime.kinds import Pod, Service, StatefulSet
from kaito.runtime.meta import Condition, ObjectKey, find_condition
from kaito.runtime.predicate import changed, differs
from kaito.runtime.source import FunctionSource
from kaito.workspace.failure import format_error, is_rejection
from kaito.workspace.indexes import PODS
from kaito.workspace.inference_sets.admission import validate_inference_set
from kaito.workspace.inference_sets.children import Change, Child, child_workspace, evaluate_child, free_names
from kaito.workspace.inference_sets.gateway import GATEWAY_KINDS, ensure_route
from kaito.workspace.inference_sets.loads import CopyLoads, requests_of
from kaito.workspace.inference_sets.nodes import nodes_per_workspace
from kaito.workspace.inference_sets.rollout import Bounds, Decision, NodeBudget, decide, is_choice
from kaito.workspace.inference_sets.service import pod_selector, set_service
from kaito.workspace.inference_sets.status import SetState, condition_updates
from kaito.workspace.inference_sets.upgrade import upgrade_change, upgrade_time
from kaito.workspace.ownership import inference_set_name, is_controller_of, name_conflict_message
from kaito.workspace.scaling.copies import ready_copies
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.steps.status import MAX_MESSAGE_CHARACTERS

RESYNC_SECONDS: Final = 60.0
"""Interval at which a set that is not complete is reconciled without an event."""

WORKERS: Final = 8
"""Number of InferenceSets reconciled concurrently."""

LOAD_RESYNC_SECONDS: Final = 5.0
"""Interval at which a set that waits for the load of its Workspaces is reconciled without an event."""

DELETION_RESYNC_SECONDS: Final = 10.0
"""Interval at which a deletion is reconciled without an event while Workspaces exist."""


@final
class InferenceSetReconciler:
    """Reconciles InferenceSets. All state that must survive a restart is in the cluster."""

    def __init__(self, settings: WorkspaceSettings, loads: CopyLoads | None = None) -> None:
        self.settings = settings
        self.loads = loads or CopyLoads()

    async def reconcile(self, request: Request[InferenceSet]) -> None:
        """Creates, changes and deletes Workspaces, applies the Service, and writes the status, also after a failure.

        Raises:
            Exception: what failed, so that the reconcile is retried with backoff.
        """
        state, failure = SetState(replicas=request.object.spec.replicas), None
        async with request.status() as status:
            try:
                await self._run(request, state)
            except NotLeader:
                raise
            except Exception as error:  # noqa: BLE001 - reported in the conditions, and raised below
                failure = error
            _report(request, status, state, "" if failure is None or state.refused else format_error(failure))
        if failure is not None:
            raise failure

    async def _run(self, request: Request[InferenceSet], state: SetState) -> None:
        inference_set, api = request.object, request.api
        errors = [v for v in validate_inference_set(inference_set, None, self.settings) if v.severity == "error"]
        if errors:
            state.invalid = conditions.INVALID_SPEC, "; ".join(str(error) for error in errors)
        workspaces: Sequence[Workspace] = await api.list(Workspace, owned_by=inference_set)
        decision = await self._decide(request, state, workspaces)
        if is_choice(state.children or (), decision):
            decision = await self._by_load(request, state, workspaces, decision)
        else:
            self.loads.forget(request.key)
        if decision.create or decision.delete:
            everything = await api.list(
                Workspace, namespace=inference_set.namespace, consistency="live", unreadable="fail"
            )
            own = [workspace for workspace in everything if is_controller_of(inference_set, workspace)]
            decision = await self._decide(request, state, own)
            if state.requests is None and is_choice(state.children or (), decision):
                request.requeue_after(LOAD_RESYNC_SECONDS, "the load of the workspaces was not read")
                decision = _without_serving(state, decision)
            await _delete(request, [workspace for workspace in own if workspace.name in decision.delete])
            taken = [workspace.name for workspace in everything]
            await _create(request, state, islice(free_names(inference_set, taken), decision.create))
        await self._apply_service(request, state)
        state.routed = await ensure_route(request, self.settings)
        await _change(request, state, decision)
        state.children = await self._evaluate(request, state, await api.list(Workspace, owned_by=inference_set))

    async def _decide(
        self, request: Request[InferenceSet], state: SetState, workspaces: Sequence[Workspace]
    ) -> Decision:
        """Evaluates the Workspaces and decides what to do. A set with an invalid field is only scaled down."""
        inference_set = request.object
        state.children = children = await self._evaluate(request, state, workspaces)
        if state.invalid is not None:
            decision = decide(children, state.replicas, Bounds(is_manual=True), NodeBudget())
            return Decision(delete=decision.delete)
        state.bounds = _bounds(inference_set)
        state.upgrade_at = upgrade_time(inference_set, request.clock.now())
        limit = inference_set.spec.node_count_limit
        each = await nodes_per_workspace(inference_set, self.settings, workspaces) if limit else None
        state.budget = NodeBudget(limit=limit, per_workspace=each)
        decision = decide(children, state.replicas, state.bounds, state.budget)
        state.is_limited = decision.is_limited
        return decision

    async def _by_load(
        self, request: Request[InferenceSet], state: SetState, workspaces: Sequence[Workspace], decision: Decision
    ) -> Decision:
        """Decides again with the requests of the Workspaces; deletes none that serves while they are read."""
        addresses: dict[str, str] = {}
        owners: dict[str, str] = {}
        for workspace in workspaces:
            for pod in ready_copies(await request.api.list(Pod, index=PODS(str(workspace.key)))):
                if pod.status.pod_ip and not workspace.deleting:
                    addresses[pod.uid], owners[pod.uid] = pod.status.pod_ip, workspace.name
        found = self.loads.take(request.key, addresses)
        if found is None:
            request.requeue_after(LOAD_RESYNC_SECONDS, "the load of the workspaces is being read")
            return _without_serving(state, decision)
        without_pods = {workspace.name: 0.0 for workspace in workspaces if workspace.name not in owners.values()}
        state.requests = without_pods | requests_of(found, owners)
        return await self._decide(request, state, workspaces)

    async def _evaluate(
        self, request: Request[InferenceSet], state: SetState, workspaces: Sequence[Workspace]
    ) -> list[Child]:
        found: list[Child] = []
        live = [workspace for workspace in workspaces if not workspace.deleting]
        upgrade: Change = "none"
        if state.invalid is None:
            is_in_progress = len(live) > state.replicas and not all(each.status.pending_template for each in live)
            upgrade = upgrade_change(request.object, request.clock.now(), is_in_progress=is_in_progress)
        for workspace in workspaces:
            stateful_set = await request.api.find(StatefulSet, workspace.name, workspace.namespace)
            child = evaluate_child(request.object, workspace, stateful_set, upgrade)
            found.append(replace(child, requests=(state.requests or {}).get(child.name)))
        return found

    async def _apply_service(self, request: Request[InferenceSet], state: SetState) -> None:
        inference_set = request.object
        present = await request.api.find(Service, inference_set.name, inference_set.namespace)
        if present is not None and not is_controller_of(inference_set, present):
            state.service = conditions.NAME_CONFLICT, name_conflict_message(present, "InferenceSet")
            return
        try:
            await request.api.ensure(set_service(inference_set), owner=inference_set)
        except ApiError as error:
            if not is_rejection(error):
                raise
            state.service = conditions.WORKLOAD_REFUSED, f"the API server rejects the Service: {format_error(error)}"

    async def finalize(self, request: Request[InferenceSet]) -> Again | None:
        """Deletes the Workspaces of a set that is being deleted; returns None when none exists."""
        inference_set, api = request.object, request.api
        self.loads.forget(request.key)
        workspaces: Sequence[Workspace] = await api.list(Workspace, owned_by=inference_set)
        if not workspaces:
            workspaces = await api.list(Workspace, owned_by=inference_set, consistency="live", unreadable="fail")
        async with request.status() as status:
            children = [evaluate_child(inference_set, workspace, None) for workspace in workspaces]
            _report_deletion(status, children, workspaces)
            for workspace in workspaces:
                if not workspace.deleting:
                    await api.delete(workspace, propagation="Background")
        if workspaces:
            return Again(DELETION_RESYNC_SECONDS, conditions.WAITING_FOR_WORKSPACES)
        if labels.LEGACY_INFERENCESET_FINALIZER in inference_set.metadata.finalizers:
            remaining = [f for f in inference_set.metadata.finalizers if f != labels.LEGACY_INFERENCESET_FINALIZER]
            metadata = {"finalizers": remaining, "resourceVersion": inference_set.metadata.resource_version}
            await api.patch(inference_set, MergePatch({"metadata": metadata}))
        return None


def _without_serving(state: SetState, decision: Decision) -> Decision:
    """Returns the decision without the deletion of Workspaces that serve."""
    serving = {child.name for child in state.children or () if child.has_ready_copy}
    return replace(decision, delete=tuple(name for name in decision.delete if name not in serving))


def _bounds(inference_set: InferenceSet) -> Bounds:
    strategy, replicas = inference_set.spec.update_strategy, inference_set.spec.replicas
    if strategy.type == "OnDelete":
        return Bounds(is_manual=True)
    rolling = strategy.rolling_update
    if rolling is None:
        return Bounds()
    return Bounds(
        max_unavailable=bound(rolling.max_unavailable, replicas), max_surge=bound(rolling.max_surge, replicas)
    )


async def _create(request: Request[InferenceSet], state: SetState, names: Iterable[str]) -> None:
    """Creates Workspaces.

    Raises:
        Exception: the API server rejected one, which is recorded, or the request failed.
    """
    inference_set, created = request.object, list[str]()
    try:
        for name in names:
            await request.api.ensure(child_workspace(inference_set, name), owner=inference_set)
            created.append(name)
    except (ApiError, ValidationError) as error:
        _record_refusal(request, state, f"workspace {inference_set.name}", error)
        raise
    finally:
        if created:
            request.log.info("workspaces created", workspaces=created)
            request.event("Normal", "WorkspacesCreated", f"created {', '.join(created)}")


async def _change(request: Request[InferenceSet], state: SetState, decision: Decision) -> None:
    """Applies the current template to the Workspaces that are due, and restores those that have it already.

    Raises:
        Exception: the API server rejected a change, which is recorded, or the request failed.
    """
    inference_set, changed_names = request.object, list[str]()
    if state.invalid is not None:
        return
    for child in state.live:
        is_due = child.name in decision.update
        if child.name in decision.delete or not (is_due or child.change == "none"):
            continue
        try:
            wanted = child_workspace(inference_set, child.name, upgrade_to=child.pending if is_due else "")
            await request.api.ensure(wanted, owner=inference_set)
        except (ApiError, ValidationError) as error:
            _record_refusal(request, state, f"workspace {child.name}", error)
            raise
        if is_due:
            changed_names.append(child.name)
    if changed_names:
        request.log.info("workspaces changed", workspaces=changed_names)
        request.event("Normal", "WorkspacesUpdated", f"changed {', '.join(changed_names)} in place")


async def _delete(request: Request[InferenceSet], workspaces: Sequence[Workspace]) -> None:
    deleted = [w.name for w in workspaces if await request.api.delete(w, propagation="Background")]
    if deleted:
        request.log.info("workspaces deleted", workspaces=deleted)
        request.event("Normal", "WorkspacesDeleted", f"deleted {', '.join(deleted)}")


def _record_refusal(request: Request[InferenceSet], state: SetState, what: str, error: Exception) -> None:
    if not is_rejection(error):
        return
    message = f"the API server rejects {what}: {format_error(error)}"
    state.refused = conditions.WORKSPACE_REFUSED, message
    last = find_condition(request.object.status.conditions, conditions.INFERENCE_SET_UPDATED)
    if last is None or last.message.find(message) < 0:
        request.event("Warning", conditions.WORKSPACE_REFUSED, message)


def _report(request: Request[InferenceSet], status: StatusScope[InferenceSet], state: SetState, error: str) -> None:
    """Sets the status, and records events for conditions that changed."""
    for update in condition_updates(state, error):
        update = replace(update, message=update.message[:MAX_MESSAGE_CHARACTERS])
        _record_event(request, status.find(update.type), update)
        status.set_condition(update)
        if not update.is_true:
            request.requeue_after(RESYNC_SECONDS, update.reason)
    if state.routed is None and state.children is not None:
        status.remove_condition(conditions.INFERENCE_SET_ROUTED)
    selector = ",".join(f"{key}={value}" for key, value in pod_selector(request.object).items())
    status.set(selector=selector)
    if state.children is not None:
        each = state.budget.per_workspace or 0
        status.set(
            replicas=len(state.live),
            ready_replicas=state.serving,
            updated_replicas=state.updated,
            node_count=sum(child.nodes or each for child in state.children),
        )
        _report_upgrade(request, status, state)


def _report_upgrade(request: Request[InferenceSet], status: StatusScope[InferenceSet], state: SetState) -> None:
    """Sets the progress of automatic upgrades, and requeues the set for its next window."""
    upgrade = request.object.spec.auto_upgrade
    before = request.object.status.auto_upgrade or AutoUpgradeStatus()
    if upgrade is None or not upgrade.enabled:
        if request.object.status.auto_upgrade is not None:
            status.set(auto_upgrade=None)
        return
    is_complete = bool(before.num_drifted_workspaces) and state.drifted == 0
    ended = request.clock.now() if is_complete else before.last_successful_upgrade_time
    if is_complete:
        request.event("Normal", "UpgradeCompleted", "every workspace runs the pods of this release")
    status.set(auto_upgrade=AutoUpgradeStatus(num_drifted_workspaces=state.drifted, last_successful_upgrade_time=ended))
    if state.upgrade_at is not None:
        request.requeue_at(state.upgrade_at, "the maintenance window opens")


def _record_event(request: Request[InferenceSet], before: Condition | None, update: ConditionUpdate) -> None:
    """Records the end and the return of readiness, and limits and refusals when they begin."""
    if update.type != conditions.INFERENCE_SET_READY:
        return
    if update.is_true and before is not None and not before.is_true:
        request.event("Normal", conditions.INFERENCE_SET_READY, update.message)
    elif before is not None and before.is_true and not update.is_true:
        request.event("Warning", conditions.INFERENCE_SET_NOT_READY, update.message)
    elif update.reason in _REPORTED_REASONS and (before is None or before.reason != update.reason):
        request.event("Warning", update.reason, update.message)


_REPORTED_REASONS: Final = frozenset({conditions.NODE_LIMIT_REACHED, conditions.NAME_CONFLICT, conditions.INVALID_SPEC})


def _report_deletion(
    status: StatusScope[InferenceSet], children: Sequence[Child], workspaces: Sequence[Workspace]
) -> None:
    message = "the InferenceSet is being deleted"
    for kind in (conditions.INFERENCE_SET_READY, conditions.INFERENCE_SET_UPDATED):
        status.set_condition(ConditionUpdate.false(kind, conditions.INFERENCE_SET_DELETING, message))
    waiting: list[str] = []
    for workspace in workspaces:
        found = find_condition(workspace.status.conditions, conditions.WORKSPACE_DELETING)
        waiting.append(f"{workspace.name}: {found.message}" if found is not None else workspace.name)
    text = f"waiting for the deletion of {'; '.join(waiting)}" if waiting else "every workspace is deleted"
    update = ConditionUpdate.true(conditions.INFERENCE_SET_DELETING, conditions.WAITING_FOR_WORKSPACES, text)
    status.set_condition(replace(update, message=update.message[:MAX_MESSAGE_CHARACTERS]))
    live = [child for child in children if not child.is_deleting]
    status.set(replicas=len(live), ready_replicas=0)


def _child_state(workspace: Workspace) -> Hashable:
    """Returns what the set depends on in a Workspace."""
    shown = [
        find_condition(workspace.status.conditions, kind)
        for kind in (conditions.INFERENCE_READY, conditions.WORKSPACE_SUCCEEDED, conditions.WORKSPACE_DELETING)
    ]
    return (
        workspace.metadata.generation,
        workspace.deleting,
        frozenset(workspace.labels.items()),
        frozenset(workspace.annotations.items()),
        workspace.status.observed_generation,
        workspace.status.target_node_count,
        workspace.status.pending_template,
        tuple((each.status, each.reason, each.message) if each is not None else None for each in shown),
    )


def _set_of(stateful_set: StatefulSet, view: View) -> ObjectKey | None:
    """Maps a StatefulSet to the InferenceSet of its Workspace."""
    name = stateful_set.labels.get(labels.WORKSPACE, "")
    workspace = view.find(Workspace, name, stateful_set.namespace) if name else None
    owner = inference_set_name(workspace) if workspace is not None else ""
    return ObjectKey(stateful_set.namespace, owner) if owner else None


def inference_set_controller(reconciler: InferenceSetReconciler) -> Controller[InferenceSet]:
    """Returns the controller of InferenceSets with its watches. It is idle while the kind is not installed."""
    controller = (
        Controller(
            InferenceSet,
            reconciler.reconcile,
            name="inference-set",
            workers=WORKERS,
            when=changed("generation", "annotations", "deletionTimestamp"),
            wait_for_kinds=True,
        )
        .owns(Workspace, when=differs(_child_state))
        .owns(Service, when=changed("spec", "labels"))
        .watches(StatefulSet, to=_set_of, when=changed("generation", "status"))
        .receives(FunctionSource(reconciler.loads.run, name="copy-loads"))
        .finalizes(labels.INFERENCESET_FINALIZER, reconciler.finalize)
    )
    if reconciler.settings.inference_gateway:
        for kind in GATEWAY_KINDS:
            controller = controller.owns(kind, when=changed("generation", "labels", "status"), optional=True)
    return controller
