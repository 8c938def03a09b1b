"""The reference model: what must hold in Kaito's world, computed from the state of the cluster and the cloud alone.

It shares no code with the controllers' decisions. Bounds are times for which a state may last while nothing fails.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, final

from kaito.api.karpenter import Claim
from kaito.runtime.meta import Resource
from kaito.runtime.testing.simulate import Finding, Run
from kaito.simulation.cloud import SimulatedCloud
from kaito.simulation.cluster import GPU, is_ready
from kaito.simulation.manifests import (
    Object,
    condition,
    entries,
    has_condition,
    is_terminating,
    labels_of,
    name_of,
    section,
)
from kaito.simulation.plans import copies_of, nodes_on, nodes_per_copy, size_of, sizes_of, usable_sizes
from kaito.simulation.spending import Spending
from kaito.simulation.workspaces import UNKNOWN_SIZE

Key = tuple[str, str]

STALE_SECONDS: Final = 180.0
"""How long a condition may be True although the state that it reports has ended."""

LATE_SECONDS: Final = 600.0
"""How long a condition may be other than True although everything that it reports holds."""

CAUSE_SECONDS: Final = 180.0
"""How long an object may wait without a cause in its conditions."""

ORPHAN_SECONDS: Final = 1200.0
"""How long an instance may exist without its claim: its age of 300 s, two collections, its deletion, a new leader."""

SURPLUS_SECONDS: Final = 1200.0
"""How long a Workspace may have more claims than planned, after an edit or a deletion."""

DELETION_SECONDS: Final = 3600.0
"""How long an object may be terminating. The controller removes its finalizer from a Workspace after 1,200 s."""

EMPTY_SECONDS: Final = 600.0
"""How long a Workspace without claims may be terminating."""

CLAIMS_PER_HOUR: Final = 20
"""Claims that may be created for one node of a Workspace in an hour, with backoff from 30 s to 15 min."""

BROKEN_SECONDS: Final = 1000.0
"""How long a node may be not ready until its claim is deleted: 600 s (`--node-unhealthy-timeout`), and a new leader."""

UNLAUNCHED_SECONDS: Final = 1300.0
"""How long a claim may have no instance until it is deleted: 900 s (`--node-provision-timeout`), and a new leader."""

FAILED_SECONDS: Final = 900.0
"""How long a failed agent pool may exist."""

NOTICE_SECONDS: Final = 20.0
"""How long a node may be terminating until its claim is deleted, while gpu-provisioner has a leader."""

_PROVISIONER_LEASE: Final = "gpu-provisioner"

COUNTED_SECONDS: Final = 60.0
"""How long a loss may be counted before the claim is deleted: the record is written first."""

SERVICE_SECONDS: Final = 120.0
"""How long a Workspace may be ready without its Service."""

DELETION_TIMEOUT_SECONDS: Final = 1200.0
"""After this time a Workspace is removed although claims exist (`--deletion-timeout`)."""

PAUSE_SECONDS: Final = 25.0
"""Shortest time between the loss of a claim and its replacement. The controller waits 30 s after the first loss."""

SERVING_CONDITIONS: Final = ("ResourceReady", "InferenceReady", "WorkspaceReady")
TUNING_CONDITIONS: Final = ("ResourceReady", "WorkspaceReady")


@final
@dataclass(slots=True)
class _Places:
    """The places for claims of one Workspace."""

    wanted: int
    size: str = ""
    """The instance type of the claims."""
    is_filled: bool = False
    """Whether the claims have been as many as wanted since that number changed."""
    lost_at: float = -math.inf
    """When the first claim of those that are not replaced yet was lost: they are replaced together."""
    is_pending: bool = False
    """Whether a lost claim is not replaced yet."""
    has_lost: bool = False
    """Whether a claim was ever lost, or given up."""
    created: list[float] = field(default_factory=list[float])
    """Times at which claims were created."""


@final
class Reference:
    """The invariants of one run."""

    def __init__(self, run: Run, cloud: SimulatedCloud, kind: type[Claim]) -> None:
        self._run = run
        self._cloud = cloud
        self._claims = f"{kind.plural}.{kind.group()}"
        self._claim_condition = f"{kind.kind}Ready"
        self._users: dict[str, Object] = {}
        """What users have set, by UID of the Workspace."""
        self._most_wanted: dict[str, int] = {}
        self._places: dict[str, _Places] = {}
        self._broken_rules: list[Finding] = []
        """Violations that a write has shown, for the next check."""
        self._with_gpus: set[str] = set()
        """UIDs of the claims whose node has advertised GPUs."""
        self.forced: set[str] = set()
        """Names of the claims and nodes that a user has deleted without their finalizer."""
        self.retried: set[str] = set()
        """Names of the claims for which a user has requested another launch."""
        self._recorded: dict[str, tuple[str, float]] = {}
        """The last launch record of each claim, and since when it has it."""
        self._replanned: dict[str, float] = {}
        """When a user has requested that the instance type is chosen again, by UID of the Workspace."""
        self.spending: Spending = Spending(run, self._claims, self._owner, kind.stages.launched)
        self._stages = kind.stages
        run.world.server.on_write(self._on_write)

    # -- following writes --------------------------------------------------------------------------------------------

    def _on_write(self, resource: str, obj: Object, previous: Object | None) -> None:
        if resource == self._claims:
            self._on_claim(obj, previous)
            return
        if resource == "nodes" and ("", obj["metadata"]["name"]) not in self._run.stored(resource):
            self._on_removed_node(obj)
        if resource != "workspaces.kaito.sh":
            return
        if (obj["metadata"]["namespace"], obj["metadata"]["name"]) not in self._run.stored(resource):
            self._on_removed_workspace(obj)
        uid = obj["metadata"]["uid"]
        most = max(nodes_on(obj, size) for size in (*sizes_of(obj), self._size(obj)))
        self._most_wanted[uid] = max(self._most_wanted.get(uid, 0), most)
        self._places_of(obj)

    def _size(self, workspace: Object) -> str:
        """Returns the instance type of a Workspace's claims that do not terminate, else the first that it may use."""
        claims = self._run.stored(self._claims).values()
        used = [size_of(each) for each in claims if not is_terminating(each) and self._owner(each) is workspace]
        return next(iter(used or usable_sizes(workspace) or sizes_of(workspace)))

    def _wanted(self, workspace: Object) -> int:
        """Returns the number of nodes that a Workspace needs."""
        return nodes_on(workspace, self._size(workspace))

    def note_replan(self, uid: str) -> None:
        """Notes that a user has requested that the instance type of a Workspace is chosen again."""
        self._replanned[uid] = self._run.now

    def _places_of(self, workspace: Object) -> _Places:
        size = self._size(workspace)
        wanted = nodes_on(workspace, size)
        places = self._places.setdefault(workspace["metadata"]["uid"], _Places(wanted, size))
        if (places.wanted, places.size) != (wanted, size):
            places.wanted, places.is_filled, places.lost_at, places.is_pending = wanted, False, -math.inf, False
            places.size = size
        return places

    def accept(self, workspace: Resource) -> None:
        """Notes what a user has set: a later state of the Workspace must still contain it."""
        self._users[workspace.uid] = user_part(workspace.to_dict())

    def _on_removed_workspace(self, workspace: Object) -> None:
        deleted = datetime.fromisoformat(workspace["metadata"].get("deletionTimestamp") or "2100-01-01T00:00:00Z")
        waited = (self._run.world.now - deleted).total_seconds()
        uid = workspace["metadata"]["uid"]
        left = [
            name_of(each)
            for each in self._run.stored(self._claims).values()
            if labels_of(each).get("kaito.sh/workspace-uid") == uid
        ]
        if left and waited < DELETION_TIMEOUT_SECONDS:
            text = f"{name_of(workspace)} is removed {waited:.0f} s after its deletion, and {left[0]} exists"
            self._broken_rules.append(Finding("a Workspace is removed after its claims", text))

    def _on_removed_claim(self, claim: Object) -> None:
        name = claim["metadata"]["name"]
        pool = self._cloud.simulator.cluster.pools.get(name)
        owner = None if pool is None else dict(pool.properties.get("tags") or {})
        if pool is None or name in self.forced or claim["metadata"]["uid"] not in str(owner):
            return
        text = f"{name_of(claim)} is removed, and its agent pool is {pool.state}"
        self._broken_rules.append(Finding("a claim is removed after its instance", text))

    def _on_removed_node(self, node: Object) -> None:
        """A node that has joined a claim has our finalizer, so that its instance is deleted first."""
        name = labels_of(node).get("agentpool", "")
        claim, pool = self._run.stored(self._claims).get(("", name)), self._cloud.simulator.cluster.pools.get(name)
        if claim is None or pool is None or name in self.forced or node["metadata"]["name"] in self.forced:
            return
        if self._has_joined(claim, node):
            text = f"{name_of(node)} is removed, and its agent pool is {pool.state}"
            self._broken_rules.append(Finding("a node is removed after its instance", text))

    def _has_joined(self, claim: Object, node: Object) -> bool:
        """Whether the node is the one that has joined the claim."""
        is_named = section(claim, "status").get("nodeName") == node["metadata"]["name"]
        return is_named and has_condition(claim, self._stages.registered)

    def _on_claim(self, claim: Object, previous: Object | None) -> None:
        if ("", claim["metadata"]["name"]) not in self._run.stored(self._claims):
            self._on_removed_claim(claim)
        self._note_record(claim)
        owner = self._owner(claim)
        if owner is None:
            return
        places, now = self._places_of(owner), self._run.now
        present = self._run.stored(self._claims)
        is_live = not is_terminating(claim) and ("", claim["metadata"]["name"]) in present
        if previous is None:
            places.created.append(now)
            places.is_pending = False
            is_soon = places.is_filled and now - places.lost_at < PAUSE_SECONDS
            if is_soon and self._run.clocks_right_since < places.lost_at:  # pauses are of the wall clock
                text = f"{name_of(claim)} of {name_of(owner)} is created {now - places.lost_at:.1f} s after a loss"
                self._broken_rules.append(Finding("no buying in a loop", text))
        live = self._live(owner)
        places.has_lost = places.has_lost or not is_live
        if previous is not None and not is_terminating(previous) and not is_live and live < places.wanted:
            if not self._is_evicted(previous):
                places.lost_at = places.lost_at if places.is_pending else now
            places.is_pending = True
        if live >= places.wanted:
            places.is_filled = True

    def _note_record(self, claim: Object) -> None:
        name = claim["metadata"]["name"]
        record = section(claim, "metadata", "annotations").get("kaito.sh/launch-record")
        if self._recorded.get(name, ("", 0.0))[0] != record:
            self._recorded[name] = (str(record), self._run.now)

    def _is_evicted(self, claim: Object) -> bool:
        """Whether the cloud has announced that it takes the node of a claim back, which is replaced without a pause."""
        node = self._run.stored("nodes").get(("", section(claim, "status").get("nodeName") or ""))
        notice = None if node is None else condition(node, "VMEventScheduled")
        return notice is not None and notice["status"] == "True"

    def _owner(self, claim: Object) -> Object | None:
        labels = labels_of(claim)
        key = (labels.get("kaito.sh/workspacenamespace", ""), labels.get("kaito.sh/workspace", ""))
        owner = self._run.stored("workspaces.kaito.sh").get(key)
        uid = labels.get("kaito.sh/workspace-uid")
        return owner if owner is not None and uid in {None, owner["metadata"]["uid"]} else None

    def unjustified(self, name: str) -> str:
        """Returns why a claim must not be deleted: it is needed, and its node and instance are usable."""
        claim = self._run.stored(self._claims).get(("", name))
        owner = None if claim is None else self._owner(claim)
        if claim is None or owner is None or is_terminating(claim) or is_terminating(owner):
            return ""
        live = self._live(owner)
        node = self._run.stored("nodes").get(("", section(claim, "status").get("nodeName") or ""))
        pool = self._cloud.simulator.cluster.pools.get(name)
        if node is None or pool is None or pool.state not in {"Succeeded", "Updating"} or live > self._wanted(owner):
            return ""
        if self._is_left(owner, claim):
            return ""
        if not has_condition(claim, "Ready") or not has_condition(node, "Ready") or is_terminating(node):
            return ""
        if self._is_evicted(claim):
            return ""
        return f"{name_of(claim)}, one of {live} claims of {name_of(owner)}, which needs {self._wanted(owner)}"

    def _is_left(self, owner: Object, claim: Object) -> bool:
        """Whether a Workspace with alternatives may leave the instance type of a claim whose node is Ready.

        A user has requested it, or not even one copy has all of its nodes.
        """
        if len(sizes_of(owner)) == 1 and "instanceTypes" not in owner["resource"]:
            return False
        created = datetime.fromisoformat(claim["metadata"]["creationTimestamp"])
        age = (self._run.world.now - created).total_seconds()
        if self._run.now - self._replanned.get(owner["metadata"]["uid"], -math.inf) < age:
            return True
        ready = sum(
            has_condition(each, "Ready") and not is_terminating(each) and self._owner(each) is owner
            for each in self._run.stored(self._claims).values()
        )
        return ready < nodes_per_copy(owner, size_of(claim))

    def serves(self, name: str) -> str:
        """Returns why the instance of a claim must not be deleted: claim and node are Ready; empty if it may be."""
        claim = self._run.stored(self._claims).get(("", name))
        if claim is None or is_terminating(claim) or not has_condition(claim, "Ready"):
            return ""
        node = self._run.stored("nodes").get(("", section(claim, "status").get("nodeName") or ""))
        if node is None or is_terminating(node) or not has_condition(node, "Ready"):
            return ""
        return f"{name_of(claim)} and its node are Ready"

    def launch_pause(self, name: str) -> float:
        """Returns the seconds until the next attempt to launch a claim, as recorded on it by a right clock; else 0."""
        claim = self._run.stored(self._claims).get(("", name), {})
        record: Object = json.loads(section(claim, "metadata", "annotations").get("kaito.sh/launch-record", "{}"))
        if not record.get("next") or self._recorded.get(name, ("", 0.0))[1] <= self._run.clocks_right_since:
            return 0.0
        return (datetime.fromisoformat(record["next"]) - self._run.world.now).total_seconds()

    def _live(self, owner: Object) -> int:
        claims = self._run.stored(self._claims).values()
        return sum(not is_terminating(each) and self._owner(each) is owner for each in claims)

    # -- the state ---------------------------------------------------------------------------------------------------

    def check(self) -> Iterator[Finding]:
        """Returns what is wrong, or must not last."""
        yield from self._broken_rules
        yield from self.spending.check()
        claims = self._run.stored(self._claims)
        by_owner: dict[str, list[Object]] = {}
        for claim in claims.values():
            owner = self._owner(claim)
            if owner is not None:
                by_owner.setdefault(owner["metadata"]["uid"], []).append(claim)
        yield from self._check_instances(claims)
        for claim in claims.values():
            yield from self._check_claim(claim)
        for workspace in self._run.stored("workspaces.kaito.sh").values():
            yield from self._check_claims_of(workspace, by_owner.get(workspace["metadata"]["uid"], []))
            yield from self._check_conditions(workspace)
            yield from self._check_edits(workspace)
        for workspace in self._run.stored("workspaces.kaito.sh").values():
            if is_terminating(workspace) and not by_owner.get(workspace["metadata"]["uid"]):
                text = f"{name_of(workspace)} is terminating and has no claims"
                yield Finding("every deletion ends", text, EMPTY_SECONDS)
        yield from self._check_deletions(claims)

    def _check_deletions(self, claims: Mapping[Key, Object]) -> Iterator[Finding]:
        for resource in ("workspaces.kaito.sh", self._claims, "nodes", "namespaces"):
            for obj in self._run.stored(resource).values():
                if is_terminating(obj):
                    yield Finding("every deletion ends", f"{name_of(obj)} is terminating", DELETION_SECONDS)
        nodes = self._run.stored("nodes").values() if self._run.is_led(_PROVISIONER_LEASE) else ()
        for node in nodes:
            joined = claims.get(("", labels_of(node).get("agentpool", "")))
            if joined is None or not is_terminating(node) or is_terminating(joined):
                continue
            if self._has_joined(joined, node):
                text = f"{name_of(node)} is terminating, and {name_of(joined)} is not"
                yield Finding("every deletion ends", text, NOTICE_SECONDS)

    def _check_instances(self, claims: Mapping[Key, Object]) -> Iterator[Finding]:
        for name, pool in self._cloud.simulator.cluster.pools.items():
            if pool.state in {"Failed", "Canceled"} and ("", name) in claims:
                yield Finding("no failed instance is kept", f"agent pool {name} is {pool.state}", FAILED_SECONDS)
            if pool.state != "Deleting" and ("", name) not in claims:
                yield Finding("no instance without an owner", f"agent pool {name} has no claim", ORPHAN_SECONDS)

    def _check_claim(self, claim: Object) -> Iterator[Finding]:
        if is_terminating(claim):
            return
        ready = condition(claim, "Ready")
        node = self._run.stored("nodes").get(("", section(claim, "status").get("nodeName") or ""))
        uid, pool = claim["metadata"]["uid"], self._cloud.simulator.cluster.pools.get(claim["metadata"]["name"])
        if node is not None and int(section(node, "status", "allocatable").get(GPU, "0")):
            self._with_gpus.add(uid)
        if has_condition(claim, self._stages.launched) and pool is not None and pool.state == "Creating":
            yield Finding("conditions are true", f"{name_of(claim)} has launched and its pool is being created", 5.0)
        if has_condition(claim, self._stages.initialized) and node is not None and uid not in self._with_gpus:
            yield Finding("conditions are true", f"{name_of(claim)} is initialized without GPUs", 5.0)
        if ready is not None and ready["status"] == "True":
            if node is None or not has_condition(node, "Ready"):
                yield Finding("conditions are true", f"{name_of(claim)} is Ready and its node is not", STALE_SECONDS)
        elif not any(each.get("message") or each.get("reason") for each in entries(claim, "status", "conditions")):
            yield Finding("every wait has a cause", f"{name_of(claim)} has no condition with a cause", CAUSE_SECONDS)
        owner = self._owner(claim)
        is_needed = owner is not None and not ("tuning" in owner and self.actual(owner)["WorkspaceReady"])
        if not is_needed:
            return
        if node is not None and not has_condition(node, "Ready"):
            text = f"the node of {name_of(claim)} is not Ready"
            yield Finding("a broken node is replaced", text, BROKEN_SECONDS)
        if node is None and has_condition(claim, self._stages.registered):
            text = f"the node of {name_of(claim)} does not exist any more"
            yield Finding("a broken node is replaced", text, BROKEN_SECONDS)
        if not has_condition(claim, self._stages.launched):
            yield Finding("a broken node is replaced", f"{name_of(claim)} has not launched", UNLAUNCHED_SECONDS)

    def _check_claims_of(self, workspace: Object, claims: list[Object]) -> Iterator[Finding]:
        uid = workspace["metadata"]["uid"]
        live = [claim for claim in claims if not is_terminating(claim)]
        wanted = 0 if is_terminating(workspace) else self._wanted(workspace)
        if len(live) > self._most_wanted.get(uid, 0):
            yield Finding("never more claims than planned", f"{name_of(workspace)} has {len(live)} claims of {wanted}")
        if len(live) > wanted:
            text = f"{name_of(workspace)} has {len(live)} claims and needs {wanted}"
            yield Finding("never more claims than planned", text, SURPLUS_SECONDS)
        hour = [moment for moment in self._places_of(workspace).created if moment > self._run.now - 3600.0]
        if len(hour) > CLAIMS_PER_HOUR * max(self._most_wanted.get(uid, 0), 1):
            yield Finding("no buying in a loop", f"{len(hour)} claims in an hour for {name_of(workspace)}")

    def _check_edits(self, workspace: Object) -> Iterator[Finding]:
        expected = self._users.get(workspace["metadata"]["uid"])
        present = user_part(workspace)
        if expected is not None and "spec" not in expected:
            present.pop("spec", None)  # the controller sets the number of copies if admission could not
        if expected is not None and present != expected:
            changed = sorted(name for name in {*present, *expected} if present.get(name) != expected.get(name))
            yield Finding(
                "no lost user edit", f"{name_of(workspace)}: {', '.join(changed)} changed without a user", 1.0
            )

    def _check_conditions(self, workspace: Object) -> Iterator[Finding]:
        name = name_of(workspace)
        if is_terminating(workspace):
            return
        reasons: list[str] = []
        actual = self.actual(workspace)
        for kind in TUNING_CONDITIONS if "tuning" in workspace else (*SERVING_CONDITIONS, self._claim_condition):
            found = condition(workspace, kind)
            if found is None:
                yield Finding("every wait has a cause", f"{name} has no condition {kind}", CAUSE_SECONDS)
                continue
            if found["status"] == "True" and not actual[kind]:
                yield Finding("conditions are true", f"{name}: {kind} is True and does not hold", STALE_SECONDS)
            if found["status"] != "True":
                reasons += [kind] if not (found.get("reason") and found.get("message")) else []
                if actual[kind]:
                    text = f"{name}: {kind} is {found['status']} ({found.get('reason')}) and holds"
                    yield Finding("conditions are true", text, LATE_SECONDS)
        for kind in reasons:
            yield Finding("every wait has a cause", f"{name}: {kind} has no cause", CAUSE_SECONDS)
        yield from self._check_statements(workspace)

    def _check_statements(self, workspace: Object) -> Iterator[Finding]:
        """Compares what the conditions and records report about claims with what has happened."""
        name, claims = name_of(workspace), self._run.stored(self._claims)
        found = condition(workspace, self._claim_condition)
        message = str((found or {}).get("message", ""))
        if "could not be created" in message and "already exists" in message:  # and not a message of Azure about a pool
            own = [each["metadata"]["name"] for each in claims.values() if self._owner(each) is workspace]
            for claim in own:
                if claim in message:
                    yield Finding("conditions are true", f"{name} reports its own claim {claim} as one of others")
        record = section(workspace, "metadata", "annotations").get("kaito.sh/provision-attempts", "{}")
        attempts: Object = json.loads(record)
        if attempts.get("failures") and not self._places_of(workspace).has_lost:
            yield Finding("conditions are true", f"{name} counts a lost claim and has lost none", COUNTED_SECONDS)
        if "tuning" not in workspace and has_condition(workspace, "WorkspaceReady") and self._has_no_service(workspace):
            yield Finding("conditions are true", f"{name} is ready and has no Service", SERVICE_SECONDS)

    def _has_no_service(self, workspace: Object) -> bool:
        metadata = workspace["metadata"]
        return (metadata["namespace"], metadata["name"]) not in self._run.stored("services")

    def actual(self, workspace: Object) -> dict[str, bool]:
        """Returns which conditions of a Workspace hold."""
        metadata = workspace["metadata"]
        nodes = [
            node
            for node in self._run.stored("nodes").values()
            if labels_of(node).get("kaito.sh/workspace") == metadata["name"]
            and labels_of(node).get("kaito.sh/workspacenamespace") == metadata["namespace"]
            and not is_terminating(node)
            and has_condition(node, "Ready")
            and int(section(node, "status", "allocatable").get(GPU, "0")) > 0
        ]
        wanted = self._wanted(workspace)
        resources = len(nodes) >= wanted
        claims = wanted <= sum(
            has_condition(each, "Ready") and not is_terminating(each) and self._owner(each) is workspace
            for each in self._run.stored(self._claims).values()
        )
        ready = sum(
            is_ready(pod)
            for (namespace, _), pod in self._run.stored("pods").items()
            if namespace == metadata["namespace"]
            and any(owner["name"] == metadata["name"] for owner in entries(pod, "metadata", "ownerReferences"))
        )
        if "tuning" in workspace:
            job = self._run.stored("jobs.batch").get((metadata["namespace"], metadata["name"]))
            complete = job is not None and has_condition(job, "Complete")
            return {"ResourceReady": resources, "WorkspaceReady": complete}
        stateful_set = self._run.stored("statefulsets.apps").get((metadata["namespace"], metadata["name"]))
        serves = stateful_set is not None and 0 < copies_of(workspace) <= ready
        return {
            "ResourceReady": resources,
            "InferenceReady": serves,
            "WorkspaceReady": resources and serves,
            self._claim_condition: claims,
        }

    # -- the end -----------------------------------------------------------------------------------------------------

    def missing(self) -> Iterator[str]:
        """Returns what is not as users want it."""
        pools = self._cloud.simulator.cluster.pools
        claims = self._run.stored(self._claims)
        for workspace in self._run.stored("workspaces.kaito.sh").values():
            yield from self._missing_of(workspace)
        for claim in claims.values():
            if is_terminating(claim):
                yield f"{name_of(claim)} is terminating"
        for name in pools:
            if ("", name) not in claims:
                yield f"agent pool {name} has no claim"
        for node in self._run.stored("nodes").values():
            if labels_of(node).get("agentpool") not in pools:
                yield f"{name_of(node)} has no agent pool"

    def _missing_of(self, workspace: Object) -> Iterator[str]:
        name, wanted = name_of(workspace), self._wanted(workspace)
        if is_terminating(workspace):
            yield f"{name} is terminating"
        elif self.is_blocked(workspace):
            return
        elif self._live(workspace) > wanted:
            yield f"{name} has {self._live(workspace)} claims and needs {wanted}"
        elif wanted:
            found = condition(workspace, "WorkspaceReady")
            if found is None or found["status"] != "True":
                cause = "" if found is None else f" ({found.get('reason')}: {found.get('message')})"
                yield f"{name} is not ready{cause}"
            elif self._is_rolling(workspace):
                yield f"pods of {name} are being replaced"

    def _is_rolling(self, workspace: Object) -> bool:
        """Whether pods are not those of the present template: a new leader of another release has changed it."""
        metadata = workspace["metadata"]
        found = self._run.stored("statefulsets.apps").get((metadata["namespace"], metadata["name"]))
        if found is None:
            return False
        status = section(found, "status")
        is_observed = status.get("observedGeneration") == found["metadata"]["generation"]
        return not is_observed or status.get("updatedReplicas", 0) < found["spec"].get("replicas", 1)

    def is_blocked(self, workspace: Object) -> bool:
        """Whether a Workspace waits for its user: what it names does not exist."""
        if workspace["resource"].get("instanceType") == UNKNOWN_SIZE or not usable_sizes(workspace):
            return True
        if self.spending.is_unaffordable(workspace):
            return True
        config = str(section(workspace, "inference").get("config") or "")
        return bool(config) and (workspace["metadata"]["namespace"], config) not in self._run.stored("configmaps")

    def left(self) -> Iterator[str]:
        """Returns what is left after everything was deleted."""
        yield from (f"agent pool {name}" for name in self._cloud.simulator.cluster.pools)
        for resource in ("workspaces.kaito.sh", self._claims, "nodes", "statefulsets.apps", "jobs.batch", "pods"):
            yield from (name_of(obj) for obj in self._run.stored(resource).values())


def user_part(workspace: Mapping[str, Any]) -> Object:
    """Returns the fields of a Workspace that only users set."""
    return {
        name: value for name, value in workspace.items() if name not in {"metadata", "status", "apiVersion", "kind"}
    } | {"labels": dict(labels_of(workspace)), "annotations": _user_annotations(workspace)}


def _user_annotations(workspace: Mapping[str, Any]) -> dict[str, str]:
    given = section(workspace, "metadata", "annotations")
    return {key: str(value) for key, value in given.items() if key.startswith(("example.com/", "kaito.sh/enablelb"))}
