"""Delete: preconditions, finalizers, grace and propagation.

An object with finalizers, or a pod on a node with a grace period, is only marked; `finished` returns whether a marked
object may be removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from kaito.apiserver import errors
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.server_state import Context, ServerState, timestamp
from kaito.apiserver.registry.store import Stored
from kaito.apiserver.wire import HttpRequest, Json, Object, copy_json, is_object, part

DEFAULT_POD_GRACE_SECONDS = 30
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
"""Finalizer of a deleted definition whose objects still exist."""
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"


@dataclass(slots=True)
class DeleteOptions:
    """`metav1.DeleteOptions` of a request, from its body and query."""

    grace: int | None = None
    uid: str = ""
    rv: str = ""
    propagation: str = ""
    dry_run: bool = False


def delete_options(request: HttpRequest) -> DeleteOptions:
    """Reads the options of a delete request."""
    from kaito.apiserver.bodies.decode import decode_body

    body: Json = decode_body(request) if request.body.strip() else None
    given: Object = body if is_object(body) else {}
    preconditions: Object = given.get("preconditions") or {}
    propagation = str(given.get("propagationPolicy") or request.param("propagationPolicy"))
    if propagation not in {"", "Background", "Foreground", "Orphan"}:
        bad = errors.unsupported("propagationPolicy", propagation, ["Foreground", "Background", "Orphan", "nil"])
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", [bad])
    orphan = given.get("orphanDependents")
    if not propagation and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    grace_text = request.param("gracePeriodSeconds")
    grace = given.get("gracePeriodSeconds", int(grace_text) if grace_text.lstrip("-").isdigit() else None)
    return DeleteOptions(
        grace=grace,
        uid=str(preconditions.get("uid") or ""),
        rv=str(preconditions.get("resourceVersion") or ""),
        propagation=propagation,
        dry_run=bool(given.get("dryRun") or request.param("dryRun")),
    )


def check_preconditions(resource: Resource, stored: Stored, options: DeleteOptions) -> None:
    """Raises 409 unless the preconditions of a delete match the object."""
    name = stored.key[1]
    if options.uid and options.uid != stored.uid:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({stored.uid}). "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict(resource.group, resource.kind, name, why)
    current = str(stored.metadata["resourceVersion"])
    if options.rv and options.rv != current:
        why = (
            f"the ResourceVersion in the precondition ({options.rv}) does not match the ResourceVersion in record "
            f"({current}). The object might have been modified"
        )
        raise errors.conflict(resource.group, resource.kind, name, why)


def finished(resource: Resource, data: Object, old: Stored) -> bool:
    """Returns whether an update of a marked object removes what kept it: its last finalizer, with no grace left."""
    metadata = data["metadata"]
    if not old.metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if resource.storage == "namespaces" and part(data, "spec").get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")


def _grace(resource: Resource, stored: Stored, options: DeleteOptions) -> int:
    """Returns the grace period of an object in seconds; only pods that run on a node have one."""
    if resource.storage != "pods" or not part(stored.data, "spec").get("nodeName"):
        return 0
    if part(stored.data, "status").get("phase") in {"Failed", "Succeeded"}:
        return 0
    if options.grace is not None:
        return max(options.grace, 1) if options.grace < 0 else options.grace
    given = stored.data["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_POD_GRACE_SECONDS if given is None else int(given)


def _finalizers(stored: Stored, options: DeleteOptions) -> list[str]:
    """Returns the finalizers after the propagation policy has added or removed its own."""
    names = [str(name) for name in stored.metadata.get("finalizers") or ()]
    if options.propagation:
        names = [name for name in names if name not in {ORPHAN, FOREGROUND}]
    if options.propagation == "Orphan":
        names.append(ORPHAN)
    if options.propagation == "Foreground":
        names.append(FOREGROUND)
    return names


def delete(state: ServerState, resource: Resource, stored: Stored, options: DeleteOptions) -> tuple[Stored, bool]:
    """Deletes or marks an object; returns its state and whether it was removed."""
    check_preconditions(resource, stored, options)
    finalizers = _finalizers(stored, options)
    grace = _grace(resource, stored, options)
    waits = (
        resource.storage == DEFINITIONS
        or bool(finalizers)
        or grace > 0
        or (resource.storage == "namespaces" and _holds(stored))
    )
    if not waits:
        if options.dry_run:
            return stored, True
        final = stored.data
        if "deletionGracePeriodSeconds" in stored.metadata:
            final = {**final, "metadata": {**stored.metadata, "deletionGracePeriodSeconds": 0}}
        return state.store.remove(resource.storage, stored, final), True
    marked = _mark(state, resource, stored, finalizers, grace)
    if marked == stored.data or options.dry_run:
        return stored, False
    return state.store.replace(resource.storage, stored, marked), False


def _holds(stored: Stored) -> bool:
    return bool(part(stored.data, "spec").get("finalizers"))


def _mark(state: ServerState, resource: Resource, stored: Stored, finalizers: list[str], grace: int) -> Object:
    data: Object = copy_json(stored.data)
    metadata: Object = data["metadata"]
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    earlier = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" not in metadata or (earlier is not None and grace < earlier):
        metadata["deletionTimestamp"] = timestamp(state.now() + timedelta(seconds=grace))
        if resource.storage == DEFINITIONS:
            metadata["finalizers"] = list(dict.fromkeys([*finalizers, CRD_FINALIZER]))
            _terminate_definition(data, state.timestamp())
            return data
        metadata["deletionGracePeriodSeconds"] = grace
        if "generation" in metadata and "deletionTimestamp" not in stored.metadata:
            metadata["generation"] += 1
        if resource.storage == "namespaces":
            data.setdefault("status", {})["phase"] = "Terminating"
    return data


def _terminate_definition(data: Object, now: str) -> None:
    conditions: list[Object] = data.setdefault("status", {}).setdefault("conditions", [])
    conditions.append(
        {
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        }
    )


def delete_one(
    state: ServerState, target: Target, request: HttpRequest, context: Context, stored: Stored
) -> tuple[Stored, bool]:
    """Serves a delete request."""
    options = delete_options(request)
    options.dry_run = options.dry_run or context.dry_run
    return delete(state, target.resource, stored, options)
