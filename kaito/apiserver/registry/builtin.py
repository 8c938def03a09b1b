"""The built-in types, as a table: one row for each group, version and kind that the server knows without a CRD."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kaito.apiserver.registry.builtin_schemas import builtin_schema
from kaito.apiserver.registry.resources import Resource

_STATUS = frozenset({"status"})
_SCALABLE = frozenset({"status", "scale"})
_CREATE_ONLY = ("create",)


def _row(
    api: str,
    kind: str,
    plural: str,
    *,
    short: tuple[str, ...] = (),
    sub: frozenset[str] = frozenset(),
    cluster: bool = False,
    everything: bool = False,
    generation: bool = False,
    verbs: tuple[str, ...] | None = None,
    storage_name: str = "",
) -> Resource:
    group, _, version = api.rpartition("/")
    row = Resource(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        namespaced=not cluster,
        singular=kind.lower(),
        short_names=short,
        categories=("all",) if everything else (),
        subresources=sub,
        storage_name=storage_name,
        has_generation=generation,
    )
    return row if verbs is None else replace(row, verbs=verbs)


_RBAC = "rbac.authorization.k8s.io/v1"

BUILTIN: tuple[Resource, ...] = (
    _row(
        "v1",
        "Namespace",
        "namespaces",
        short=("ns",),
        sub=frozenset({"status", "finalize"}),
        cluster=True,
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    ),
    _row("v1", "Node", "nodes", short=("no",), sub=_STATUS, cluster=True),
    _row(
        "v1",
        "Pod",
        "pods",
        short=("po",),
        sub=frozenset({"status", "log", "exec", "portforward", "eviction", "binding", "ephemeralcontainers", "resize"}),
        everything=True,
        generation=True,
    ),
    _row("v1", "PodTemplate", "podtemplates", generation=True),
    _row("v1", "Service", "services", short=("svc",), sub=_STATUS, everything=True),
    _row("v1", "Endpoints", "endpoints", short=("ep",)),
    _row("v1", "ConfigMap", "configmaps", short=("cm",)),
    _row("v1", "Secret", "secrets"),
    _row("v1", "Event", "events", short=("ev",)),
    _row("v1", "ServiceAccount", "serviceaccounts", short=("sa",), sub=frozenset({"token"})),
    _row("v1", "PersistentVolume", "persistentvolumes", short=("pv",), sub=_STATUS, cluster=True),
    _row("v1", "PersistentVolumeClaim", "persistentvolumeclaims", short=("pvc",), sub=_STATUS),
    _row("v1", "LimitRange", "limitranges", short=("limits",)),
    _row("v1", "ResourceQuota", "resourcequotas", short=("quota",), sub=_STATUS),
    _row(
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        short=("rc",),
        sub=_SCALABLE,
        everything=True,
        generation=True,
    ),
    _row("apps/v1", "Deployment", "deployments", short=("deploy",), sub=_SCALABLE, everything=True, generation=True),
    _row("apps/v1", "StatefulSet", "statefulsets", short=("sts",), sub=_SCALABLE, everything=True, generation=True),
    _row("apps/v1", "ReplicaSet", "replicasets", short=("rs",), sub=_SCALABLE, everything=True, generation=True),
    _row("apps/v1", "DaemonSet", "daemonsets", short=("ds",), sub=_STATUS, everything=True, generation=True),
    _row("apps/v1", "ControllerRevision", "controllerrevisions"),
    _row("batch/v1", "Job", "jobs", sub=_STATUS, everything=True, generation=True),
    _row("batch/v1", "CronJob", "cronjobs", short=("cj",), sub=_STATUS, everything=True, generation=True),
    _row("coordination.k8s.io/v1", "Lease", "leases"),
    _row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", generation=True),
    _row("events.k8s.io/v1", "Event", "events", short=("ev",), storage_name="events"),
    _row("storage.k8s.io/v1", "StorageClass", "storageclasses", short=("sc",), cluster=True),
    _row("storage.k8s.io/v1", "CSIDriver", "csidrivers", cluster=True),
    _row("storage.k8s.io/v1", "CSINode", "csinodes", cluster=True),
    _row("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", cluster=True),
    _row("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", short=("pc",), cluster=True, generation=True),
    _row("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", short=("pdb",), sub=_STATUS, generation=True),
    _row("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", short=("netpol",), generation=True),
    _row("networking.k8s.io/v1", "Ingress", "ingresses", short=("ing",), sub=_STATUS, generation=True),
    _row(_RBAC, "Role", "roles"),
    _row(_RBAC, "RoleBinding", "rolebindings"),
    _row(_RBAC, "ClusterRole", "clusterroles", cluster=True),
    _row(_RBAC, "ClusterRoleBinding", "clusterrolebindings", cluster=True),
    _row(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        short=("crd", "crds"),
        sub=_STATUS,
        cluster=True,
        generation=True,
    ),
    _row(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        cluster=True,
        generation=True,
    ),
    _row(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        cluster=True,
        generation=True,
    ),
    _row(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        sub=_STATUS,
        cluster=True,
        generation=True,
    ),
    _row(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        cluster=True,
        generation=True,
    ),
    _row("authentication.k8s.io/v1", "TokenReview", "tokenreviews", cluster=True, verbs=_CREATE_ONLY),
    _row("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", cluster=True, verbs=_CREATE_ONLY),
    _row("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews", cluster=True, verbs=_CREATE_ONLY),
    _row(
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        cluster=True,
        verbs=_CREATE_ONLY,
    ),
    _row("authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=_CREATE_ONLY),
)


@cache
def builtin_resources() -> tuple[Resource, ...]:
    """Returns the table with the schemas of the Kubernetes release."""
    found: list[Resource] = []
    for row in BUILTIN:
        schema = builtin_schema(row.group, row.version, row.kind)
        found.append(replace(row, schema=schema, ownership_schema=schema))
    return tuple(found)
