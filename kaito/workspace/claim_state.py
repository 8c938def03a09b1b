"""Builds the input of the claim policy from a Workspace, its claims and its nodes.

The claims step of a reconcile and `preview` use it, so that a plan decides about claims as the controller does.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from kaito.api import Claim, Workspace, conditions, labels
from kaito.api.karpenter import NodePool
from kaito.models.instance_types import same_size
from kaito.runtime.meta import Condition, find_condition
from kaito.workspace.alternatives import Choice
from kaito.workspace.claim_policy import ClaimState, ProvisionAttempts
from kaito.workspace.manifests.claim import claim_name
from kaito.workspace.manifests.node_pool import is_pool_claim
from kaito.workspace.nodes import NodesReport
from kaito.workspace.plan import Hardware
from kaito.workspace.pool_policy import PoolState
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.status import claim_condition_type

_CREATION_REJECTED: Final = frozenset(
    {
        conditions.ALTERNATIVES_EXHAUSTED,
        conditions.BUDGET_EXCEEDED,
        conditions.CLAIM_CREATE_FAILED,
        conditions.CLAIM_KIND_MISSING,
        conditions.NODE_CLASS_KIND_MISSING,
        conditions.NODE_CLASS_NOT_FOUND,
        conditions.NODE_CLASS_NOT_READY,
    }
)
"""Reasons of the claims condition if the last reconcile could not create a claim."""

_CLAIMS_UNKNOWN: Final = frozenset({conditions.CLAIM_REPLACEMENT_PENDING, conditions.RECONCILE_ERROR})
"""Reasons of the claims condition with which its message counts claims that need not exist."""

_READY_COUNT: Final = re.compile(r"\d{1,6} of (\d{1,6}) (?:machines|node claims) ready")
"""Start of the message of the claims condition if no claim is missing."""


def wanted_claims(hardware: Hardware, nodes: NodesReport | None, existing: Sequence[Claim]) -> int:
    """Returns the number of nodes to claim: the planned number, less the usable nodes that no claim created."""
    if nodes is None:
        return hardware.count
    claimed = {claim.status.node_name for claim in existing}
    provisioned = (labels.NODEPOOL, labels.PROVISIONER_NAME, labels.MANAGED_BY)
    unclaimed = [
        name
        for name in nodes.usable
        if name not in claimed and not any(key in nodes.by_name[name].labels for key in provisioned)
    ]
    return max(hardware.count - len(unclaimed), 0)


def claim_state(
    workspace: Workspace,
    settings: WorkspaceSettings,
    *,
    now: datetime,
    wanted: int,
    claims: Sequence[Claim],
    nodes: NodesReport | None,
    confirmed: frozenset[str] = frozenset(),
    choice: Choice | None = None,
    not_before: datetime | None = None,
) -> ClaimState:
    """Returns the input of `claim_policy.decide`.

    Args:
        workspace: the Workspace, whose status and annotations contain the record of earlier reconciles.
        settings: of the controller.
        now: the current time.
        wanted: result of `wanted_claims`.
        claims: the Workspace's claims, terminating ones included.
        nodes: the Workspace's nodes; None if they were not observed.
        confirmed: names of absent claims that existed according to an Event.
        choice: the chosen alternative; None if the Workspace names one instance type.
        not_before: earliest time of the next creation, because of a limit of the cost; None for now.
    """
    last = last_claim_condition(workspace, settings)
    attempts = ProvisionAttempts.from_annotations(workspace.annotations)
    times = (not_before, choice.resume_at if choice is not None else None)
    return ClaimState(
        now=now,
        wanted=wanted,
        claims=claims,
        nodes={} if nodes is None else nodes.by_name,
        attempts=attempts,
        expected=_expected(workspace, last, attempts),
        confirmed=confirmed,
        creation_rejected=last is not None and last.reason in _CREATION_REJECTED,
        ready_since=ready_since(workspace, settings),
        foreign=_foreign(claims, choice),
        not_before=max((time for time in times if time is not None), default=None),
        claim_name=lambda index, serial: claim_name(workspace, index=index, serial=serial),
    )


def pool_state(
    workspace: Workspace,
    settings: WorkspaceSettings,
    *,
    now: datetime,
    wanted: int,
    claims: Sequence[Claim],
    pool: NodePool | None,
    not_before: datetime | None,
) -> PoolState:
    """Returns the input of `pool_policy.decide_pool`.

    Args:
        workspace: the Workspace, whose status and annotations contain the record of earlier reconciles.
        settings: of the controller.
        now: the current time.
        wanted: result of `wanted_claims`.
        claims: the Workspace's claims that are not being deleted, those of an earlier `--node-api` included.
        pool: the Workspace's pool; None if it does not exist.
        not_before: earliest time at which the pool may grow; None for now.
    """
    own = [claim for claim in claims if is_pool_claim(workspace, claim)]
    return PoolState(
        now=now,
        wanted=max(wanted - (len(claims) - len(own)), 0),
        replicas=pool.spec.replicas if pool is not None else None,
        claims=own,
        attempts=ProvisionAttempts.from_annotations(workspace.annotations),
        expected=frozenset(workspace.status.claims),
        ready_since=ready_since(workspace, settings),
        not_before=not_before,
    )


def _foreign(claims: Sequence[Claim], choice: Choice | None) -> dict[str, str]:
    """Returns the claims of other instance types than the chosen one, each with the reason to delete it."""
    if choice is None:
        return {}
    chosen = choice.candidate.instance_type
    return {
        claim.name: f"is of instance type {claim.instance_type or 'unknown'}, and the Workspace uses {chosen}"
        for claim in claims
        if not same_size(claim.instance_type, chosen)
    }


def last_claim_condition(workspace: Workspace, settings: WorkspaceSettings) -> Condition | None:
    """Returns the condition of the claims as the last reconcile wrote it."""
    return find_condition(workspace.status.conditions, claim_condition_type(settings.node_api))


def ready_since(workspace: Workspace, settings: WorkspaceSettings) -> datetime | None:
    """Returns since when claims and nodes were all Ready at the end of the last reconcile; None if they were not."""
    last = last_claim_condition(workspace, settings)
    resources = find_condition(workspace.status.conditions, conditions.RESOURCE_READY)
    if last is None or not last.is_true or resources is None or not resources.is_true:
        return None
    return resources.last_transition_time


def _expected(workspace: Workspace, last: Condition | None, attempts: ProvisionAttempts) -> frozenset[str]:
    """Returns the names of the claims that the last reconcile left in place.

    A CRD of an earlier version drops `status.claims`. Then the number in the condition's message and the current serial
    determine the names: without names, no loss would be counted. After a loss, these are only the recorded
    replacements: the serial has increased before a claim of it was created. If the step that creates claims failed, the
    number includes claims that may never have been created.
    """
    if last is None:
        return frozenset()
    if workspace.status.claims:
        return frozenset(workspace.status.claims)
    counted = _READY_COUNT.match(last.message)
    if counted is None or last.status == "Unknown" or last.reason in _CLAIMS_UNKNOWN:
        return frozenset()
    wanted = min(int(counted.group(1)), workspace.status.target_node_count)
    names = frozenset(claim_name(workspace, index=index, serial=attempts.serial) for index in range(wanted))
    return names & frozenset(attempts.issued) if attempts.failures else names
