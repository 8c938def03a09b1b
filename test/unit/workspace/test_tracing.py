"""The trace of a Workspace: annotations of claims, environment of pods that stays, phases as spans."""

import json
from dataclasses import replace

import pytest

from kaito.api import Machine, NodeClaim, Workspace, labels
from kaito.api.workspace.validation import annotations
from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import StatefulSet
from kaito.runtime.manager import Settings
from kaito.runtime.meta import format_time
from kaito.runtime.testing import World
from kaito.workspace.flags import parse
from kaito.workspace.main import workspace_manager
from kaito.workspace.manifests.claim import node_claim
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.node_class import NodeClassSettings
from kaito.workspace.plan import Hardware, Plan
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.tracing import trace_environment
from test.support.node_pools import Pools
from test.support.recorded_spans import Recorded
from test.unit.workspace.conftest import Cluster
from test.unit.workspace.test_node_class import KwokClass, put_class

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
TRACED = WorkspaceSettings(tracing_endpoint="http://collector:4318")


def environment(workload: StatefulSet) -> dict[str, str]:
    (container,) = workload.spec.template.spec.containers
    return {each.name: each.value or "" for each in container.env or [] if each.name.startswith(("OTEL_", "TRACE"))}


def test_pods_of_a_new_workload_get_the_context_and_the_collector(phi: Workspace, plan: Plan) -> None:
    traced = phi.with_metadata(annotations={labels.TRACEPARENT: PARENT})
    expected = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "OTEL_RESOURCE_ATTRIBUTES": f"k8s.namespace.name=default,kaito.workspace={phi.name}",
        "TRACEPARENT": PARENT,
    }
    planned = replace(plan, trace_environment=trace_environment(traced, TRACED, None))
    rendered = inference_stateful_set(traced, planned, TRACED)
    assert environment(rendered) == expected
    assert json.loads(rendered.annotations[labels.TRACE_ENVIRONMENT]) == expected


def test_a_workload_keeps_its_environment(phi: Workspace, plan: Plan) -> None:
    """Neither an upgrade nor a changed flag replaces its pods."""
    traced = phi.with_metadata(annotations={labels.TRACEPARENT: PARENT})
    before = inference_stateful_set(phi, plan, WorkspaceSettings())
    assert environment(before) == {}
    assert labels.TRACE_ENVIRONMENT not in before.annotations
    switched_on = replace(plan, trace_environment=trace_environment(traced, TRACED, before))
    assert inference_stateful_set(traced, switched_on, TRACED) == before

    first = replace(plan, trace_environment=trace_environment(traced, TRACED, None))
    present = inference_stateful_set(traced, first, TRACED)
    for settings in (WorkspaceSettings(), WorkspaceSettings(tracing_endpoint="http://other:4318")):
        later = replace(plan, trace_environment=trace_environment(phi, settings, present))
        assert inference_stateful_set(phi, later, settings) == present


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"a": 1}'])
def test_a_record_that_cannot_be_read_is_none(phi: Workspace, plan: Plan, text: str) -> None:
    present = inference_stateful_set(phi, plan, TRACED).with_metadata(annotations={labels.TRACE_ENVIRONMENT: text})
    assert trace_environment(phi, TRACED, present) == {}


def test_a_tuning_job_gets_the_environment(phi: Workspace, plan: Plan) -> None:
    document = phi.to_dict()
    del document["inference"]
    document["tuning"] = {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "lora",
        "input": {"urls": ["https://example.com/a.parquet"]},
        "output": {"image": "r.example.com/a:1", "imagePushSecret": "push"},
    }
    workspace = Workspace.model_validate(document)
    planned = replace(plan, trace_environment={"TRACEPARENT": PARENT})
    job = tuning_job(workspace, planned, TRACED)
    (container,) = job.spec.template.spec.containers
    assert {"name": "TRACEPARENT", "value": PARENT} in [each.to_dict() for each in container.env or []]
    assert job.annotations[labels.INPUTS_HASH] == tuning_job(workspace, plan, TRACED).annotations[labels.INPUTS_HASH]


@pytest.mark.parametrize("node_api", [NodeApi.MACHINE, NodeApi.NODECLAIM])
def test_claims_carry_a_valid_context(phi: Workspace, hardware: Hardware, node_api: NodeApi) -> None:
    settings = WorkspaceSettings(node_api=node_api)
    for value, expected in ((PARENT, PARENT), ("nonsense", None)):
        traced = phi.with_metadata(annotations={labels.TRACEPARENT: value})
        claim = node_claim(traced, hardware, settings, index=0, serial=0)
        assert claim.annotations.get(labels.TRACEPARENT) == expected


def test_an_invalid_context_is_a_warning(phi: Workspace) -> None:
    assert list(annotations.trace_context(phi.with_metadata(annotations={labels.TRACEPARENT: PARENT}))) == []
    (found,) = annotations.trace_context(phi.with_metadata(annotations={labels.TRACEPARENT: "00-x"}))
    assert (found.field, found.severity) == ("metadata.annotations[kaito.sh/traceparent]", "warning")


def test_the_environment_of_the_controller_configures_the_pods() -> None:
    flag = parse(["--tracing-endpoint=http://a:4318"], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4318"})
    assert (flag.manager.tracing_endpoint, flag.workspace.tracing_endpoint) == ("http://a:4318", "http://a:4318")
    variable = parse([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4318"})
    assert (variable.manager.tracing_endpoint, variable.workspace.tracing_endpoint) == ("", "http://b:4318")
    assert parse([], {}).workspace.tracing_endpoint == ""


async def test_without_the_webhook_the_first_reconcile_sets_the_context_and_phases_are_spans(
    world: World, phi: Workspace
) -> None:
    recorded = Recorded(labels.TRACEPARENT)
    settings = WorkspaceSettings(tracing_endpoint="http://collector:4318")
    manager = workspace_manager(
        settings,
        Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False),
        transport=world.transport(),
        clock=world.clock,
        tracer=recorded.tracer,
    )
    cluster = Cluster(world, settings)
    world.put(phi)
    async with manager:
        await world.settle()
        context = world.get(Workspace, phi.name).annotations[labels.TRACEPARENT]
        (claim,) = world.list(Machine)
        assert claim.annotations[labels.TRACEPARENT] == context
        cluster.join(claim)
        await world.settle()
        await world.advance(5)
        workload = world.get(StatefulSet, phi.name)
        assert environment(workload)["TRACEPARENT"] == context
    spans = {span.name: span for span in recorded.take()}
    _, trace, parent, _ = context.split("-")
    ready = spans["ResourceReady"]
    assert ready.parent is not None
    assert (f"{ready.parent.trace_id:032x}", f"{ready.parent.span_id:016x}") == (trace, parent)
    first = spans["first reconcile"].get_span_context()
    assert first is not None
    assert f"{first.span_id:016x}" == parent


STAGES = ("launch", "register", "initialize")


async def test_the_stages_of_claims_that_karpenter_creates_are_spans(world: World, phi: Workspace) -> None:
    """The template of a pool cannot carry the context: Karpenter would replace every node that has another one."""
    recorded = Recorded(labels.TRACEPARENT)
    settings = WorkspaceSettings(
        node_api=NodeApi.KARPENTER, node_class=NodeClassSettings(karpenter_node_class_group="karpenter.kwok.sh")
    )
    pools = Pools(world, settings)
    world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(world, "default")
    manager = workspace_manager(
        settings,
        Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False),
        transport=world.transport(),
        clock=world.clock,
        tracer=recorded.tracer,
    )
    world.put(phi.with_metadata(annotations={labels.TRACEPARENT: PARENT}))

    async def initialize() -> NodeClaim:
        """Creates a claim that is launched, registered and initialized after 40, 60 and 61 s."""
        await world.settle()
        assert pools.scale_step()
        (claim,) = (each for each in world.list(NodeClaim) if not each.status.node_name)
        conditions: list[dict[str, str]] = []
        for kind, seconds in (("Launched", 40), ("Registered", 20), ("Initialized", 1), ("Ready", 0)):
            await world.advance(seconds)
            times = {"lastTransitionTime": format_time(world.now)}
            conditions.append({"type": kind, "status": "True", "reason": kind, **times})
        pools.join(claim)
        joined = world.get(NodeClaim, claim.name, "").status
        pools.set_claim_status(claim, *conditions, nodeName=joined.node_name, providerID=joined.provider_id)
        await world.advance(5)
        return claim

    async with manager:
        await world.settle()
        (pool,) = pools.pools()
        assert not pool.spec.template.metadata.to_dict().get("annotations")
        first = await initialize()
        found = recorded.take(*STAGES)
        assert [(span.name, (span.attributes or {})["kaito.claim"]) for span in found] == [
            (name, first.name) for name in STAGES
        ]
        assert [(span.end_time - span.start_time) / 1e9 for span in found if span.end_time and span.start_time] == [
            40, 20, 1
        ]  # fmt: skip
        for span in found:
            assert span.parent is not None
            assert f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}-01" == PARENT
        world.patch(Workspace, phi.name, {"spec": {"replicas": 2}})
        second = await initialize()
        assert [(span.attributes or {})["kaito.claim"] for span in recorded.take(*STAGES)] == [second.name] * 3
