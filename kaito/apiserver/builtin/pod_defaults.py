"""Defaults of pod specs, wherever they appear (`kubernetes/pkg/apis/core/v1/defaults.go`)."""

from __future__ import annotations

import re

from kaito.apiserver.wire import Json, Object, is_object, part

_DIGEST = re.compile(r"@[a-z0-9]+:")
DEFAULT_MODE = 0o644


def fill_pod_spec(spec: Object) -> None:
    """Fills in the defaults of a pod spec, in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            _fill_container(container, host_network=bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or ():
        _fill_volume(volume)


def fill_pod(data: Object) -> None:
    """Fills in the defaults of pods that pod templates do not get: service links, status addresses, requests from
    limits."""
    spec: Object = data.setdefault("spec", {})
    fill_pod_spec(spec)
    status: Object = data.setdefault("status", {})
    if status.get("podIP") and not status.get("podIPs"):
        status["podIPs"] = [{"ip": status["podIP"]}]
    elif status.get("podIPs"):
        status["podIP"] = status["podIPs"][0].get("ip")
    spec.setdefault("enableServiceLinks", True)
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            resources: Object = container.setdefault("resources", {})
            limits: Object = resources.get("limits") or {}
            for name, value in limits.items():
                resources.setdefault("requests", {}).setdefault(name, value)


def admit_new_pod(data: Object) -> None:
    """Applies the default admission plugins to a new pod: priority and the two node tolerations."""
    spec: Object = data["spec"]
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerations: list[Object] = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(item.get("key") in {key, None, ""} for item in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    data["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}


def qos_class(spec: Object) -> str:
    """Returns the quality-of-service class of a pod (`pkg/apis/core/helper/qos`)."""
    containers: list[Object] = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    pairs = [(part(item, "resources", "requests"), part(item, "resources", "limits")) for item in containers]
    names = ("cpu", "memory")
    if not any(name in requests or name in limits for requests, limits in pairs for name in names):
        return "BestEffort"
    guaranteed = all(
        name in limits and requests.get(name, limits[name]) == limits[name]
        for requests, limits in pairs
        for name in names
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _pull_policy(image: str) -> str:
    if _DIGEST.search(image):
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in {"", "latest"} else "IfNotPresent"


def _fill_container(container: Object, *, host_network: bool) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(str(container.get("image", ""))))
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network and "containerPort" in port:
            port.setdefault("hostPort", port["containerPort"])
    for variable in container.get("env") or ():
        reference: Json = part(variable, "valueFrom").get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _fill_probe(container[name])
    for hook in part(container, "lifecycle").values():
        _fill_http(hook)


def _fill_probe(probe: Object) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")
    _fill_http(probe)


def _fill_http(handler: Json) -> None:
    request: Json = handler.get("httpGet") if is_object(handler) else None
    if request is not None:
        request.setdefault("path", "/")
        request.setdefault("scheme", "HTTP")


def _fill_volume(volume: Object) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for kind in ("configMap", "secret", "downwardAPI", "projected"):
        if volume.get(kind) is not None:
            volume[kind].setdefault("defaultMode", DEFAULT_MODE)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    for source in part(volume, "projected").get("sources") or ():
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
