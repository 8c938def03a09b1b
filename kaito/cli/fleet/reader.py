"""Reads the Workspaces of a cluster with their nodes, their cost and their load."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar, final

from kaito.api import Claim, Machine, NodeClaim, Workspace, WorkspaceV1Alpha1, labels
from kaito.api.workspace import CostStatus
from kaito.cli.fleet.load import Load, LoadReader
from kaito.runtime.client import Client
from kaito.runtime.errors import KaitoRuntimeError, NotFound
from kaito.runtime.kinds import Node, Pod
from kaito.runtime.meta import Resource
from kaito.workspace.cost_ledger import account, idle_share, node_hours_at, rate_of, started_at, total_at
from kaito.workspace.costs import NodePrices
from kaito.workspace.ownership import owner_key, owns_claim
from kaito.workspace.settings import WorkspaceSettings

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

_ZERO: Final = Decimal(0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One Workspace. What is unknown is None."""

    namespace: str
    name: str
    tuning: bool
    state: str
    copies: int
    ready: int
    nodes: int
    instance_type: str
    currency: str = ""
    per_hour: Decimal | None = None
    idle_per_hour: Decimal | None = None
    idle_reason: str = ""
    """Why nodes do nothing useful; empty if all do."""
    total: Decimal | None = None
    """Cost since the creation of the Workspace."""
    node_hours: Decimal | None = None
    created: datetime | None = None
    inference_set: str = ""
    """The InferenceSet that created it; empty for none."""
    load: Load | None = None
    """What the servers do; None if they could not be read, or there are none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The Workspaces of a cluster or of a namespace."""

    now: datetime
    rows: Sequence[Row]
    orphans: Sequence[str] = ()
    """Claims whose Workspace does not exist, `KIND NAME`; only of all namespaces."""
    orphan_rates: Mapping[str, Decimal]
    """Cost per hour of these claims, by currency; those whose price is known."""
    notes: Sequence[str] = ()


@final
class FleetReader:
    """Reads one cluster."""

    def __init__(
        self, client: Client, load: LoadReader | None, prices: NodePrices | None = None, region: str = ""
    ) -> None:
        self._client, self._load = client, load
        self._prices = prices or NodePrices()
        self._settings = WorkspaceSettings(region=region)
        self._unread: dict[str, str] = {}

    async def read(self, namespace: str, now: datetime) -> Fleet:
        """Returns the Workspaces of a namespace; of all if it is empty.

        Raises:
            KaitoRuntimeError: the Workspaces cannot be read.
        """
        self._unread = {}
        workspaces = await self._workspaces(namespace)
        machines, node_claims, nodes, pods = await asyncio.gather(
            self._list("claims", Machine, labels=labels.WORKSPACE),
            self._list("claims", NodeClaim, labels=labels.WORKSPACE),
            self._list("nodes", Node, labels=labels.WORKSPACE),
            self._pods(namespace),
        )
        claims: list[Claim] = [*machines, *node_claims]
        loads = await self._load.read(pods) if self._load is not None else {}
        by_name = {node.name: node for node in nodes}
        rows = [
            self._row(workspace, claims, by_name, loads.get((workspace.namespace, workspace.name)), now)
            for workspace in workspaces
        ]
        orphans = [] if namespace else self._orphans(workspaces, claims)
        if self._load is not None and self._load.problem:
            self._unread["requests"] = self._load.problem
        return Fleet(
            now=now,
            rows=rows,
            orphans=[f"{claim.kind} {claim.name}" for claim in orphans],
            orphan_rates=self._rates(orphans, by_name),
            notes=[f"{what} could not be read: {why}" for what, why in sorted(self._unread.items())],
        )

    async def _workspaces(self, namespace: str) -> Sequence[Workspace]:
        try:
            return await self._client.list(Workspace, namespace=namespace)
        except NotFound:
            return await self._client.list(WorkspaceV1Alpha1, namespace=namespace)

    async def _pods(self, namespace: str) -> Sequence[Pod]:
        if self._load is None:
            return ()
        return await self._list("requests", Pod, namespace=namespace, labels=labels.WORKSPACE)

    async def _list(self, what: str, kind: type[R], *, namespace: str = "", labels: str | None = None) -> Sequence[R]:
        nothing: Sequence[R] = ()
        return await self._tried(what, self._listed(kind, namespace, labels), nothing)

    async def _listed(self, kind: type[R], namespace: str, labels: str | None) -> Sequence[R]:
        return await self._client.list(kind, namespace=namespace, labels=labels)

    async def _tried(self, what: str, read: Awaitable[T], default: T) -> T:
        try:
            return await read
        except NotFound:
            return default  # the cluster does not serve the kind
        except KaitoRuntimeError as error:
            self._unread[what] = str(error)
            return default

    def _row(
        self,
        workspace: Workspace,
        claims: Sequence[Claim],
        nodes: Mapping[str, Node],
        load: Load | None,
        now: datetime,
    ) -> Row:
        own = [claim for claim in claims if owns_claim(workspace, claim)]
        cost, is_recorded = workspace.status.cost, True
        if cost is None and own:
            # Another controller, or one of an earlier version: the nodes that exist now, without deleted ones.
            cost = account(None, self._prices.instances(own, nodes, self._settings), now=now)
            is_recorded = False
        count = len(cost.nodes) if cost is not None else len(workspace.status.worker_nodes)
        share, reason = idle_share(workspace)
        per_hour = _rate(cost)
        status = workspace.status
        return Row(
            namespace=workspace.namespace,
            name=workspace.name,
            tuning=workspace.tuning is not None,
            state="Deleting" if workspace.deleting else status.state or _state_of_upstream(workspace),
            copies=_copies(workspace),
            ready=status.ready_replicas,
            nodes=count,
            instance_type=status.instance_type or workspace.resource.instance_type,
            currency=cost.currency if cost is not None else "",
            per_hour=per_hour,
            idle_per_hour=per_hour * share if per_hour is not None and is_recorded else None,
            idle_reason=reason if share and count and is_recorded else "",
            total=total_at(cost, now) if cost is not None and is_recorded else None,
            node_hours=node_hours_at(cost, now) if cost is not None and is_recorded else None,
            created=workspace.metadata.creation_timestamp,
            inference_set=workspace.labels.get(labels.CREATED_BY_INFERENCESET, ""),
            load=load,
        )

    def _orphans(self, workspaces: Sequence[Workspace], claims: Sequence[Claim]) -> list[Claim]:
        """Returns the claims with an instance whose Workspace does not exist."""
        by_key = {workspace.key: workspace for workspace in workspaces}

        def is_orphan(claim: Claim) -> bool:
            key = owner_key(claim)
            owner = by_key.get(key) if key is not None else None
            has_owner = owner is not None and owns_claim(owner, claim)
            return key is not None and not has_owner and started_at(claim, None) is not None

        return [claim for claim in claims if is_orphan(claim)]

    def _rates(self, claims: Sequence[Claim], nodes: Mapping[str, Node]) -> dict[str, Decimal]:
        found: dict[str, Decimal] = {}
        for claim in claims:
            price = self._prices.find(claim, nodes.get(claim.status.node_name), self._settings)
            if price is not None:
                found[price.currency] = found.get(price.currency, _ZERO) + price.per_hour
        return found


def _rate(cost: CostStatus | None) -> Decimal | None:
    """Returns the cost per hour; None if the price of a node is unknown, or nothing is known about the nodes."""
    if cost is None or not cost.currency or any(node.per_hour is None for node in cost.nodes):
        return None
    return rate_of(cost.nodes)


def _state_of_upstream(workspace: Workspace) -> str:
    conditions = {condition.type: condition.is_true for condition in workspace.status.conditions}
    if not conditions:
        return "Unknown"
    return "Ready" if conditions.get("WorkspaceSucceeded") else "NotReady"


def _copies(workspace: Workspace) -> int:
    if workspace.tuning is not None:
        return 1
    replicas = workspace.spec.replicas
    return replicas if replicas is not None else workspace.resource.count


def sorted_rows(rows: Sequence[Row], key: str, *, reverse: bool = False) -> list[Row]:
    """Returns the rows in an order: amounts descending with unknown ones last, names ascending."""
    amounts: dict[str, Callable[[Row], Decimal | float | None]] = {
        "price": lambda row: row.per_hour,
        "idle": lambda row: row.idle_per_hour,
        "total": lambda row: row.total,
        "nodes": lambda row: row.nodes,
        "age": lambda row: -row.created.timestamp() if row.created is not None else None,
        "running": lambda row: row.load.running if row.load is not None else None,
        "waiting": lambda row: row.load.waiting if row.load is not None else None,
    }
    names: dict[str, Callable[[Row], tuple[str, ...]]] = {
        "name": lambda row: (row.name, row.namespace),
        "namespace": lambda row: (row.namespace, row.name),
        "state": lambda row: (row.state, row.namespace, row.name),
    }
    ordered = sorted(rows, key=names.get(key, names["namespace"]))
    if key in amounts:
        amount = amounts[key]
        ordered.sort(key=lambda row: (0, 0.0) if (value := amount(row)) is None else (1, float(value)), reverse=True)
    return ordered[::-1] if reverse else ordered
