"""Protects an installation that is in use from being deleted: GPU nodes without their controllers stay and cost money.

`kubectl delete -k config/default` sends all its requests at once. Roles, controllers and their namespace would be gone
before the finalizers of Workspaces and claims are served, and the GPU nodes would never be deleted. Therefore, while a
Workspace or one of its claims exists, a ValidatingAdmissionPolicy makes the API server refuse the deletion of every
object that carries the label of the installation. The policy is not among the manifests of the installation (it would
be deleted with them, and no policy can protect policies): the leader creates it with the first Workspace and deletes
it after the last one. It holds also while no controller runs. See `docs/guides/uninstall.md`.
"""

import hashlib
import json
from typing import Any, Final, TypeVar, final

from kaito.api import Claim, Machine, NodeClaim, Workspace, labels
from kaito.runtime import Again, Api
from kaito.runtime.cache import EventType
from kaito.runtime.controller import Controller, Keyed
from kaito.runtime.errors import Forbidden, NotFound
from kaito.runtime.meta import LabelSelector, ObjectKey, ObjectMeta, Resource
from kaito.runtime.predicate import on
from kaito.runtime.reconcile import KeyedRequest
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.settings import WorkspaceSettings

NAME: Final = "kaito-in-use"
"""Of the policy and of its binding."""

MESSAGE: Final = (
    "Kaito is in use: Workspaces or their Machines or NodeClaims exist, and without this object the GPU nodes behind "
    "them would never be deleted. Delete the Workspaces first: kubectl delete workspaces --all --all-namespaces; when "
    "'kubectl get machines,nodeclaims' shows none of them, repeat this command (docs/guides/uninstall.md)"
)

C = TypeVar("C", bound=Claim)

KEY: Final = "installation"
AGAIN_SECONDS: Final = 300.0
"""How often the policy is compared without an event."""

SPACING_SECONDS: Final = 2.0
"""Least time between two comparisons, however many Workspaces come and go."""

_DIGEST: Final = "kaito.sh/spec-digest"


class ValidatingAdmissionPolicy(
    Resource,
    api="admissionregistration.k8s.io/v1",
    kind="ValidatingAdmissionPolicy",
    plural="validatingadmissionpolicies",
    namespaced=False,
):
    """A rule that the API server itself enforces."""

    spec: dict[str, Any] = {}


class ValidatingAdmissionPolicyBinding(
    Resource, api="admissionregistration.k8s.io/v1", kind="ValidatingAdmissionPolicyBinding", namespaced=False
):
    """What puts a policy into force."""

    spec: dict[str, Any] = {}


KINDS: Final = (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding)


def policy() -> ValidatingAdmissionPolicy:
    """Refuses to delete anything with the label of the installation."""
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["*"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [everything],
            "objectSelector": {"matchLabels": {labels.INSTALLATION: labels.TRUE}},
        },
        "validations": [{"expression": "false", "message": MESSAGE, "reason": "Forbidden"}],
    }
    return ValidatingAdmissionPolicy(metadata=_metadata(spec), spec=spec)


def binding() -> ValidatingAdmissionPolicyBinding:
    """Puts the policy into force in the whole cluster."""
    spec = {"policyName": NAME, "validationActions": ["Deny"]}
    return ValidatingAdmissionPolicyBinding(metadata=_metadata(spec), spec=spec)


def _metadata(spec: dict[str, Any]) -> ObjectMeta:
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return ObjectMeta(name=NAME, annotations={_DIGEST: digest})


@final
class InstallationGuard:
    """Keeps the policy as long as Workspaces or claims exist."""

    def __init__(self, settings: WorkspaceSettings) -> None:
        self._claims = claim_kind(settings.node_api)
        self._witness: ObjectKey | None = None
        """A Workspace that existed at the last comparison: as long as it does, the others need not be listed."""

    async def converge(self, visit: KeyedRequest[str]) -> Again:
        """Create the policy, or delete it. A cluster without such policies, or without the right to, has no guard."""
        try:
            if await self._is_in_use(visit.api):
                await self._protect(visit)
            else:
                await self._release(visit)
        except (NotFound, Forbidden) as refused:
            visit.log.warning(
                "installation guard not applied, the installation can be deleted while Workspaces exist",
                error=refused.message,
            )
        return Again(AGAIN_SECONDS, "comparison")

    async def _is_in_use(self, api: Api) -> bool:
        seen = self._witness
        if seen is not None and await api.find(Workspace, seen.name, seen.namespace) is not None:
            return True
        workspaces = await api.list(Workspace)
        self._witness = workspaces[0].key if workspaces else None
        if workspaces:
            return True
        for kind in (Machine, NodeClaim):
            found = list(await api.list(kind)) if kind is self._claims else await _live_claims(api, kind)
            if any(labels.WORKSPACE in claim.labels for claim in found):
                return True
        return False

    async def _protect(self, visit: KeyedRequest[str]) -> None:
        for wanted in (policy(), binding()):
            present = await visit.api.find(type(wanted), NAME)
            if present is None or present.annotations.get(_DIGEST) != wanted.annotations[_DIGEST]:
                await visit.api.apply(wanted)
                visit.log.info("installation guard applied: Workspaces exist", kind=wanted.kind)

    async def _release(self, visit: KeyedRequest[str]) -> None:
        for kind in reversed(KINDS):
            present = await visit.api.find(kind, NAME)
            if present is not None and not present.deleting:
                await visit.api.delete(present)
                visit.log.info("installation guard deleted: no Workspace exists", kind=kind.kind)


async def _live_claims(api: Api, kind: type[C]) -> list[C]:
    """Claims of the kind that is not in use here; none when the cluster does not know it."""
    try:
        return list(await api.list(kind, labels=LabelSelector.parse(labels.WORKSPACE), consistency="live"))
    except NotFound:
        return []


def installation_guard(settings: WorkspaceSettings) -> Keyed[str]:
    """The controller: the creation or deletion of a Workspace or claim queues one comparison."""
    guard = InstallationGuard(settings)
    controller = Controller.keyed(str, guard.converge, name="installation-guard", spacing=SPACING_SECONDS)
    controller.watches(Workspace, to=lambda _, __: KEY, when=on(EventType.CREATE, EventType.DELETE))
    kind = claim_kind(settings.node_api)
    if kind is not None:
        controller.watches(kind, to=lambda _, __: KEY, when=on(EventType.CREATE, EventType.DELETE))
    return controller
