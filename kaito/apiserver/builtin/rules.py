"""Rules of built-in types at creation and update: allocated values, required fields, immutable fields.

Only rules that matter to operators and their manifests, with the messages of `kubernetes/pkg/apis/*/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from kaito.apiserver import errors
from kaito.apiserver.apiextensions.definitions import STORAGE as DEFINITIONS
from kaito.apiserver.apiextensions.validation import definition_errors, definition_spec_errors, definition_update_errors
from kaito.apiserver.builtin.pod_defaults import admit_new_pod
from kaito.apiserver.builtin.services import allocate, keep_allocated, service_change_errors, service_errors
from kaito.apiserver.errors import FieldError, forbidden_field, invalid_value, required
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.selectors import selector_matches
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.wire import Json, Object, copy_json, lookup, part

NOT_READY = "node.kubernetes.io/not-ready"
"""Taint of a new node (admission plugin TaintNodesByCondition); the node lifecycle controller takes it off."""
IMMUTABLE = "field is immutable"
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_CONFIG_KEY_MESSAGE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)

Check: TypeAlias = Callable[[Object], list[FieldError]]
UpdateCheck: TypeAlias = Callable[[Object, Object], list[FieldError]]


def complete_new(state: ServerState, resource: Resource, data: Object) -> None:
    """Sets the values that the server allocates for a new object of a built-in type, in place."""
    if not resource.custom:
        _complete(state, resource.storage, data)


def create_problems(resource: Resource, data: Object) -> list[FieldError]:
    """Validates a new object of a built-in type."""
    check = None if resource.custom else _CHECKS.get(resource.storage)
    return [] if check is None else check(data)


def complete_update(state: ServerState, resource: Resource, data: Object, old: Object, subresource: str) -> None:
    """Carries over the allocated values that an update of a built-in type leaves out, in place."""
    if resource.custom or subresource:
        return
    if resource.storage == "namespaces":
        data["spec"], data["status"] = copy_json(old.get("spec", {})), copy_json(old.get("status", {}))
    if resource.storage == DEFINITIONS:
        _remember_storage_version(data)
    if resource.storage == "services":
        keep_allocated(data["spec"], old["spec"])
        allocate(state, data["spec"])


def _remember_storage_version(data: Object) -> None:
    """Adds the storage version of a definition to those that objects may be stored in."""
    current = next((str(item["name"]) for item in data["spec"].get("versions") or () if item.get("storage")), "")
    stored: list[str] = data.setdefault("status", {}).setdefault("storedVersions", [])
    if current and current not in stored:
        stored.append(current)


def update_problems(resource: Resource, data: Object, old: Object, subresource: str) -> list[FieldError]:
    """Validates an updated object of a built-in type, including immutable fields."""
    if resource.custom or subresource:
        return []
    found: list[FieldError] = []
    if resource.storage == DEFINITIONS:
        found = definition_spec_errors(data)
    elif resource.storage in _CHECKS and resource.storage != "pods":
        found = _CHECKS[resource.storage](data)
    update_check = _UPDATE_CHECKS.get(resource.storage)
    return found if update_check is None else found + update_check(data, old)


def _complete(state: ServerState, storage: str, data: Object) -> None:
    match storage:
        case "namespaces":
            data.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            data["status"] = {"phase": "Active"}
            name = data["metadata"]["name"]
            data["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
        case "pods":
            admit_new_pod(data)
        case "nodes":
            taints: list[Object] = data.setdefault("spec", {}).setdefault("taints", [])
            if not any(item.get("key") == NOT_READY for item in taints):
                taints.append({"key": NOT_READY, "effect": "NoSchedule"})
        case "persistentvolumeclaims" | "persistentvolumes":
            short = "pvc" if storage.endswith("claims") else "pv"
            finalizers: list[str] = data["metadata"].setdefault("finalizers", [])
            if f"kubernetes.io/{short}-protection" not in finalizers:
                finalizers.append(f"kubernetes.io/{short}-protection")
            data["status"] = {"phase": "Pending"}
            if short == "pv":
                data["status"]["lastPhaseTransitionTime"] = state.timestamp()
        case "services":
            allocate(state, data["spec"])
        case "jobs.batch":
            _select_job_pods(data)
        case _ if storage in _WITH_STATUS:
            data["status"] = _WITH_STATUS[storage]
        case "customresourcedefinitions.apiextensions.k8s.io":
            versions: list[Object] = data["spec"].get("versions") or []
            stored_versions = [version["name"] for version in versions if version.get("storage")]
            names: Object = {"kind": "", "plural": ""}
            data["status"] = {"acceptedNames": names, "conditions": None, "storedVersions": stored_versions}
        case _:
            pass


_WITH_STATUS: dict[str, Object] = {
    "deployments.apps": {},
    "statefulsets.apps": {"replicas": 0, "availableReplicas": 0},
    "replicasets.apps": {"replicas": 0},
    "daemonsets.apps": {
        "currentNumberScheduled": 0,
        "desiredNumberScheduled": 0,
        "numberMisscheduled": 0,
        "numberReady": 0,
    },
    "cronjobs.batch": {},
}
"""Initial status of new objects; a sent status is ignored."""


def _select_job_pods(data: Object) -> None:
    """Labels a Job's pods by its uid and selects them by that."""
    data["status"] = {}
    spec: Object = data["spec"]
    if spec.get("manualSelector"):
        return
    uid, name = data["metadata"]["uid"], data["metadata"]["name"]
    labels: Object = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels.update(
        {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
            "controller-uid": uid,
            "job-name": name,
        }
    )
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    if not data["metadata"].get("labels"):
        data["metadata"]["labels"] = dict(labels)


def _pod_spec_errors(
    spec: Object, path: str, policies: tuple[str, ...] = ("Always", "OnFailure", "Never")
) -> list[FieldError]:
    found: list[FieldError] = []
    containers: list[Object] = spec.get("containers") or []
    if not containers:
        found.append(required(f"{path}.containers"))
    seen: set[str] = set()
    volumes = {item.get("name") for item in spec.get("volumes") or ()}
    for index, container in enumerate(containers):
        here = f"{path}.containers[{index}]"
        name = str(container.get("name") or "")
        if not name:
            found.append(required(f"{here}.name"))
        repeated = bool(name) and name in seen
        seen.add(name)
        if not container.get("image"):
            found.append(required(f"{here}.image"))
        for position, mount in enumerate(container.get("volumeMounts") or ()):
            if mount.get("name") not in volumes and not _claimed(spec, mount):
                where = f"{here}.volumeMounts[{position}].name"
                found.append(FieldError("FieldValueNotFound", where, mount.get("name")))
        if repeated:
            found.append(errors.duplicate(f"{here}.name", name))
    policy = spec.get("restartPolicy")
    if policy not in policies:
        found.append(errors.unsupported(f"{path}.restartPolicy", policy, policies))
    return found


def _claimed(spec: Object, mount: Object) -> bool:
    return mount.get("name") in spec.get("-claims", ())


def _pod(data: Object) -> list[FieldError]:
    return _pod_spec_errors(data["spec"], "spec")


def _workload(data: Object) -> list[FieldError]:
    spec: Object = data["spec"]
    found: list[FieldError] = []
    selector: Json = spec.get("selector")
    if selector is None:
        found.append(required("spec.selector"))
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        kind = str(data["kind"]).lower()
        found.append(invalid_value("spec.selector", selector, f"empty selector is invalid for {kind}"))
    labels: Object = lookup(spec, ("template", "metadata", "labels")) or {}
    if selector is None or not selector_matches(selector, labels):
        why = "`selector` does not match template `labels`"
        found.append(invalid_value("spec.template.metadata.labels", labels, why))
    claims = [lookup(item, ("metadata", "name")) for item in spec.get("volumeClaimTemplates") or ()]
    template: Object = {**part(spec, "template", "spec"), "-claims": claims}
    found += _pod_spec_errors(template, "spec.template.spec", ("Always",))
    replicas = spec.get("replicas")
    if isinstance(replicas, int) and replicas < 0:
        found.append(invalid_value("spec.replicas", replicas, "must be greater than or equal to 0"))
    return found


def _job(data: Object) -> list[FieldError]:
    spec: Object = lookup(data, ("spec", "template", "spec")) or {}
    found = _pod_spec_errors(spec, "spec.template.spec")
    policy = spec.get("restartPolicy")
    if policy == "Always":
        found.append(required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    return found


def _binding(data: Object) -> list[FieldError]:
    return [] if lookup(data, ("roleRef", "name")) else [required("roleRef.name")]


def _keys(data: Object) -> list[FieldError]:
    return [
        invalid_value(f"{field}[{key}]", key, _CONFIG_KEY_MESSAGE)
        for field in ("data", "binaryData")
        for key in data.get(field) or ()
        if not _CONFIG_KEY.fullmatch(key)
    ]


_CHECKS: dict[str, Check] = {
    "configmaps": _keys,
    "secrets": _keys,
    "pods": _pod,
    "deployments.apps": _workload,
    "statefulsets.apps": _workload,
    "replicasets.apps": _workload,
    "daemonsets.apps": _workload,
    "jobs.batch": _job,
    "services": service_errors,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    DEFINITIONS: definition_errors,
}


def _selector_change(data: Object, old: Object) -> list[FieldError]:
    selector = lookup(data, ("spec", "selector"))
    if selector != lookup(old, ("spec", "selector")):
        return [invalid_value("spec.selector", selector, IMMUTABLE)]
    return []


_STATEFUL_CHANGEABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _stateful_set_change(data: Object, old: Object) -> list[FieldError]:
    def fixed(spec: Object) -> Object:
        return {name: value for name, value in spec.items() if name not in _STATEFUL_CHANGEABLE}

    if fixed(data["spec"]) == fixed(old["spec"]):
        return []
    named = ", ".join(f"'{name}'" for name in _STATEFUL_CHANGEABLE[:-1])
    why = f"updates to statefulset spec for fields other than {named} and 'minReadySeconds' are forbidden"
    return [forbidden_field("spec", why)]


def _job_change(data: Object, old: Object) -> list[FieldError]:
    found = _selector_change(data, old)
    suspended = bool(lookup(old, ("spec", "suspend"))) and not lookup(old, ("status", "startTime"))
    if lookup(data, ("spec", "template")) != lookup(old, ("spec", "template")) and not suspended:
        found.append(invalid_value("spec.template", lookup(data, ("spec", "template")), IMMUTABLE))
    for name in ("completions", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"):
        if data["spec"].get(name) != old["spec"].get(name):
            found.append(invalid_value(f"spec.{name}", data["spec"].get(name), IMMUTABLE))
    return found


_POD_CHANGEABLE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates")


def _pod_change(data: Object, old: Object) -> list[FieldError]:
    def immutable_part(spec: Object) -> Object:
        result: Object = copy_json({name: value for name, value in spec.items() if name not in _POD_CHANGEABLE})
        for field in ("containers", "initContainers"):
            for container in result.get(field) or ():
                container.pop("image", None)
        return result

    if immutable_part(data["spec"]) == immutable_part(old["spec"]):
        return []
    why = (
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
        "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    )
    return [forbidden_field("spec", why)]


def _frozen(data: Object, old: Object) -> list[FieldError]:
    """Returns the errors of changing an immutable ConfigMap or Secret, or a Secret's type."""
    found: list[FieldError] = []
    if data.get("type") != old.get("type"):
        found.append(invalid_value("type", data.get("type"), IMMUTABLE))
    if old.get("immutable"):
        if not data.get("immutable"):
            found.append(forbidden_field("immutable", f"{IMMUTABLE} when `immutable` is set"))
        changed = [name for name in ("data", "binaryData") if data.get(name) != old.get(name)]
        found += [forbidden_field(name, f"{IMMUTABLE} when `immutable` is set") for name in changed]
    return found


def _claim_change(data: Object, old: Object) -> list[FieldError]:
    def fixed(spec: Object) -> Object:
        return {name: value for name, value in spec.items() if name not in {"resources", "volumeName"}}

    if fixed(data["spec"]) == fixed(old["spec"]):
        return []
    why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
    return [forbidden_field("spec", why)]


def _binding_change(data: Object, old: Object) -> list[FieldError]:
    if data.get("roleRef") != old.get("roleRef"):
        return [invalid_value("roleRef", data.get("roleRef"), "cannot change roleRef")]
    return []


def _storage_class_change(data: Object, old: Object) -> list[FieldError]:
    found: list[FieldError] = []
    if data.get("parameters") != old.get("parameters"):
        found.append(forbidden_field("parameters", "updates to parameters are forbidden."))
    if data.get("provisioner") != old.get("provisioner"):
        found.append(forbidden_field("provisioner", "updates to provisioner are forbidden."))
    if data.get("reclaimPolicy") != old.get("reclaimPolicy"):
        found.append(forbidden_field("reclaimPolicy", "updates to reclaimPolicy are forbidden."))
    return found


_UPDATE_CHECKS: dict[str, UpdateCheck] = {
    "deployments.apps": _selector_change,
    "replicasets.apps": _selector_change,
    "daemonsets.apps": _selector_change,
    "statefulsets.apps": _stateful_set_change,
    "jobs.batch": _job_change,
    "services": service_change_errors,
    "pods": _pod_change,
    "configmaps": _frozen,
    "secrets": _frozen,
    "persistentvolumeclaims": _claim_change,
    "rolebindings.rbac.authorization.k8s.io": _binding_change,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding_change,
    "storageclasses.storage.k8s.io": _storage_class_change,
    DEFINITIONS: definition_update_errors,
}
