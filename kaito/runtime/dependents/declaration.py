"""`Dependents`: declares the kinds of dependents, applies them in stages, prunes, plans and deletes them."""

import re
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, TypeVar, final

from kaito.runtime.client import Api
from kaito.runtime.dependents.child import AnyChild, Stage, key_in, stages_of
from kaito.runtime.dependents.plan import Action, FieldChange, Plan, PlannedChange, differences
from kaito.runtime.dependents.pruning import DEPENDENTS_LABEL, confirmed, field_managers, is_dependent, undeclared
from kaito.runtime.dependents.result import ChildState, DependentsResult
from kaito.runtime.errors import (
    AlreadyOwned,
    ApiError,
    ConfigurationError,
    Conflict,
    KaitoRuntimeError,
    NotFound,
    NotLeader,
    UndeclaredKind,
    raise_collected,
)
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.ownership import controller_of
from kaito.runtime.reconcile import Request

R = TypeVar("R", bound=Resource)

PRUNE_RETRY_SECONDS: Final = 1.0
"""Delay of the next reconcile if an object changed while it was pruned."""

NOT_SERVED: Final = "its kind is not served"

_Deletion: TypeAlias = Literal["requested", "pending", "not needed"]
"""`pending`: is being deleted, or changed and has to be checked again. `not needed`: does not exist, or is foreign."""

_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Owning(Protocol):
    """A controller, as far as `watched_by` needs it."""

    def owns(self, kind: type[Resource], *, optional: bool = ...) -> Self:
        """Reconciles the owner when a dependent changes."""
        ...


C = TypeVar("C", bound=Owning)


@final
class Dependents:
    """The dependents of a kind.

    Args:
        name: name of the set, unique among the controllers of the owner's kind and never changed: value of a label.
        kinds: every kind of which there may be dependents. Keep a kind that an earlier version of the operator used in
            the list, without declaring children of it: they are pruned.
        optional: further kinds that the server may not serve; children of it are skipped then.
        former_field_managers: field managers under which earlier versions applied dependents; see `Manager`.

    Raises:
        ConfigurationError: a name that is not a label value, no kind, or one kind twice.
    """

    def __init__(
        self,
        name: str,
        *kinds: type[Resource],
        optional: Collection[type[Resource]] = (),
        former_field_managers: Collection[str] = (),
    ) -> None:
        if _LABEL_VALUE.fullmatch(name) is None:
            message = (
                f"dependents {name!r}: the name is the value of a label: at most 63 letters, digits, '-', '_', '.'"
            )
            raise ConfigurationError(message)
        self.name = name
        self.kinds: Sequence[type[Resource]] = (*kinds, *optional)
        self._optional = frozenset(kind.gvk() for kind in optional)
        self._former = tuple(former_field_managers)
        gvks = [kind.gvk() for kind in self.kinds]
        if not gvks or len(set(gvks)) < len(gvks):
            message = f"dependents {name}: give each kind of a dependent once"
            raise ConfigurationError(message)

    def watched_by(self, controller: C) -> C:
        """Lets a controller own the kinds, so that a change of a dependent reconciles its owner; returns it."""
        for kind in self.kinds:
            if kind.gvk() in self._optional:
                controller.owns(kind, optional=True)
            else:
                controller.owns(kind)
        return controller

    # -- applying ----------------------------------------------------------------------------------------------------

    async def apply(self, request: Request[R], *stages: Stage) -> DependentsResult:
        """Applies the children in stages, and deletes dependents that are not among them once every stage was applied.

        A stage waits until all children of the earlier stages are ready; a reconcile follows when one of them changes.
        Waiting children that exist already stay as they are, and nothing is deleted meanwhile. If a child cannot be
        applied, the others of its stage are, and the error is raised.

        Raises:
            ConfigurationError: a child of a kind that is not declared, twice the same child, or an owner without UID.
            AlreadyOwned: an object of that name exists and is not a dependent of this set.
            ApiError: the server rejects a child, or a deletion.
            ExceptionGroup: several of these errors.
        """
        owner, api = request.object, request.api
        ordered = self._checked(owner, stages_of(stages))
        states: list[ChildState] = []
        blocked = False
        for stage in ordered:
            errors: list[Exception] = []
            applied = [
                self._waiting(child, owner) if blocked else await self._collected(api, child, owner, errors)
                for child in stage
            ]
            raise_collected(errors, "dependents")
            states += [state for state in applied if state is not None]
            blocked = blocked or any(state is not None and state.phase == "not ready" for state in applied)
        last_applied = all(state.phase != "waiting" for state in states)
        pruned = await self._prune(request, ordered) if last_applied else []
        return DependentsResult(states, pruned)

    async def _collected(
        self, api: Api, child: AnyChild, owner: Resource, errors: list[Exception]
    ) -> ChildState | None:
        try:
            return await self._apply(api, child, owner)
        except (NotLeader, UndeclaredKind):
            raise
        except KaitoRuntimeError as error:
            errors.append(error)
            return None

    async def _apply(self, api: Api, child: AnyChild, owner: Resource) -> ChildState:
        kind, key = type(child.object), key_in(child.object, owner)
        try:
            present = await api.find(kind, key.name, key.namespace)
        except UndeclaredKind:
            if kind.gvk() not in self._optional:
                raise
            return ChildState(kind.kind, key, "skipped", NOT_SERVED)
        if present is not None:
            self._check_ownership(present, owner, adopt=child.adopt)
            if present.deleting:
                return ChildState(kind.kind, key, "not ready", "it is being deleted", present)
        current = await api.ensure(self._labeled(child.object), owner=owner, adopt=child.adopt)
        ready = child.ready(current)
        if ready is True:
            return ChildState(kind.kind, key, "ready", "", current)
        return ChildState(kind.kind, key, "not ready", ready if isinstance(ready, str) else "", current)

    def _waiting(self, child: AnyChild, owner: Resource) -> ChildState:
        return ChildState(type(child.object).kind, key_in(child.object, owner), "waiting")

    def _labeled(self, obj: R) -> R:
        return obj.with_metadata(labels={**obj.labels, DEPENDENTS_LABEL: self.name})

    def _check_ownership(self, present: Resource, owner: Resource, *, adopt: bool) -> None:
        """Raises AlreadyOwned for an object that is not, or not yet, a dependent of this set."""
        controller = controller_of(present.metadata)
        what = f"{present.kind} {present.key}"
        if controller is None:
            if adopt:
                return
            message = f"{what} exists without a controller: delete it, rename the child, or declare it with adopt=True"
            raise AlreadyOwned(message)
        other = present.labels.get(DEPENDENTS_LABEL, self.name)
        if controller.uid == owner.uid and other != self.name:
            message = f"{what} is a dependent of the set {other!r}: two sets of one owner declare it"
            raise AlreadyOwned(message)

    def _checked(self, owner: Resource, stages: list[list[AnyChild]]) -> list[list[AnyChild]]:
        if not owner.uid:
            message = f"dependents {self.name}: {owner.kind} {owner.key} has no uid"
            raise ConfigurationError(message)
        declared = {kind.gvk() for kind in self.kinds}
        seen: set[tuple[object, ObjectKey]] = set()
        for child in (child for stage in stages for child in stage):
            obj = child.object
            key = key_in(obj, owner)
            if obj.gvk() not in declared:
                message = f"dependents {self.name}: {obj.kind} {key}: add {obj.kind} to its kinds"
                raise ConfigurationError(message)
            if not obj.name:
                message = f"dependents {self.name}: a {obj.kind} has no name; generated names cannot be applied"
                raise ConfigurationError(message)
            if (obj.gvk(), key) in seen:
                message = f"dependents {self.name}: {obj.kind} {key} is declared twice"
                raise ConfigurationError(message)
            seen.add((obj.gvk(), key))
        return stages

    # -- pruning -----------------------------------------------------------------------------------------------------

    async def _prune(self, request: Request[Any], stages: list[list[AnyChild]]) -> list[tuple[str, ObjectKey]]:
        pruned: list[tuple[str, ObjectKey]] = []
        errors: list[Exception] = []
        for candidate in await self._undeclared(request, stages):
            try:
                if await self._delete(request, candidate) == "requested":
                    pruned.append((candidate.kind, candidate.key))
            except NotLeader:
                raise
            except KaitoRuntimeError as error:
                errors.append(error)
        raise_collected(errors, "dependents")
        return pruned

    async def _undeclared(self, request: Request[Any], stages: list[list[AnyChild]]) -> list[Resource]:
        owner = request.object
        declared: dict[object, set[ObjectKey]] = {}
        for child in (child for stage in stages for child in stage):
            declared.setdefault(child.object.gvk(), set()).add(key_in(child.object, owner))
        found: list[Resource] = []
        for kind in reversed(self.kinds):
            try:
                found += await undeclared(request.api, kind, owner, self.name, declared.get(kind.gvk(), set()))
            except UndeclaredKind:
                if kind.gvk() not in self._optional:
                    raise
        return found

    async def _delete(self, request: Request[Any], candidate: Resource) -> _Deletion:
        """Deletes a dependent unless it turns out not to be one."""
        api, owner = request.api, request.object
        managers = field_managers(api, self._former)
        try:
            live = await confirmed(api, candidate, owner, self.name, managers)
            if live is None:
                return "not needed"
            if live.deleting:
                return "pending"
            requested = await api.delete(live, if_unchanged=True, propagation="Background")
            return "requested" if requested else "not needed"
        except NotFound:  # the kind is not served any more
            return "not needed"
        except Conflict:
            request.requeue_after(PRUNE_RETRY_SECONDS, f"{candidate.kind} {candidate.key} changed while it was pruned")
            return "pending"

    async def delete(self, request: Request[R]) -> Sequence[ObjectKey]:
        """Deletes all dependents, kind by kind in the reverse order of the kinds, for a clean-up that needs an order.

        A kind is deleted when no dependent of the kinds after it is left. Without a finalizer the garbage collector
        deletes all of them, in no order. Foreign objects are left out, as in `apply`.

        Returns:
            The dependents that still exist; when it is empty, the clean-up is complete.
        """
        owner, api = request.object, request.api
        for kind in reversed(self.kinds):
            try:
                found = await api.list(kind, namespace=owner.namespace if kind.namespaced else "", owned_by=owner)
            except UndeclaredKind:
                if kind.gvk() not in self._optional:
                    raise
                continue
            left = [
                obj.key
                for obj in found
                if is_dependent(obj, owner, self.name)
                and (obj.deleting or await self._delete(request, obj) != "not needed")
            ]
            if left:
                return left
        return ()

    # -- planning ----------------------------------------------------------------------------------------------------

    async def plan(self, request: Request[R], *stages: Stage) -> Plan:
        """Returns what `apply` would change if every stage were ready. Nothing is stored: the server runs it dry.

        Raises:
            ConfigurationError: as `apply`.
        """
        ordered = self._checked(request.object, stages_of(stages))
        changes = [
            await self._planned(request, child, number) for number, stage in enumerate(ordered, 1) for child in stage
        ]
        managers = field_managers(request.api, self._former)
        for candidate in await self._undeclared(request, ordered):
            live = await confirmed(request.api, candidate, request.object, self.name, managers)
            if live is not None and not live.deleting:
                changes.append(PlannedChange("delete", live.kind, live.key))
        return Plan(changes)

    async def _planned(self, request: Request[Any], child: AnyChild, stage: int) -> PlannedChange:
        owner, obj = request.object, child.object
        key = key_in(obj, owner)

        def change(action: Action, fields: Sequence[FieldChange] = (), message: str = "") -> PlannedChange:
            return PlannedChange(action, obj.kind, key, fields, message, stage)

        try:
            before = await request.api.client.find(type(obj), key.name, key.namespace)
            if before is not None:
                self._check_ownership(before, owner, adopt=child.adopt)
            after = await request.api.dry_run().ensure(self._labeled(obj), owner=owner, adopt=child.adopt)
        except UndeclaredKind:
            return change("skip", message=NOT_SERVED)
        except NotFound as error:
            if not error.is_object and obj.gvk() in self._optional:
                return change("skip", message=NOT_SERVED)
            return change("refuse", message=error.message)
        except (AlreadyOwned, ApiError) as error:
            return change("refuse", message=str(error))
        if before is None:
            return change("create")
        if before.deleting:
            return change("create", message="once the present one is deleted")
        fields = differences(before, after)
        return change("update", fields) if fields else change("none")

    def __repr__(self) -> str:
        return f"Dependents({self.name}: {', '.join(kind.kind for kind in self.kinds)})"
