"""Validation rules of Kubernetes for the values in a pod template.

They are rules of the API server (`pkg/apis/core/validation` of Kubernetes), which applies most of them only to a
complete object. Here they reject a template at admission, name the field, and need no cluster.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kaito.api import conditions, labels
from kaito.api.json_values import json_list, json_object
from kaito.api.object_names import is_label_key, is_label_value
from kaito.runtime.meta import Quantity
from kaito.workspace.preflight.finding import Finding

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORTS: Final = 65535
_SECONDS: Final = 2**63 - 1

_CHOICES: Final[dict[str, frozenset[str]]] = {
    "imagePullPolicy": frozenset({"Always", "IfNotPresent", "Never"}),
    "terminationMessagePolicy": frozenset({"File", "FallbackToLogsOnError"}),
    "dnsPolicy": frozenset({"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"}),
    "preemptionPolicy": frozenset({"PreemptLowerPriority", "Never"}),
    "protocol": frozenset({"TCP", "UDP", "SCTP"}),
    "operator": frozenset({"Equal", "Exists", "Gt", "Lt"}),
    "effect": frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"}),
    "whenUnsatisfiable": frozenset({"DoNotSchedule", "ScheduleAnyway"}),
}
"""Fields with a closed set of values (Kubernetes 1.35)."""

_FORBIDDEN: Final = {
    "activeDeadlineSeconds": "is not allowed: the pods of a StatefulSet run until they are deleted, remove it",
    "ephemeralContainers": "can only be added to a running pod: remove them",
}


def pod_rules(template: Mapping[str, Any], path: str) -> Iterator[Finding]:
    """Returns what the API server would reject in a template of the correct types."""
    for field, problem in _problems(template, path):
        yield Finding(conditions.WORKLOAD_REFUSED, field, problem)


def _problems(template: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name in sorted(set(template) - {"metadata", "spec", "apiVersion", "kind"}):
        yield f"{path}.{name}", "is not a field of a pod template: it has metadata and spec"
    given = json_object(json_object(template.get("metadata")).get("labels"))
    yield from _check_labels(given, f"{path}.metadata.labels")
    for key in given:
        if labels.is_reserved(key):
            yield f"{path}.metadata.labels[{key}]", "is set by the controller: remove it"
    spec = json_object(template.get("spec"))
    here = f"{path}.spec"
    yield from _check_labels(json_object(spec.get("nodeSelector")), f"{here}.nodeSelector")
    for name, why in _FORBIDDEN.items():
        if name in spec:
            yield f"{here}.{name}", why
    yield from _check_range(spec, "terminationGracePeriodSeconds", 0, _SECONDS, here)
    yield from _check_choices(spec, ("dnsPolicy", "preemptionPolicy"), here)
    for index, toleration in enumerate(json_list(spec.get("tolerations"))):
        yield from _check_choices(json_object(toleration), ("operator", "effect"), f"{here}.tolerations[{index}]")
    for index, raw in enumerate(json_list(spec.get("topologySpreadConstraints"))):
        constraint, where = json_object(raw), f"{here}.topologySpreadConstraints[{index}]"
        yield from _check_choices(constraint, ("whenUnsatisfiable",), where)
        yield from _check_range(constraint, "maxSkew", 1, 2**31 - 1, where)
    yield from _check_names(spec, ("initContainers", "containers"), here)
    yield from _check_names(spec, ("volumes",), here)
    volumes = {json_object(volume).get("name") for volume in json_list(spec.get("volumes"))}
    for part in ("initContainers", "containers"):
        for index, container in enumerate(json_list(spec.get(part))):
            yield from _container(json_object(container), f"{here}.{part}[{index}]", volumes)
    yield from _check_amounts(json_object(spec.get("resources")), f"{here}.resources")


def _container(container: Mapping[str, Any], path: str, volumes: set[Any]) -> Iterator[tuple[str, str]]:
    yield from _check_choices(container, ("imagePullPolicy", "terminationMessagePolicy"), path)
    for index, raw in enumerate(json_list(container.get("ports"))):
        port, where = json_object(raw), f"{path}.ports[{index}]"
        yield from _check_range(port, "containerPort", 1, _PORTS, where)
        yield from _check_range(port, "hostPort", 0, _PORTS, where)
        yield from _check_choices(port, ("protocol",), where)
    for index, variable in enumerate(json_list(container.get("env"))):
        name = json_object(variable).get("name")
        if not name or "=" in str(name):
            yield f"{path}.env[{index}].name", f"{name or ''!r} is not the name of an environment variable"
    for index, raw in enumerate(json_list(container.get("volumeMounts"))):
        mount, where = json_object(raw), f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            yield f"{where}.name", f"{mount.get('name')!r} is not a volume of the template: add it to spec.volumes"
        if not mount.get("mountPath"):
            yield f"{where}.mountPath", "is empty: name the directory in the container"
    yield from _check_amounts(json_object(container.get("resources")), f"{path}.resources")


def _check_names(spec: Mapping[str, Any], parts: tuple[str, ...], path: str) -> Iterator[tuple[str, str]]:
    """Checks that names are DNS labels and unique; containers and init containers share a name space."""
    seen: set[Any] = set()
    for part in parts:
        for index, each in enumerate(json_list(spec.get(part))):
            name = json_object(each).get("name")
            where = f"{path}.{part}[{index}].name"
            if not isinstance(name, str) or not _DNS_LABEL.fullmatch(name):
                yield where, f"{name!r} is not a name: use at most 63 lower-case letters, digits and '-'"
            elif name in seen:
                yield where, f"{name!r} is used twice: give each its own name"
            seen.add(name)


def _check_labels(given: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        if not is_label_key(key):
            yield path, f"{key!r} is not the key of a label"
        elif isinstance(value, str) and not is_label_value(value):
            message = f"{value!r} is not the value of a label: use at most 63 letters, digits, '-', '_' and '.'"
            yield f"{path}[{key}]", message


def _check_choices(obj: Mapping[str, Any], names: tuple[str, ...], path: str) -> Iterator[tuple[str, str]]:
    for name in names:
        value = obj.get(name)
        if value not in (None, "") and value not in _CHOICES[name]:
            yield f"{path}.{name}", f"{value!r} is not allowed: use {' or '.join(sorted(_CHOICES[name]))}"


def _check_range(obj: Mapping[str, Any], name: str, least: int, most: int, path: str) -> Iterator[tuple[str, str]]:
    value = obj.get(name)
    if isinstance(value, int) and not least <= value <= most:
        yield f"{path}.{name}", f"is {value}: use a number from {least} to {most}"


def _check_amounts(resources: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Checks that amounts are not negative, devices are integers and not overcommitted, and requests within limits."""
    limits, requests = (_quantities(json_object(resources.get(part))) for part in ("limits", "requests"))
    for part, given in (("limits", limits), ("requests", requests)):
        for name, amount in given.items():
            if amount < Quantity(0):
                yield f"{path}.{part}[{name}]", f"is {amount}: an amount cannot be negative"
            elif _is_device(name) and amount != Quantity(int(amount)):
                yield f"{path}.{part}[{name}]", f"is {amount}: use a whole number of devices"
    for name, requested in requests.items():
        limit = limits.get(name)
        if _is_device(name) and limit != requested:
            message = f"is {requested}, but the limit is {'missing' if limit is None else limit}"
            yield f"{path}.requests[{name}]", f"{message}: set limits[{name}] to the same number"
        elif limit is not None and requested > limit:
            yield (
                f"{path}.requests[{name}]",
                f"is {requested}, more than the limit {limit}: lower it, or raise the limit",
            )


def _quantities(given: Mapping[str, Any]) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    for name, value in given.items():
        try:
            found[name] = Quantity(str(value))
        except ValueError:
            continue  # reported by the checks of the types
    return found


def _is_device(name: str) -> bool:
    """Whether it is an extended resource, which a device plugin advertises as an integer."""
    return "/" in name and not name.partition("/")[0].endswith("kubernetes.io")
