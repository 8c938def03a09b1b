"""Sets what the server controls in every written object: metadata, generation, the split between spec and status.

The rules of `apiserver/pkg/registry/rest` (BeforeCreate, BeforeUpdate) and of the custom resource strategies. Functions
take private copies and change them in place.
"""

from __future__ import annotations

from kaito.apiserver import errors
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.registry.store import Stored
from kaito.apiserver.wire import Json, Object, copy_json
from kaito.apiserver.writes.names import metadata_errors, valid_generate_name

_SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
MAX_GENERATED_LENGTH = 63 - 5
"""Longest prefix of a generated name that is kept (`names.maxGeneratedNameLength`)."""


def prepare_create(state: ServerState, resource: Resource, data: Object) -> None:
    """Sets the server's metadata of a new object; raises 400 or 422 when its name is missing or invalid."""
    metadata: Object = data["metadata"]
    for name in (*_SYSTEM_FIELDS, "resourceVersion"):
        metadata.pop(name, None)
    if not metadata.get("name") and metadata.get("generateName"):
        prefix = str(metadata["generateName"])
        if not valid_generate_name(prefix):
            pass  # the finished name is validated below and carries the message
        metadata["name"] = prefix[:MAX_GENERATED_LENGTH] + state.name_suffix()
    metadata["uid"] = state.new_uid()
    metadata["creationTimestamp"] = state.timestamp()
    metadata.pop("generation", None)
    if resource.custom or resource.has_generation:
        metadata["generation"] = 1
    if resource.has_status() and resource.custom:
        data.pop("status", None)
    _order(data)


def _order(data: Object) -> None:
    """Puts apiVersion, kind and metadata first."""
    rest = {key: data[key] for key in data if key not in {"apiVersion", "kind", "metadata"}}
    head = {"apiVersion": data["apiVersion"], "kind": data["kind"], "metadata": data["metadata"]}
    data.clear()
    data.update(head)
    data.update(rest)


def prepare_update(resource: Resource, data: Object, old: Stored, subresource: str) -> None:
    """Carries over the fields that an update may not change, and increment the generation."""
    previous = old.data
    if subresource == "status":
        _status_only(resource, data, previous)
    elif resource.has_status() and subresource not in {"binding", "finalize"}:
        data.pop("status", None)
        if "status" in previous:
            data["status"] = copy_json(previous["status"])
    metadata, before = data["metadata"], old.metadata
    for name in _SYSTEM_FIELDS:
        metadata.pop(name, None)
        if name in before:
            metadata[name] = before[name]
    metadata["name"] = before["name"]
    if "namespace" in before:
        metadata["namespace"] = before["namespace"]
    metadata.pop("generation", None)
    if "generation" in before:
        changed = subresource != "binding" and spec_changed(resource, previous, data)
        metadata["generation"] = before["generation"] + 1 if changed else before["generation"]
    _order(data)


def _status_only(resource: Resource, data: Object, previous: Object) -> None:
    status: Json = data.get("status")
    sent: Object = data["metadata"]
    keep = copy_json(previous)
    metadata: Object = keep["metadata"]
    managed = sent.get("managedFields", metadata.get("managedFields"))
    if managed is not None:
        metadata["managedFields"] = managed
    if not resource.custom:
        for name in ("labels", "annotations", "finalizers"):
            metadata.pop(name, None)
            if sent.get(name):
                metadata[name] = sent[name]
    metadata["resourceVersion"] = sent.get("resourceVersion", metadata.get("resourceVersion"))
    data.clear()
    data.update(keep)
    data.pop("status", None)
    if status is not None:
        data["status"] = status


def spec_changed(resource: Resource, old: Object, new: Object) -> bool:
    """Returns whether a write increments the generation.

    For built-in types a change of the spec does; for custom resources every change except of metadata and, with a
    status subresource, of status.
    """
    if not resource.custom:
        outside = {"apiVersion", "kind", "metadata", "status"}
    else:
        outside = {"apiVersion", "kind", "metadata"} | ({"status"} if resource.has_status() else set[str]())
    names = (old.keys() | new.keys()) - outside
    return any(old.get(name) != new.get(name) for name in names)


def create_errors(resource: Resource, data: Object) -> list[errors.FieldError]:
    """Validates the metadata of a new object."""
    return metadata_errors(resource, data["metadata"])


def update_errors(resource: Resource, data: Object, old: Stored) -> list[errors.FieldError]:
    """Validates the metadata of an updated object, including immutable fields."""
    found = metadata_errors(resource, data["metadata"])
    metadata, before = data["metadata"], old.metadata
    if before.get("deletionTimestamp"):
        added = sorted(set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ()))
        if added:
            shown = "[]string{" + ", ".join(errors.quote(name) for name in added) + "}"
            message = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
            found.append(errors.forbidden_field("metadata.finalizers", message))
    return found


def check_unchanged_identity(resource: Resource, data: Object, old: Stored, *, patching: bool) -> None:
    """Raises 409 when the uid or resource version of an update is not the stored one (422 for a patched uid)."""
    metadata = data["metadata"]
    name = old.key[1]
    uid = metadata.get("uid")
    if uid and uid != old.uid:
        if patching:
            error = errors.invalid_value("metadata.uid", uid, "field is immutable")
            raise errors.invalid(resource.group, resource.kind, name, [error])
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
        raise errors.conflict(resource.group, resource.plural, name, why)
    rv = metadata.get("resourceVersion")
    if rv and str(rv) != str(old.metadata["resourceVersion"]):
        raise errors.conflict(resource.group, resource.plural, name)


CREATED_BY_UPDATE = frozenset(
    {
        "leases.coordination.k8s.io",
        "events",
        "endpoints",
        "limitranges",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
    }
)
"""Built-in types whose strategy has `AllowCreateOnUpdate() == true`."""
_CONDITIONAL = frozenset(
    {
        "customresourcedefinitions.apiextensions.k8s.io",
        "leases.coordination.k8s.io",
        "poddisruptionbudgets.policy",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "endpointslices.discovery.k8s.io",
        "storageclasses.storage.k8s.io",
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io",
    }
)
"""Built-in types whose strategy has `AllowUnconditionalUpdate() == false`."""


def needs_resource_version(resource: Resource) -> bool:
    """Returns whether an update must carry a resource version."""
    return resource.custom or resource.storage in _CONDITIONAL
