"""Defaults of built-in types that their schemas do not express (the `zz_generated.defaults` of Kubernetes).

`fill_builtin_defaults` runs on every write of a built-in type, after pruning.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from kaito.apiserver.apiextensions.definitions import default_definition
from kaito.apiserver.builtin.pod_defaults import fill_pod, fill_pod_spec
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.wire import Json, Object, is_object, part

RBAC = "rbac.authorization.k8s.io"


def fill_builtin_defaults(data: Object, resource: Resource) -> None:
    """Fills in what the real server defaults, in place."""
    fill = _DEFAULTS.get(resource.storage)
    if fill is not None:
        fill(data)
    times = _CONDITION_TIMES.get(resource.storage, ())
    if times:
        conditions: list[Object] = part(data, "status").get("conditions") or []
        for condition in conditions:
            for name in times:
                condition.setdefault(name, None)


_CONDITION_TIMES: dict[str, tuple[str, ...]] = {
    "pods": ("lastProbeTime", "lastTransitionTime"),
    "nodes": ("lastHeartbeatTime", "lastTransitionTime"),
    "deployments.apps": ("lastTransitionTime", "lastUpdateTime"),
    "statefulsets.apps": ("lastTransitionTime",),
    "replicasets.apps": ("lastTransitionTime",),
    "daemonsets.apps": ("lastTransitionTime",),
    "jobs.batch": ("lastProbeTime", "lastTransitionTime"),
    "persistentvolumeclaims": ("lastProbeTime", "lastTransitionTime"),
}
"""Times of conditions that are printed as null when they are not set."""


def _template(data: Object) -> None:
    template: Object = data.setdefault("spec", {}).setdefault("template", {})
    fill_pod_spec(template.setdefault("spec", {}))


def _deployment(data: Object) -> None:
    _template(data)
    spec: Object = data["spec"]
    spec.setdefault("replicas", 1)
    strategy: Object = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling: Object = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _stateful_set(data: Object) -> None:
    _template(data)
    spec: Object = data["spec"]
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy: Object = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    retention: Object = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        _claim(claim)


def _replica_set(data: Object) -> None:
    _template(data)
    data["spec"].setdefault("replicas", 1)


def _daemon_set(data: Object) -> None:
    _template(data)
    spec: Object = data["spec"]
    strategy: Object = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling: Object = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def _job_spec(spec: Object) -> None:
    fill_pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")


def _job(data: Object) -> None:
    spec: Object = data.setdefault("spec", {})
    _job_spec(spec)


def _cron_job(data: Object) -> None:
    spec: Object = data.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template: Object = spec.setdefault("jobTemplate", {}).setdefault("spec", {}).setdefault("template", {})
    fill_pod_spec(template.setdefault("spec", {}))


def _service(data: Object) -> None:
    spec: Object = data.setdefault("spec", {})
    spec.setdefault("sessionAffinity", "None")
    kind = spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in {None, "", 0}:
            port["targetPort"] = port.get("port")
    if kind in {"NodePort", "LoadBalancer"}:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    data.setdefault("status", {}).setdefault("loadBalancer", {})


def _secret(data: Object) -> None:
    data.setdefault("type", "Opaque")
    plain: Object = data.pop("stringData", None) or {}
    for name, value in plain.items():
        data.setdefault("data", {})[name] = base64.b64encode(str(value).encode()).decode()


def _claim(data: Object) -> None:
    data.setdefault("status", {}).setdefault("phase", "Pending")
    data.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    resources: Object = data["spec"].get("resources") or {}
    for name, value in part(resources, "limits").items():
        resources.setdefault("requests", {}).setdefault(name, value)


def _volume(data: Object) -> None:
    data.setdefault("status", {}).setdefault("phase", "Pending")
    data.setdefault("spec", {}).setdefault("persistentVolumeReclaimPolicy", "Retain")
    data["spec"].setdefault("volumeMode", "Filesystem")
    if data["spec"].get("hostPath") is not None:
        data["spec"]["hostPath"].setdefault("type", "")


def _slice(data: Object) -> None:
    for port in data.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _priority_class(data: Object) -> None:
    data.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _network_policy(data: Object) -> None:
    spec: Object = data.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _storage_class(data: Object) -> None:
    data.setdefault("reclaimPolicy", "Delete")
    data.setdefault("volumeBindingMode", "Immediate")


def _driver(data: Object) -> None:
    spec: Object = data.setdefault("spec", {})
    spec.setdefault("attachRequired", True)
    spec.setdefault("podInfoOnMount", False)
    spec.setdefault("storageCapacity", False)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    spec.setdefault("volumeLifecycleModes", ["Persistent"])
    spec.setdefault("requiresRepublish", False)
    spec.setdefault("seLinuxMount", False)


def _binding(data: Object) -> None:
    role: Object = data.setdefault("roleRef", {})
    role["apiGroup"] = role.get("apiGroup") or RBAC
    for subject in data.get("subjects") or ():
        if subject.get("kind") in {"User", "Group"}:
            subject["apiGroup"] = subject.get("apiGroup") or RBAC


def _hooks(data: Object) -> None:
    for hook in data.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        if data["kind"].startswith("Mutating"):
            hook.setdefault("reinvocationPolicy", "Never")
        service: Json = part(hook, "clientConfig").get("service")
        if service is not None:
            service.setdefault("port", 443)
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")


def _policy(data: Object) -> None:
    spec: Object = data.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    _match_resources(spec.get("matchConstraints"))


def _policy_binding(data: Object) -> None:
    _match_resources(part(data, "spec").get("matchResources"))


def _match_resources(match: Json) -> None:
    if not is_object(match):
        return
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for name in ("resourceRules", "excludeResourceRules"):
        rules: list[Object] = match.get(name) or []
        for rule in rules:
            rule.setdefault("scope", "*")


def _namespace(data: Object) -> None:
    name = data["metadata"].get("name")
    if name:
        data["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name


def _node(data: Object) -> None:
    status: Object = data.setdefault("status", {})
    capacity: Object = status.get("capacity") or {}
    if capacity:
        allocatable: Object = status.setdefault("allocatable", {})
        for name, value in capacity.items():
            allocatable.setdefault(name, value)


def _event(data: Object) -> None:
    data.setdefault("source", {})
    for name in ("firstTimestamp", "lastTimestamp", "eventTime"):
        data.setdefault(name, None)


def _new_event(data: Object) -> None:
    data.setdefault("deprecatedSource", {})
    for name in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"):
        data.setdefault(name, None)


_DEFAULTS: dict[str, Callable[[Object], None]] = {
    "pods": fill_pod,
    "deployments.apps": _deployment,
    "statefulsets.apps": _stateful_set,
    "replicasets.apps": _replica_set,
    "replicationcontrollers": _replica_set,
    "daemonsets.apps": _daemon_set,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
    "services": _service,
    "secrets": _secret,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume,
    "storageclasses.storage.k8s.io": _storage_class,
    "csidrivers.storage.k8s.io": _driver,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _hooks,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _hooks,
    "validatingadmissionpolicies.admissionregistration.k8s.io": _policy,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _policy_binding,
    "endpointslices.discovery.k8s.io": _slice,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "networkpolicies.networking.k8s.io": _network_policy,
    "namespaces": _namespace,
    "nodes": _node,
    "events": lambda data: _new_event(data) if "regarding" in data else _event(data),
    "customresourcedefinitions.apiextensions.k8s.io": default_definition,
}
