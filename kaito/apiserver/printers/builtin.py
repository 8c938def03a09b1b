"""Rows of the built-in types in `kubectl get` (`kubernetes/pkg/printers/internalversion/printers.go`).

The columns are those of a real server (`data/builtin-columns.json`); the functions here fill them.
"""

from __future__ import annotations

from datetime import datetime

from kaito.apiserver.printers.cells import (
    Cells,
    age_of,
    condition_states,
    format_labels,
    format_selector,
    name_of,
    number_at,
    text_at,
)
from kaito.apiserver.printers.workloads import WORKLOADS
from kaito.apiserver.schema.durations import age
from kaito.apiserver.wire import Json, Object, lookup, part


def _node(data: Object, now: datetime) -> list[Json]:
    ready = condition_states(data).get("Ready")
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
        name_of(data),
        status,
        ",".join(sorted(roles - {""})) or "<none>",
        age_of(data, now),
        text_at(data, *info, "kubeletVersion"),
        by_type.get("InternalIP", "<none>"),
        by_type.get("ExternalIP", "<none>"),
        text_at(data, *info, "osImage", default="<unknown>"),
        text_at(data, *info, "kernelVersion", default="<unknown>"),
        text_at(data, *info, "containerRuntimeVersion", default="<unknown>"),
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
    return [name_of(data), kind, addresses[0], external, ",".join(ports) or "<none>", age_of(data, now), selector]


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
        name_of(data),
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
    phase = "Terminating" if data["metadata"].get("deletionTimestamp") else text_at(data, "status", "phase")
    return [
        name_of(data),
        phase,
        text_at(data, "spec", "volumeName"),
        text_at(data, "status", "capacity", "storage", default="0") if bound else "",
        _modes(lookup(data, ("status", "accessModes"))) if bound else "",
        text_at(data, "spec", "storageClassName"),
        text_at(data, "spec", "volumeAttributesClassName", default="<unset>"),
        age_of(data, now),
        text_at(data, "spec", "volumeMode", default="<unset>"),
    ]


def _volume(data: Object, now: datetime) -> list[Json]:
    claim: Object | None = lookup(data, ("spec", "claimRef"))
    phase = "Terminating" if data["metadata"].get("deletionTimestamp") else text_at(data, "status", "phase")
    return [
        name_of(data),
        text_at(data, "spec", "capacity", "storage", default="0"),
        _modes(lookup(data, ("spec", "accessModes"))),
        text_at(data, "spec", "persistentVolumeReclaimPolicy"),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        text_at(data, "spec", "storageClassName"),
        text_at(data, "spec", "volumeAttributesClassName", default="<unset>"),
        text_at(data, "status", "reason"),
        age_of(data, now),
        text_at(data, "spec", "volumeMode", default="<unset>"),
    ]


def _storage_class(data: Object, now: datetime) -> list[Json]:
    annotations: Object = data["metadata"].get("annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        name_of(data) + (" (default)" if default else ""),
        data.get("provisioner", ""),
        data.get("reclaimPolicy", "Delete"),
        data.get("volumeBindingMode", "Immediate"),
        bool(data.get("allowVolumeExpansion")),
        age_of(data, now),
    ]


def _endpoints(data: Object, now: datetime) -> list[Json]:
    shown: list[str] = []
    for subset in data.get("subsets") or ():
        ports: list[Object | None] = list(subset.get("ports") or ()) or [None]
        for port in ports:
            suffix = "" if port is None else f":{port.get('port')}"
            shown += [f"{address.get('ip')}{suffix}" for address in subset.get("addresses") or ()]
    text = ",".join(shown[:3]) + (f" + {len(shown) - 3} more..." if len(shown) > 3 else "")
    return [name_of(data), text or "<none>", age_of(data, now)]


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
    return [name_of(data), shown, age_of(data, now), named("User"), named("Group"), named("ServiceAccount")]


def _created(data: Object, _now: datetime) -> list[Json]:
    return [name_of(data), str(data["metadata"].get("creationTimestamp", ""))]


def _slice(data: Object, now: datetime) -> list[Json]:
    ports = [str(port.get("port")) for port in data.get("ports") or ()]
    found = [str(address) for endpoint in data.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    shown = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [
        name_of(data),
        data.get("addressType", ""),
        ",".join(ports) or "<unset>",
        shown or "<unset>",
        age_of(data, now),
    ]


def _budget(data: Object, now: datetime) -> list[Json]:
    spec: Object = data.get("spec") or {}
    least, most = str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A"))
    return [name_of(data), least, most, number_at(data, "status", "disruptionsAllowed"), age_of(data, now)]


def _driver(data: Object, now: datetime) -> list[Json]:
    spec: Object = data.get("spec") or {}
    requests: list[Object] | None = spec.get("tokenRequests")
    return [
        name_of(data),
        bool(spec.get("attachRequired", True)),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        "<unset>" if requests is None else ",".join(str(item.get("audience")) for item in requests),
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()) or "<none>",
        age_of(data, now),
    ]


def _config_map(data: Object, now: datetime) -> list[Json]:
    return [name_of(data), len(data.get("data") or ()) + len(data.get("binaryData") or ()), age_of(data, now)]


def _priority_class(data: Object, now: datetime) -> list[Json]:
    policy = data.get("preemptionPolicy", "PreemptLowerPriority")
    return [name_of(data), data.get("value", 0), bool(data.get("globalDefault")), age_of(data, now), policy]


def _network_policy(data: Object, now: datetime) -> list[Json]:
    return [name_of(data), format_selector(lookup(data, ("spec", "podSelector"))), age_of(data, now)]


def _ingress(data: Object, now: datetime) -> list[Json]:
    rules: list[Object] = lookup(data, ("spec", "rules")) or []
    reached: list[Object] = lookup(data, ("status", "loadBalancer", "ingress")) or []
    hosts = ",".join(str(rule["host"]) for rule in rules if rule.get("host")) or "*"
    address = ",".join(str(item.get("ip") or item.get("hostname")) for item in reached)
    ports = "80, 443" if lookup(data, ("spec", "tls")) else "80"
    kind = text_at(data, "spec", "ingressClassName", default="<none>")
    return [name_of(data), kind, hosts, address, ports, age_of(data, now)]


def _policy(data: Object, now: datetime) -> list[Json]:
    spec = part(data, "spec")
    kind = part(spec, "paramKind")
    shown = f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else "<unset>"
    return [name_of(data), len(spec.get("validations") or ()), shown, age_of(data, now)]


def _policy_binding(data: Object, now: datetime) -> list[Json]:
    param = part(data, "spec", "paramRef")
    shown = "/".join(filter(None, (param.get("namespace"), param.get("name", "")))) if param else "<unset>"
    return [name_of(data), text_at(data, "spec", "policyName"), shown, age_of(data, now)]


def _counted(field: str, *paths: tuple[str, ...]) -> Cells:
    """Returns a cells function that prints the texts at paths and the size of a field."""

    def cells(data: Object, now: datetime) -> list[Json]:
        shown = [text_at(data, *path) for path in paths]
        return [name_of(data), *shown, len(data.get(field) or ()), age_of(data, now)]

    return cells


def _shown(*paths: tuple[str, ...]) -> Cells:
    """Returns a cells function that prints the texts at paths."""

    def cells(data: Object, now: datetime) -> list[Json]:
        return [name_of(data), *(text_at(data, *path) for path in paths), age_of(data, now)]

    return cells


PRINTERS: dict[str, Cells] = {
    **WORKLOADS,
    "nodes": _node,
    "namespaces": _shown(("status", "phase")),
    "services": _service,
    "configmaps": _config_map,
    "secrets": _counted("data", ("type",)),
    "serviceaccounts": _shown(),
    "endpoints": _endpoints,
    "events": _event,
    "limitranges": _created,
    "persistentvolumes": _volume,
    "persistentvolumeclaims": _volume_claim,
    "leases.coordination.k8s.io": _shown(("spec", "holderIdentity")),
    "endpointslices.discovery.k8s.io": _slice,
    "storageclasses.storage.k8s.io": _storage_class,
    "csidrivers.storage.k8s.io": _driver,
    "poddisruptionbudgets.policy": _budget,
    "networkpolicies.networking.k8s.io": _network_policy,
    "ingresses.networking.k8s.io": _ingress,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "roles.rbac.authorization.k8s.io": _created,
    "clusterroles.rbac.authorization.k8s.io": _created,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _counted("webhooks"),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _counted("webhooks"),
    "validatingadmissionpolicies.admissionregistration.k8s.io": _policy,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _policy_binding,
    "customresourcedefinitions.apiextensions.k8s.io": _created,
}
"""By storage name."""
