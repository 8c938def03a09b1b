"""Columns of the built-in types, as `kubectl get` shows them (`kubernetes/pkg/printers/internalversion/printers.go`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from kaito.apiserver.kinds import Column
from kaito.apiserver.pod_printer import pod_cells
from kaito.apiserver.table import AGE_TEXT, NAME, age, human_duration, parse_time
from kaito.apiserver.wire import Json, Object, lookup

Cells: TypeAlias = Callable[[Object, datetime], list[Json]]


@dataclass(frozen=True, slots=True)
class Printer:
    """Columns of one type and the function that fills them."""

    columns: tuple[Column, ...]
    cells: Cells


def _columns(*names: str) -> tuple[Column, ...]:
    """Return columns from short notations: `Name`, `Data#` for integers, `Node+` for those of `-o wide`."""
    found: list[Column] = []
    for name in names:
        if name == "Name":
            found.append(NAME)
        elif name == "Age":
            found.append(AGE_TEXT)
        else:
            kind = "integer" if "#" in name else "string"
            found.append(Column(name.rstrip("+#"), kind, "", priority=int("+" in name)))
    return tuple(found)


def _name(data: Object) -> str:
    return str(data["metadata"]["name"])


def _age(data: Object, now: datetime) -> str:
    return age(data["metadata"].get("creationTimestamp"), now)


def _number(data: Object, *path: str) -> int:
    return int(lookup(data, path) or 0)


def _text(data: Object, *path: str, default: str = "") -> str:
    value = lookup(data, path)
    return default if value is None or value == "" else str(value)


def _containers(data: Object, *path: str) -> tuple[str, str]:
    items: list[Object] = lookup(data, (*path, "containers")) or []
    return ",".join(str(item.get("name")) for item in items), ",".join(str(item.get("image", "")) for item in items)


def format_labels(labels: Json) -> str:
    """Return labels as `a=b,c=d`, `<none>` for none."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) if labels else "<none>"


def format_selector(selector: Json) -> str:
    """Return a label selector in its textual form."""
    if not selector:
        return "<none>"
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or ():
        values = ",".join(item.get("values") or ())
        forms = {
            "In": f"{item['key']} in ({values})",
            "NotIn": f"{item['key']} notin ({values})",
            "Exists": str(item["key"]),
            "DoesNotExist": f"!{item['key']}",
        }
        parts.append(forms.get(str(item.get("operator")), ""))
    return ",".join(sorted(parts)) or "<none>"


def _conditions(data: Object) -> dict[str, str]:
    listed: list[Object] = lookup(data, ("status", "conditions")) or []
    return {str(item.get("type")): str(item.get("status")) for item in listed}


def _node(data: Object, now: datetime) -> list[Json]:
    ready = _conditions(data).get("Ready")
    status = "Unknown" if ready is None else ("Ready" if ready == "True" else "NotReady")
    if lookup(data, ("spec", "unschedulable")):
        status += ",SchedulingDisabled"
    labels: Object = data["metadata"].get("labels") or {}
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in labels if key.startswith(prefix)} | {
        labels.get("kubernetes.io/role", "")
    }
    addresses: list[Object] = lookup(data, ("status", "addresses")) or []
    by_type = {item.get("type"): item.get("address") for item in reversed(addresses)}
    info = ("status", "nodeInfo")
    return [
        _name(data),
        status,
        ",".join(sorted(roles - {""})) or "<none>",
        _age(data, now),
        _text(data, *info, "kubeletVersion"),
        by_type.get("InternalIP", "<none>"),
        by_type.get("ExternalIP", "<none>"),
        _text(data, *info, "osImage", default="<unknown>"),
        _text(data, *info, "kernelVersion", default="<unknown>"),
        _text(data, *info, "containerRuntimeVersion", default="<unknown>"),
    ]


def _service(data: Object, now: datetime) -> list[Json]:
    spec: Object = data.get("spec") or {}
    kind = str(spec.get("type", ""))
    outside: list[str] = list(spec.get("externalIPs") or ())
    if kind == "ExternalName":
        external = str(spec.get("externalName", ""))
    elif kind == "LoadBalancer":
        ingress: list[Object] = lookup(data, ("status", "loadBalancer", "ingress")) or []
        reached = sorted({str(item.get("ip") or item.get("hostname")) for item in ingress})
        external = ",".join([*reached, *outside]) or "<pending>"
    else:
        external = ",".join(outside) or "<none>"
    ports = [
        f"{port.get('port')}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    ]
    addresses: list[str] = spec.get("clusterIPs") or ["<none>"]
    selector = format_labels(spec.get("selector"))
    return [_name(data), kind, addresses[0], external, ",".join(ports) or "<none>", _age(data, now), selector]


def _deployment(data: Object, now: datetime) -> list[Json]:
    ready = f"{_number(data, 'status', 'readyReplicas')}/{_number(data, 'spec', 'replicas')}"
    fresh, available = _number(data, "status", "updatedReplicas"), _number(data, "status", "availableReplicas")
    names, images = _containers(data, "spec", "template", "spec")
    selector = format_selector(lookup(data, ("spec", "selector")))
    return [_name(data), ready, fresh, available, _age(data, now), names, images, selector]


def _stateful_set(data: Object, now: datetime) -> list[Json]:
    ready = f"{_number(data, 'status', 'readyReplicas')}/{_number(data, 'spec', 'replicas')}"
    return [_name(data), ready, _age(data, now), *_containers(data, "spec", "template", "spec")]


def _replica_set(data: Object, now: datetime) -> list[Json]:
    counts = [
        _number(data, "spec", "replicas"),
        _number(data, "status", "replicas"),
        _number(data, "status", "readyReplicas"),
    ]
    selector = format_selector(lookup(data, ("spec", "selector")))
    return [_name(data), *counts, _age(data, now), *_containers(data, "spec", "template", "spec"), selector]


def _daemon_set(data: Object, now: datetime) -> list[Json]:
    fields = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    counts = [_number(data, "status", field) for field in fields]
    nodes = format_labels(lookup(data, ("spec", "template", "spec", "nodeSelector")))
    selector = format_selector(lookup(data, ("spec", "selector")))
    return [_name(data), *counts, nodes, _age(data, now), *_containers(data, "spec", "template", "spec"), selector]


def _job(data: Object, now: datetime) -> list[Json]:
    done, wanted = _number(data, "status", "succeeded"), lookup(data, ("spec", "completions"))
    parallel = _number(data, "spec", "parallelism")
    if wanted is not None:
        completions = f"{done}/{wanted}"
    else:
        completions = f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    conditions = _conditions(data)
    status = next((word for kind, word in _JOB_STATES if conditions.get(kind) == "True"), "Running")
    if data["metadata"].get("deletionTimestamp") and status not in {"Complete", "Failed"}:
        status = "Terminating"
    started = parse_time(lookup(data, ("status", "startTime")))
    ended = parse_time(lookup(data, ("status", "completionTime"))) or now
    took = "" if started is None else human_duration((ended - started).total_seconds())
    selector = format_selector(lookup(data, ("spec", "selector")))
    names, images = _containers(data, "spec", "template", "spec")
    return [_name(data), status, completions, took, _age(data, now), names, images, selector]


_JOB_STATES = (
    ("Complete", "Complete"),
    ("Failed", "Failed"),
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
)


def _cron_job(data: Object, now: datetime) -> list[Json]:
    last = lookup(data, ("status", "lastScheduleTime"))
    template = ("spec", "jobTemplate", "spec", "template", "spec")
    suspend = lookup(data, ("spec", "suspend"))
    return [
        _name(data),
        _text(data, "spec", "schedule"),
        _text(data, "spec", "timeZone", default="<none>"),
        "<unset>" if suspend is None else str(bool(suspend)),
        len(lookup(data, ("status", "active")) or ()),
        age(last, now) if last else "<none>",
        _age(data, now),
        *_containers(data, *template),
        "<none>",
    ]


def _event(data: Object, now: datetime) -> list[Json]:
    micro = data.get("eventTime")
    first = age(data.get("firstTimestamp") or micro, now)
    last = age(data["lastTimestamp"], now) if data.get("lastTimestamp") else first
    count = data.get("count") or 1
    series: Object | None = data.get("series")
    if series:
        last, count = age(series.get("lastObservedTime"), now), series.get("count", count)
    about: Object = data.get("involvedObject") or data.get("regarding") or {}
    kind = str(about.get("kind", "")).lower()
    target = f"{kind}/{about['name']}" if about.get("name") else kind
    source: Object = data.get("source") or data.get("deprecatedSource") or {}
    component = source.get("component") or data.get("reportingComponent") or data.get("reportingController") or ""
    host = source.get("host") or data.get("reportingInstance") or ""
    message = str(data.get("message") or data.get("note") or "").strip()
    return [
        last,
        data.get("type", ""),
        data.get("reason", ""),
        target,
        about.get("fieldPath", ""),
        ", ".join(part for part in (component, host) if part),
        message,
        first,
        str(count),
        _name(data),
    ]


_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _modes(values: Json) -> str:
    return ",".join(_MODES.get(str(value), str(value)) for value in values or ())


def _volume_claim(data: Object, now: datetime) -> list[Json]:
    bound = bool(lookup(data, ("spec", "volumeName")))
    phase = "Terminating" if data["metadata"].get("deletionTimestamp") else _text(data, "status", "phase")
    return [
        _name(data),
        phase,
        _text(data, "spec", "volumeName"),
        _text(data, "status", "capacity", "storage", default="0") if bound else "",
        _modes(lookup(data, ("status", "accessModes"))) if bound else "",
        _text(data, "spec", "storageClassName"),
        _text(data, "spec", "volumeAttributesClassName", default="<unset>"),
        _age(data, now),
        _text(data, "spec", "volumeMode", default="<unset>"),
    ]


def _volume(data: Object, now: datetime) -> list[Json]:
    claim: Object | None = lookup(data, ("spec", "claimRef"))
    phase = "Terminating" if data["metadata"].get("deletionTimestamp") else _text(data, "status", "phase")
    return [
        _name(data),
        _text(data, "spec", "capacity", "storage", default="0"),
        _modes(lookup(data, ("spec", "accessModes"))),
        _text(data, "spec", "persistentVolumeReclaimPolicy"),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _text(data, "spec", "storageClassName"),
        _text(data, "spec", "volumeAttributesClassName", default="<unset>"),
        _text(data, "status", "reason"),
        _age(data, now),
        _text(data, "spec", "volumeMode", default="<unset>"),
    ]


def _storage_class(data: Object, now: datetime) -> list[Json]:
    annotations: Object = data["metadata"].get("annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        _name(data) + (" (default)" if default else ""),
        data.get("provisioner", ""),
        data.get("reclaimPolicy", "Delete"),
        data.get("volumeBindingMode", "Immediate"),
        bool(data.get("allowVolumeExpansion")),
        _age(data, now),
    ]


def _endpoints(data: Object, now: datetime) -> list[Json]:
    shown: list[str] = []
    for subset in data.get("subsets") or ():
        ports: list[Object | None] = list(subset.get("ports") or ()) or [None]
        for port in ports:
            suffix = "" if port is None else f":{port.get('port')}"
            shown += [f"{address.get('ip')}{suffix}" for address in subset.get("addresses") or ()]
    text = ",".join(shown[:3]) + (f" + {len(shown) - 3} more..." if len(shown) > 3 else "")
    return [_name(data), text or "<none>", _age(data, now)]


def _binding(data: Object, now: datetime) -> list[Json]:
    role: Object = data.get("roleRef") or {}
    subjects: list[Object] = data.get("subjects") or []

    def named(kind: str) -> str:
        return ", ".join(
            f"{item.get('namespace')}/{item.get('name')}" if kind == "ServiceAccount" else str(item.get("name"))
            for item in subjects
            if item.get("kind") == kind
        )

    shown = f"{role.get('kind')}/{role.get('name')}"
    return [_name(data), shown, _age(data, now), named("User"), named("Group"), named("ServiceAccount")]


def _definition(data: Object, _now: datetime) -> list[Json]:
    return [_name(data), str(data["metadata"].get("creationTimestamp", ""))]


def _slice(data: Object, now: datetime) -> list[Json]:
    ports = [str(port.get("port")) for port in data.get("ports") or ()]
    found = [str(address) for endpoint in data.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    shown = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [_name(data), data.get("addressType", ""), ",".join(ports) or "<unset>", shown or "<unset>", _age(data, now)]


def _budget(data: Object, now: datetime) -> list[Json]:
    spec: Object = data.get("spec") or {}
    least, most = str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A"))
    return [_name(data), least, most, _number(data, "status", "disruptionsAllowed"), _age(data, now)]


def _revision(data: Object, now: datetime) -> list[Json]:
    owners: list[Object] = data["metadata"].get("ownerReferences") or []
    owner = next((item for item in owners if item.get("controller")), None)
    shown = "<none>"
    if owner is not None:
        group = str(owner.get("apiVersion", "")).rpartition("/")[0]
        shown = f"{str(owner.get('kind')).lower()}{'.' + group if group else ''}/{owner.get('name')}"
    return [_name(data), shown, data.get("revision", 0), _age(data, now)]


def _driver(data: Object, now: datetime) -> list[Json]:
    spec: Object = data.get("spec") or {}
    requests: list[Object] | None = spec.get("tokenRequests")
    return [
        _name(data),
        bool(spec.get("attachRequired", True)),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        "<unset>" if requests is None else ",".join(str(item.get("audience")) for item in requests),
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()) or "<none>",
        _age(data, now),
    ]


def _counted(field: str, *paths: tuple[str, ...]) -> Cells:
    """Return the cells function of a type that shows texts at paths and the size of a field."""

    def cells(data: Object, now: datetime) -> list[Json]:
        shown = [_text(data, *path) for path in paths]
        return [_name(data), *shown, len(data.get(field) or ()), _age(data, now)]

    return cells


def _shown(*paths: tuple[str, ...]) -> Cells:
    """Return the cells function of a type that shows texts at paths."""

    def cells(data: Object, now: datetime) -> list[Json]:
        return [_name(data), *(_text(data, *path) for path in paths), _age(data, now)]

    return cells


_WIDE = ("Containers+", "Images+")
_BINDINGS = Printer(_columns("Name", "Role", "Age", "Users+", "Groups+", "ServiceAccounts+"), _binding)
_HOOKS = Printer(_columns("Name", "Webhooks#", "Age"), _counted("webhooks"))
_EVENT_COLUMNS = ("Last Seen", "Type", "Reason", "Object", "Subobject+", "Source+", "Message", "First Seen+", "Count+")

PRINTERS: dict[str, Printer] = {
    "pods": Printer(
        _columns("Name", "Ready", "Status", "Restarts", "Age", "IP+", "Node+", "Nominated Node+", "Readiness Gates+"),
        pod_cells,
    ),
    "nodes": Printer(
        _columns(
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "Internal-IP+",
            "External-IP+",
            "OS-Image+",
            "Kernel-Version+",
            "Container-Runtime+",
        ),
        _node,
    ),
    "namespaces": Printer(_columns("Name", "Status", "Age"), _shown(("status", "phase"))),
    "services": Printer(_columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector+"), _service),
    "configmaps": Printer(
        _columns("Name", "Data", "Age"),
        lambda data, now: [
            _name(data),
            len(data.get("data") or ()) + len(data.get("binaryData") or ()),
            _age(data, now),
        ],
    ),
    "secrets": Printer(_columns("Name", "Type", "Data", "Age"), _counted("data", ("type",))),
    "serviceaccounts": Printer(_columns("Name", "Age"), _shown()),
    "endpoints": Printer(_columns("Name", "Endpoints", "Age"), _endpoints),
    "events": Printer((*_columns(*_EVENT_COLUMNS), Column("Name", "string", "", "name", priority=1)), _event),
    "persistentvolumes": Printer(
        _columns(
            "Name",
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
            "VolumeMode+",
        ),
        _volume,
    ),
    "persistentvolumeclaims": Printer(
        _columns(
            "Name",
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "VolumeMode+",
        ),
        _volume_claim,
    ),
    "deployments.apps": Printer(
        _columns("Name", "Ready", "Up-to-date", "Available", "Age", *_WIDE, "Selector+"), _deployment
    ),
    "statefulsets.apps": Printer(_columns("Name", "Ready", "Age", *_WIDE), _stateful_set),
    "replicasets.apps": Printer(
        _columns("Name", "Desired#", "Current#", "Ready#", "Age", *_WIDE, "Selector+"), _replica_set
    ),
    "daemonsets.apps": Printer(
        _columns(
            "Name",
            "Desired#",
            "Current#",
            "Ready#",
            "Up-to-date#",
            "Available#",
            "Node Selector",
            "Age",
            *_WIDE,
            "Selector+",
        ),
        _daemon_set,
    ),
    "controllerrevisions.apps": Printer(_columns("Name", "Controller", "Revision", "Age"), _revision),
    "jobs.batch": Printer(_columns("Name", "Status", "Completions", "Duration", "Age", *_WIDE, "Selector+"), _job),
    "cronjobs.batch": Printer(
        _columns("Name", "Schedule", "Timezone", "Suspend", "Active#", "Last Schedule", "Age", *_WIDE, "Selector+"),
        _cron_job,
    ),
    "leases.coordination.k8s.io": Printer(_columns("Name", "Holder", "Age"), _shown(("spec", "holderIdentity"))),
    "endpointslices.discovery.k8s.io": Printer(_columns("Name", "AddressType", "Ports", "Endpoints", "Age"), _slice),
    "storageclasses.storage.k8s.io": Printer(
        _columns("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
        _storage_class,
    ),
    "csidrivers.storage.k8s.io": Printer(
        _columns(
            "Name",
            "AttachRequired",
            "PodInfoOnMount",
            "StorageCapacity",
            "TokenRequests",
            "RequiresRepublish",
            "Modes",
            "Age",
        ),
        _driver,
    ),
    "poddisruptionbudgets.policy": Printer(
        _columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions#", "Age"), _budget
    ),
    "rolebindings.rbac.authorization.k8s.io": _BINDINGS,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDINGS,
    "roles.rbac.authorization.k8s.io": Printer(
        _columns("Name", "Created At"), lambda data, _now: [_name(data), data["metadata"].get("creationTimestamp", "")]
    ),
    "clusterroles.rbac.authorization.k8s.io": Printer(
        _columns("Name", "Created At"), lambda data, _now: [_name(data), data["metadata"].get("creationTimestamp", "")]
    ),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _HOOKS,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _HOOKS,
    "customresourcedefinitions.apiextensions.k8s.io": Printer(_columns("Name", "Created At"), _definition),
}
"""By storage name."""
