"""Rejects the deletion of an installation while it is in use, because GPU nodes would remain and cost money.

`kubectl delete -k config/default` sends all its requests at once. Roles, controllers and their namespace would be
deleted before the finalizers of Workspaces and claims are processed, and the GPU nodes would never be deleted.
Therefore, while a Workspace or a claim exists, a ValidatingAdmissionPolicy rejects the deletion of the objects with the
label of the installation, of the cluster and of its namespaces. It also applies while no controller runs.

The policy is not part of the installation's manifests: it would be deleted with them, and a policy cannot protect
policies. The leader creates it with the first Workspace and deletes it after the last one (see
`docs/guides/uninstall.md`).
"""

import hashlib
import json
from typing import Any, Final, TypeVar, final

from kaito.api import Claim, Machine, NodeClaim, Workspace, labels
from kaito.runtime import Again, Api
from kaito.runtime.cache import Derived, EventType
from kaito.runtime.controller import Controller, Keyed
from kaito.runtime.errors import Forbidden, NotFound
from kaito.runtime.kinds import Namespace
from kaito.runtime.meta import LabelSelector, ObjectKey, ObjectMeta, Resource
from kaito.runtime.predicate import on
from kaito.runtime.reconcile import KeyedRequest
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.settings import WorkspaceSettings

POLICY_NAME: Final = "kaito-in-use"
"""Name of the policy and of its binding."""

MESSAGE: Final = (
    "Kaito is in use: Workspaces or their Machines or NodeClaims exist, and without this object the GPU nodes behind "
    "them would never be deleted. Delete them first: kubectl delete inferencesets,workspaces --all --all-namespaces; "
    "when 'kubectl get machines,nodeclaims' shows none of them, repeat this command (docs/guides/uninstall.md)"
)

C = TypeVar("C", bound=Claim)

KEY: Final = "installation"
RESYNC_SECONDS: Final = 300.0
"""Interval at which the policy is reconciled without an event."""

SPACING_SECONDS: Final = 2.0
"""Minimum time between two reconciles, however many Workspaces are created and deleted."""

_DIGEST: Final = "kaito.sh/spec-digest"


class ValidatingAdmissionPolicy(
    Resource,
    api="admissionregistration.k8s.io/v1",
    kind="ValidatingAdmissionPolicy",
    plural="validatingadmissionpolicies",
    namespaced=False,
):
    """The kind ValidatingAdmissionPolicy."""

    spec: dict[str, Any] = {}


class ValidatingAdmissionPolicyBinding(
    Resource, api="admissionregistration.k8s.io/v1", kind="ValidatingAdmissionPolicyBinding", namespaced=False
):
    """The kind ValidatingAdmissionPolicyBinding, which puts a policy into force."""

    spec: dict[str, Any] = {}


POLICY_KINDS: Final = (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding)


def policy(namespace: str = "") -> ValidatingAdmissionPolicy:
    """Returns the policy that rejects the deletion of every object with the label of the installation.

    Namespaced objects are protected in the namespace of the controller, and in namespaces with the label, which only
    administrators can set: otherwise, every user could create pods that not even a kubelet can delete.
    """
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["*"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [everything],
            "objectSelector": {"matchLabels": {labels.INSTALLATION: labels.TRUE}},
        },
        "validations": [{"expression": f"!({_in_installation(namespace)})", "message": MESSAGE, "reason": "Forbidden"}],
    }
    return ValidatingAdmissionPolicy(metadata=_metadata(spec), spec=spec)


def _in_installation(namespace: str) -> str:
    """Returns the CEL expression that is true for objects of the cluster, and of the namespaces of the installation."""
    marks = "namespaceObject.metadata.labels"
    key, value = json.dumps(labels.INSTALLATION), json.dumps(labels.TRUE)
    terms = ["namespaceObject == null", f"(has({marks}) && {key} in {marks} && {marks}[{key}] == {value})"]
    if namespace:
        terms.append(f"namespaceObject.metadata.name == {json.dumps(namespace)}")
    return " || ".join(terms)


def binding() -> ValidatingAdmissionPolicyBinding:
    """Returns the binding that puts the policy into force in the whole cluster."""
    spec = {"policyName": POLICY_NAME, "validationActions": ["Deny"]}
    return ValidatingAdmissionPolicyBinding(metadata=_metadata(spec), spec=spec)


def _metadata(spec: dict[str, Any]) -> ObjectMeta:
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return ObjectMeta(name=POLICY_NAME, annotations={_DIGEST: digest})


WORKSPACE_KEYS: Final = Derived(Workspace, lambda workspace: workspace.key)


@final
class InstallationGuard:
    """Creates the policy while Workspaces or claims exist, and deletes it otherwise."""

    def __init__(self, settings: WorkspaceSettings) -> None:
        self._claims = claim_kind(settings.node_api)
        self._namespace = settings.namespace
        self._has_warned = False
        self._known_workspace: ObjectKey | None = None
        """A Workspace that existed at the last reconcile. While it exists, the others need not be listed."""

    async def reconcile(self, request: KeyedRequest[str]) -> Again:
        """Creates or deletes the policy. A cluster that does not serve or permit such policies has no guard."""
        try:
            if await self._is_in_use(request.api):
                await self._apply_policy(request)
            else:
                await self._delete_policy(request)
        except (NotFound, Forbidden) as error:
            request.log.warning(
                "installation guard not applied, the installation can be deleted while Workspaces exist",
                error=error.message,
            )
        return Again(RESYNC_SECONDS, "resync")

    async def _is_in_use(self, api: Api) -> bool:
        known = self._known_workspace
        if known is not None and await api.find(Workspace, known.name, known.namespace) is not None:
            return True
        workspaces = await api.values(WORKSPACE_KEYS)
        self._known_workspace = workspaces[0] if workspaces else None
        if workspaces:
            return True
        for kind in (Machine, NodeClaim):
            found = list(await api.list(kind)) if kind is self._claims else await _live_claims(api, kind)
            if any(labels.WORKSPACE in claim.labels for claim in found):
                return True
        return False

    async def _apply_policy(self, request: KeyedRequest[str]) -> None:
        for wanted in (policy(self._namespace), binding()):
            present = await request.api.find(type(wanted), POLICY_NAME)
            if present is None or present.annotations.get(_DIGEST) != wanted.annotations[_DIGEST]:
                await request.api.apply(wanted)
                request.log.info("installation guard applied: Workspaces exist", kind=wanted.kind)
        await self._check_namespace(request)

    async def _check_namespace(self, request: KeyedRequest[str]) -> None:
        """Warns once if the namespace of the installation lacks the label, as after an installation with Helm."""
        if not self._namespace or self._has_warned:
            return
        namespace = await request.api.find(Namespace, self._namespace)
        if namespace is None or namespace.labels.get(labels.INSTALLATION) == labels.TRUE:
            return
        self._has_warned = True
        command = f"kubectl label namespace {self._namespace} {labels.INSTALLATION}={labels.TRUE}"
        request.log.warning(
            "the namespace of the installation can be deleted while Workspaces exist, because it has no label",
            namespace=self._namespace,
            remedy=command,
        )

    async def _delete_policy(self, request: KeyedRequest[str]) -> None:
        for kind in reversed(POLICY_KINDS):
            present = await request.api.find(kind, POLICY_NAME)
            if present is not None and not present.deleting:
                await request.api.delete(present)
                request.log.info("installation guard deleted: no Workspace exists", kind=kind.kind)


async def _live_claims(api: Api, kind: type[C]) -> list[C]:
    """Lists claims of a kind that is not cached; returns none if the cluster does not serve the kind."""
    try:
        return list(await api.list(kind, labels=LabelSelector.parse(labels.WORKSPACE), consistency="live"))
    except NotFound:
        return []


def installation_guard(settings: WorkspaceSettings) -> Keyed[str]:
    """Returns the controller; the creation or deletion of a Workspace or claim queues one reconcile."""
    guard = InstallationGuard(settings)
    controller = Controller.keyed(str, guard.reconcile, name="installation-guard", spacing=SPACING_SECONDS)
    controller.watches(Workspace, to=lambda _, __: KEY, when=on(EventType.CREATE, EventType.DELETE))
    kind = claim_kind(settings.node_api)
    if kind is not None:
        controller.watches(kind, to=lambda _, __: KEY, when=on(EventType.CREATE, EventType.DELETE))
    return controller
