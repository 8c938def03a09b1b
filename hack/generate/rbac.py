"""The permissions of each program in the cluster, declared once; `generate.py` writes it to `config/rbac`.

Least privilege: every verb is used by the code that its comment names. Server-side apply needs
`create` and `patch`; `get list watch` are an informer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NAMESPACE = "kaito-system"
INFORMER = ("get", "list", "watch")
APPLY = ("create", "patch")
LEASE = ("get", "create", "update")
"""Leader election: upstream Kaito's role lacks update, so its leader can never renew."""


@dataclass(frozen=True)
class Rule:
    """An RBAC rule and its reason."""

    why: str
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()

    def manifest(self) -> dict[str, Any]:
        """The entry of `rules`."""
        entry: dict[str, Any] = {"apiGroups": list(self.groups), "resources": list(self.resources)}
        if self.names:
            entry["resourceNames"] = list(self.names)
        return entry | {"verbs": list(self.verbs)}


@dataclass(frozen=True)
class Program:
    """A program, its service account and its rules."""

    name: str
    cluster: tuple[Rule, ...]
    namespaced: tuple[Rule, ...]
    account_annotations: tuple[tuple[str, str], ...] = ()

    def metrics_auth(self) -> list[dict[str, Any]]:
        """Role and binding for `--metrics-secure`."""
        name = f"{self.name}{METRICS_AUTH}"
        return [_role("ClusterRole", name, _ACCESS_REVIEWS), self._binding("ClusterRole", name)]

    def manifests(self) -> list[dict[str, Any]]:
        """ServiceAccount, roles and bindings."""
        account: dict[str, Any] = {"name": self.name, "namespace": NAMESPACE}
        if self.account_annotations:
            account["annotations"] = dict(self.account_annotations)
        cluster = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
            _role("ClusterRole", self.name, self.cluster),
            self._binding("ClusterRole"),
        ]
        own = [_role("Role", self.name, self.namespaced), self._binding("Role")]
        return [*cluster, *(own if self.namespaced else [])]

    def _binding(self, kind: str, name: str = "") -> dict[str, Any]:
        name = name or self.name
        metadata = {"name": name} | ({"namespace": NAMESPACE} if kind == "Role" else {})
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": NAMESPACE}],
        }


def _role(kind: str, name: str, rules: Iterable[Rule], labels: dict[str, str] | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name} | ({"namespace": NAMESPACE} if kind == "Role" else {})
    if labels:
        metadata["labels"] = labels
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "rules": [rule.manifest() for rule in rules],
    }


_EVENTS = Rule("events on the objects they concern", ("events.k8s.io",), ("events",), APPLY)
_ELECTION = Rule("leader election", ("coordination.k8s.io",), ("leases",), LEASE)
_ACCESS_REVIEWS = (
    Rule("authenticate the client of secured metrics", ("authentication.k8s.io",), ("tokenreviews",), ("create",)),
    Rule("authorize the client", ("authorization.k8s.io",), ("subjectaccessreviews",), ("create",)),
)
METRICS_AUTH = "-metrics-auth"
"""Suffix of the role for secured metrics, which only installations with `--metrics-secure` have."""

WORKSPACE_CONTROLLER = Program(
    "workspace-controller",
    cluster=(
        Rule("the kind it reconciles; patch for the finalizer and revision; create and delete those of InferenceSets",
             ("kaito.sh",), ("workspaces",), (*INFORMER, *APPLY, "delete")),
        Rule("InferenceSets; patch for the finalizer", ("kaito.sh",), ("inferencesets",), (*INFORMER, "patch")),
        Rule("their status", ("kaito.sh",), ("workspaces/status", "inferencesets/status"), ("patch",)),
        Rule("owner references that block deletion", ("kaito.sh",),
             ("workspaces/finalizers", "inferencesets/finalizers"), ("update",)),
        Rule("claims: one per node", ("karpenter.sh",), ("machines", "nodeclaims"), (*INFORMER, "create", "delete")),
        Rule("their budget", ("",), ("namespaces",), INFORMER),
        Rule("readiness and GPU capacity; patch labels them", ("",), ("nodes",), (*INFORMER, "patch")),
        Rule("why a workload is not ready; delete those that block an update", ("",), ("pods",),
             (*INFORMER, "delete")),
        Rule("the way to the workload", ("",), ("services",), (*INFORMER, *APPLY)),
        Rule("the pools and routes of InferenceSets, with --inference-gateway", ("inference.networking.k8s.io",),
             ("inferencepools",), (*INFORMER, *APPLY)),
        Rule("the same", ("gateway.networking.k8s.io",), ("httproutes",), (*INFORMER, *APPLY)),
        Rule("the way to the activator; its addresses", ("discovery.k8s.io",), ("endpointslices",),
             (*INFORMER, *APPLY, "delete")),
        Rule("the ports between the nodes of one copy", ("networking.k8s.io",), ("networkpolicies",),
             (*INFORMER, *APPLY, "delete")),
        Rule("edits of a configuration; the training configuration; what servers measured", ("",), ("configmaps",),
             (*INFORMER, *APPLY)),
        Rule("serving", ("apps",), ("statefulsets",), (*INFORMER, *APPLY, "delete")),
        Rule("tuning", ("batch",), ("jobs",), (*INFORMER, *APPLY, "delete")),
        Rule("why a claim was lost, why a workload has no pods; read for one object, never watched",
             ("events.k8s.io",), ("events",), ("list",)),
        Rule("presence of the Secrets a Workspace names; never listed", ("",), ("secrets",), ("get",)),
        Rule("presence of what a pod uses", ("",), ("persistentvolumeclaims", "serviceaccounts"), ("get",)),
        Rule("the same: classes of priority", ("scheduling.k8s.io",), ("priorityclasses",), ("get",)),
        Rule("the same: classes of runtimes", ("node.k8s.io",), ("runtimeclasses",), ("get",)),
        Rule("which webhook configurations point here", ("admissionregistration.k8s.io",),
             ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"), ("list",)),
        Rule("the CA bundle in ours", ("admissionregistration.k8s.io",), ("validatingwebhookconfigurations",),
             ("patch",), names=("validation.workspace.kaito.sh", "validation.inferenceset.kaito.sh")),
        Rule("the same", ("admissionregistration.k8s.io",), ("mutatingwebhookconfigurations",),
             ("patch",), names=("defaulting.workspace.kaito.sh",)),
        Rule("the policy that protects an installation in use; its name cannot limit create",
             ("admissionregistration.k8s.io",),
             ("validatingadmissionpolicies", "validatingadmissionpolicybindings"), ("create",)),
        Rule("the same, compared and deleted", ("admissionregistration.k8s.io",),
             ("validatingadmissionpolicies", "validatingadmissionpolicybindings"), ("get", "patch", "delete"),
             names=("kaito-in-use",)),
        _EVENTS,
    ),
    namespaced=(
        _ELECTION,
        Rule("the webhook's certificate; its name cannot limit create", ("",), ("secrets",), ("create",)),
        Rule("the same, rotated", ("",), ("secrets",), ("get", "update"),
             names=("workspace-controller-webhook-cert",)),
    ),
)  # fmt: skip

WORKSPACE_ACTIVATOR = Program(
    "workspace-activator",
    cluster=(
        Rule("which Workspaces scale to zero, and when they are ready", ("kaito.sh",), ("workspaces",), INFORMER),
        Rule("wake them", ("kaito.sh",), ("workspaces/scale",), ("patch",)),
        Rule("their ports", ("discovery.k8s.io",), ("endpointslices",), INFORMER),
        Rule("their ready copies", ("",), ("pods",), INFORMER),
        Rule("sets that KEDA scales", ("kaito.sh",), ("inferencesets",), INFORMER),
    ),
    namespaced=(),
)
"""The activator, which is installed for scaling to zero and for KEDA only."""

GPU_PROVISIONER = Program(
    "gpu-provisioner",
    cluster=(
        Rule("the kinds it reconciles; delete replaces claims that cannot launch", ("karpenter.sh",),
             ("machines", "nodeclaims"), (*INFORMER, "patch", "delete")),
        Rule("their status", ("karpenter.sh",), ("machines/status", "nodeclaims/status"), ("patch",)),
        Rule("owner references that block deletion", ("karpenter.sh",),
             ("machines/finalizers", "nodeclaims/finalizers"), ("update",)),
        Rule("registration, initialization, termination", ("",), ("nodes",), (*INFORMER, "patch", "delete")),
        Rule("draining a node; delete where the grace period is over", ("",), ("pods",), ("get", "list", "delete")),
        Rule("the same", ("",), ("pods/eviction",), ("create",)),
        Rule("volumes that a node still holds", ("storage.k8s.io",), ("volumeattachments",), ("list",)),
        Rule("whose volumes those are", ("",), ("persistentvolumeclaims",), ("get",)),
        Rule("the cluster's identity, its UID", ("",), ("namespaces",), ("get",), names=("kube-system",)),
        _EVENTS,
    ),
    namespaced=(_ELECTION,),
)  # fmt: skip

CONSOLE = Program(
    "kaito-console",
    cluster=(
        Rule("the Workspaces that it shows", ("kaito.sh",), ("workspaces",), INFORMER),
        Rule("their claims", ("karpenter.sh",), ("machines", "nodeclaims"), INFORMER),
        Rule("their nodes, pods and Services; which namespaces exist", ("",),
             ("nodes", "pods", "services", "namespaces"), INFORMER),
        Rule("their workloads; settings of the controllers", ("apps",), ("statefulsets", "deployments"), INFORMER),
        Rule("tuning", ("batch",), ("jobs",), INFORMER),
        Rule("what happened to them", ("events.k8s.io",), ("events",), INFORMER),
        Rule("identify a user by the token", ("authentication.k8s.io",), ("tokenreviews",), ("create",)),
        Rule("the rights of the user", ("authorization.k8s.io",), ("subjectaccessreviews",), ("create",)),
    ),
    namespaced=(),
)  # fmt: skip
"""The console in a cluster. It reads; writes are sent with the token of the user."""

_WORKSPACES = Rule("", ("kaito.sh",), ("workspaces", "inferencesets"),
                   (*INFORMER, "create", "update", "patch", "delete"))  # fmt: skip
_SCALE = Rule("", ("kaito.sh",), ("workspaces/scale", "inferencesets/scale"), ("get", "update", "patch"))
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def metrics_reader() -> dict[str, Any]:
    """The role of a client of secured metrics, such as Prometheus."""
    rules = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    return _role("ClusterRole", "kaito-metrics-reader", ()) | {"rules": rules}


def user_roles() -> list[dict[str, Any]]:
    """Roles for people, added to the cluster's own admin, edit and view."""
    kinds = ("workspaces", "workspaces/status", "inferencesets", "inferencesets/status")
    read = Rule("", ("kaito.sh",), kinds, INFORMER)
    editors = {f"{_AGGREGATE}admin": "true", f"{_AGGREGATE}edit": "true"}
    return [
        _role("ClusterRole", "workspace-editor", (_WORKSPACES, _SCALE, read), editors),
        _role("ClusterRole", "workspace-viewer", (read,), {f"{_AGGREGATE}view": "true"}),
    ]
