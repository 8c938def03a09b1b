"""Why a node is not usable yet, and when the stages of a claim run out of time: each value on a fake context."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kaito.api import labels
from kaito.api.karpenter import Claim, NodeClaim
from kaito.cloud.errors import CloudError
from kaito.provisioner.context import Dependencies, ReconcileContext
from kaito.provisioner.settings import ProvisionerSettings
from kaito.provisioner.status import StatusUpdate
from kaito.provisioner.steps.deadlines import enforce_deadlines
from kaito.provisioner.steps.initialize import find_obstacle
from kaito.runtime.kinds import Node
from kaito.runtime.testing import builders
from test.unit.provisioner.conftest import A100, claim_manifest

pytestmark = pytest.mark.virtual_time

NOW = datetime(2030, 1, 1, 2, tzinfo=UTC)


class Cloud:
    """Instance types by name; an error is raised."""

    def __init__(self, **types: int | CloudError) -> None:
        self._types = types

    async def instance_type(self, name: str) -> Any:
        found = self._types.get(name)
        if isinstance(found, CloudError):
            raise found
        return SimpleNamespace(gpus=found) if found is not None else None


class Reconcile:
    """A request that records its delays and events."""

    def __init__(self, claim: Claim) -> None:
        self.object = claim
        self.delays: list[tuple[float, str]] = []
        self.events: list[tuple[str, str, bool]] = []
        self.clock = SimpleNamespace(now=lambda: NOW)

    def requeue_after(self, seconds: float, why: str) -> None:
        self.delays.append((seconds, why))

    def event_on_change(self, *_: object, **__: object) -> bool:
        return True

    def event(self, level: str, reason: str, note: str) -> None:
        self.events.append((reason, note, level == "Warning"))


def context(claim: Claim, cloud: Cloud, **settings: Any) -> tuple[ReconcileContext, Reconcile]:
    deps = Dependencies(cloud=cast("Any", cloud), settings=ProvisionerSettings(**settings), kinds=(NodeClaim,))
    request = Reconcile(claim)
    return ReconcileContext(cast("Any", request), deps, claim, StatusUpdate(claim)), request


def labeled(change: dict[str, Any] | None = None) -> Claim:
    """A claim with the label of its instance type, which the launch sets."""
    document = claim_manifest(NodeClaim, uid="uid").to_dict()
    document["metadata"]["labels"][labels.INSTANCE_TYPE] = A100
    document["spec"] |= change or {}
    return NodeClaim.model_validate(document)


def node(*taints: tuple[str, str], gpus: str = "1", ready: bool = True, machine_type: str = "") -> Node:
    found = {labels.MACHINE_TYPE: machine_type} if machine_type else {}
    made = builders.node("n", labels=found, capacity={labels.NVIDIA_GPU: gpus} if gpus else {}, ready=ready)
    given = [{"key": key, "effect": effect} for key, effect in taints]
    return Node.model_validate(made.to_dict() | {"spec": {"taints": given}})


STARTUP = {"startupTaints": [{"key": "example.com/agent", "effect": "NoExecute"}]}
FPGA = {"resources": {"requests": {"storage": "1Ti", "example.com/fpga": "1", "example.com/none": "0"}}}
UNKNOWN = CloudError("the API is down", code="Down")


@pytest.mark.parametrize(
    ("change", "found", "gpus", "obstacle"),
    [
        pytest.param({}, node(), 1, None, id="usable"),
        pytest.param({}, node(ready=False), 1, ("NodeNotReady", "Node status is NotReady"), id="not ready"),
        pytest.param(
            STARTUP,
            node(("example.com/agent", "NoExecute")),
            1,
            ("StartupTaintsExist", 'StartupTaint "example.com/agent:NoExecute" still exists'),
            id="startup taint",
        ),
        pytest.param(STARTUP, node(("example.com/agent", "NoSchedule")), 1, None, id="the same key, another effect"),
        pytest.param(
            {},
            node(("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule")),
            1,
            (
                "KnownEphemeralTaintsExist",
                'KnownEphemeralTaint "node.cloudprovider.kubernetes.io/uninitialized:NoSchedule" still exists',
            ),
            id="ephemeral taint",
        ),
        pytest.param(
            FPGA,
            node(),
            1,
            ("ResourceNotRegistered", 'Resource "example.com/fpga" was requested but not registered'),
            id="requested resource; storage and amounts of zero do not count",
        ),
        pytest.param(
            {},
            node(gpus="1"),
            2,
            ("ResourceNotRegistered", 'Resource "nvidia.com/gpu": 1 of 2 GPUs are registered (device plugin)'),
            id="fewer GPUs than the instance type has",
        ),
        pytest.param(
            {},
            node(gpus=""),
            1,
            ("ResourceNotRegistered", 'Resource "nvidia.com/gpu": 0 of 1 GPUs are registered (device plugin)'),
            id="no GPUs",
        ),
        pytest.param({}, node(gpus="2"), 2, None, id="all GPUs"),
        pytest.param({}, node(gpus=""), 0, None, id="an instance type without GPUs"),
        pytest.param(
            {},
            node(gpus="", machine_type="gpu"),
            None,
            ("ResourceNotRegistered", 'Resource "nvidia.com/gpu": 0 of 1 GPUs are registered (device plugin)'),
            id="a type that the cloud does not know, with the label of GPU nodes",
        ),
        pytest.param({}, node(gpus="", machine_type="cpu"), None, None, id="such a type without GPUs"),
    ],
)
async def test_a_node_is_usable_or_has_one_obstacle(
    change: dict[str, Any], found: Node, gpus: int | None, obstacle: tuple[str, str] | None
) -> None:
    ctx, _ = context(labeled(change), Cloud(**({A100: gpus} if gpus is not None else {})))
    result = await find_obstacle(ctx, found)
    assert (None if result is None else (result.reason, result.message)) == obstacle


@pytest.mark.parametrize(("retry_after", "delay"), [(7.0, 7.0), (None, ProvisionerSettings().poll_interval_seconds)])
async def test_an_unknown_number_of_gpus_is_an_obstacle_that_is_looked_up_again(
    retry_after: float | None, delay: float
) -> None:
    error = CloudError("the API is down", code="Down", retry_after=retry_after)
    ctx, request = context(labeled(), Cloud(**{A100: error}))
    result = await find_obstacle(ctx, node())
    assert result is not None
    assert result.reason == "CloudUnavailable"
    assert result.message == "cannot determine the GPU count of the instance type: Down: the API is down"
    assert request.delays == [(delay, "unknown GPU count")]


def staged(reached: int, ago: float, *, launching: bool = False) -> Claim:
    """A claim that reached so many stages, the last one some seconds ago; or one whose instance is being created."""
    document = labeled().to_dict()
    since = (NOW - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    stages = NodeClaim.stages
    found = [
        {"type": stage, "status": "True", "reason": stage, "lastTransitionTime": since} for stage in stages[:reached]
    ]
    if launching:
        document["metadata"]["annotations"] = {labels.LAUNCH_STARTED: since}
    document["status"] = {"conditions": found}
    return NodeClaim.model_validate(document)


async def expire(claim: Claim, cloud: Cloud | None = None, *, creating: bool = False, **settings: Any) -> Any:
    """Delays, events, whether the claim expired, and the counted reason."""
    ctx, request = context(claim, cloud or Cloud(**{A100: 1}), **settings)
    if creating:
        ctx.status.set_launched("Unknown", "AgentPoolCreating", "creating")
    await enforce_deadlines(ctx)
    (metric,) = ctx.deps.metrics.disrupted.collect()
    counted = [s.labels["reason"] for s in metric.samples if s.name.endswith("_total")]
    return request.delays, [(reason, note) for reason, note, _ in request.events], ctx.expired, counted


LAUNCH: dict[str, Any] = {"launch_timeout_seconds": 600.0}


async def test_a_launch_has_its_time_from_the_request() -> None:
    assert await expire(staged(0, 599, launching=True), creating=True, **LAUNCH) == (
        [(1.0, "launch deadline")], [], False, []
    )  # fmt: skip
    message = "no instance within 600 s of the request; last status: creating: deleting the claim"
    assert await expire(staged(0, 600, launching=True), creating=True, **LAUNCH) == (
        [], [("LaunchTimeout", message)], True, ["launch_timeout"]
    )  # fmt: skip


@pytest.mark.parametrize("known", [{A100: 8}, {A100: UNKNOWN}])
async def test_a_large_or_unknown_instance_type_has_twice_the_time(known: dict[str, Any]) -> None:
    assert await expire(staged(0, 1100, launching=True), Cloud(**known), creating=True, **LAUNCH) == (
        [(100.0, "launch deadline")], [], False, []
    )  # fmt: skip
    found = await expire(staged(0, 1200, launching=True), Cloud(**known), creating=True, **LAUNCH)
    assert found[2:] == (True, ["launch_timeout"])


async def test_seven_gpus_are_not_large() -> None:
    found = await expire(staged(0, 700, launching=True), Cloud(**{A100: 7}), creating=True, **LAUNCH)
    assert found[2:] == (True, ["launch_timeout"])


async def test_a_rejected_launch_and_one_that_was_not_requested_have_no_deadline() -> None:
    assert await expire(staged(0, 9000, launching=True), **LAUNCH) == ([], [], False, [])
    assert await expire(staged(0, 9000), creating=True, **LAUNCH) == ([], [], False, [])


async def test_a_registration_has_its_time_from_the_launch() -> None:
    settings: dict[str, Any] = {"registration_timeout_seconds": 900.0}
    assert await expire(staged(1, 800), **settings) == ([(100.0, "registration deadline")], [], False, [])
    message = "no node joined within 900 s of the launch: deleting the claim"
    assert await expire(staged(1, 900), **settings) == (
        [], [("RegistrationTimeout", message)], True, ["registration_timeout"]
    )  # fmt: skip


async def test_an_initialization_has_its_time_from_the_registration_and_expires_only_if_configured() -> None:
    settings: dict[str, Any] = {"initialization_timeout_seconds": 1200.0}
    assert await expire(staged(2, 1100), **settings) == ([(100.0, "initialization deadline")], [], False, [])
    assert await expire(staged(2, 1200), **settings) == ([], [], False, [])
    message = "the node is not usable 1200 s after it joined; the node does not exist: deleting the claim"
    assert await expire(staged(2, 1200), replace_uninitialized=True, **settings) == (
        [], [("InitializationTimeout", message)], True, ["initialization_timeout"]
    )  # fmt: skip


async def test_a_claim_with_every_stage_has_no_deadline() -> None:
    assert await expire(staged(3, 90_000), replace_uninitialized=True) == ([], [], False, [])


def test_an_age_of_an_unknown_time_is_zero() -> None:
    ctx, _ = context(labeled(), Cloud())
    assert ctx.age_seconds(None) == 0
    assert ctx.age_seconds(NOW - timedelta(seconds=90)) == 90
