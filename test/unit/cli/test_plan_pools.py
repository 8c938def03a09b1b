"""`kaito plan` with NodePools: the pool in the text and in the data, and compared with the pool of a cluster."""

import io
from typing import Any

import pytest
import yaml

from kaito.api import Workspace
from kaito.api.karpenter import NodePool
from kaito.cli.main import parser
from kaito.cli.plan import command
from kaito.planning.documents import read_documents
from kaito.planning.report import PlanReport, as_data
from kaito.planning.style import Style
from kaito.planning.text import render
from kaito.runtime.testing import World
from kaito.workspace.flags import parse
from test.support.node_pools import DEFINITION
from test.unit.cli.test_plan import A100, workspace

FLAGS = ["--node-provisioner=karpenter", "--karpenter-node-class-group=karpenter.kwok.sh"]


async def plan(*, cluster: bool = False, **parts: Any) -> PlanReport:
    options = ["--cluster"] if cluster else []
    arguments = parser().parse_args(["plan", "-f", "-", *options, "--", *FLAGS])
    read = read_documents(["-"], io.StringIO(yaml.safe_dump(workspace(**parts))))
    (report,) = await command.plan_documents(read, parse(FLAGS, {}), arguments)
    return report


def pool_of(report: PlanReport) -> dict[str, Any]:
    found: list[dict[str, Any]] = as_data(report)["objects"]
    (pool,) = [each for each in found if each["object"]["kind"] == "NodePool"]
    return pool


async def test_a_plan_contains_the_pool_instead_of_claims() -> None:
    report = await plan(spec={"replicas": 2})
    text = render(report, Style.of(io.StringIO()), compared=False)
    assert f"NodePool w-* (2 nodes of {A100})" in text
    assert "NodeClaim" not in text
    data = as_data(report)
    assert data["nodes"]["toCreate"] == 2
    pool = pool_of(report)["object"]
    assert pool["metadata"]["generateName"] == "w-"
    assert (pool["spec"]["replicas"], pool["spec"]["limits"]) == (2, {"nodes": "3"})
    assert "00000000-0000" not in str(pool), "the UID is not known"


async def test_without_copies_there_is_no_pool() -> None:
    report = await plan(spec={"replicas": 0})
    assert not [each for each in as_data(report)["objects"] if each["object"]["kind"] == "NodePool"]


async def test_the_pool_is_compared_with_that_of_the_cluster(live: World) -> None:
    missing = await plan(cluster=True)
    assert pool_of(missing)["action"] == "create"
    assert any("install Karpenter" in note for note in missing.notes)
    live.install(DEFINITION)
    assert pool_of(await plan(cluster=True))["action"] == "create"
    stored = live.put(Workspace.model_validate(workspace()))
    wanted = (await plan(cluster=True)).preview.objects.pool
    assert wanted is not None
    live.put(wanted)
    assert pool_of(await plan(cluster=True))["action"] == "unchanged"
    live.patch(NodePool, wanted.name, {"spec": {"replicas": 3}})
    changed = pool_of(await plan(cluster=True))
    assert changed["action"] == "update"
    assert "replicas" in changed["diff"]
    live.deny("get", NodePool)
    assert pool_of(await plan(cluster=True))["action"] == "unknown"
    assert stored.name == "w"


@pytest.mark.parametrize("verb", ["patch"])
async def test_a_dry_run_that_is_not_permitted_is_noted(live: World, verb: str) -> None:
    live.install(DEFINITION)
    live.put(Workspace.model_validate(workspace()))
    wanted = (await plan(cluster=True)).preview.objects.pool
    assert wanted is not None
    live.put(wanted)
    live.deny(verb, NodePool)
    report = await plan(cluster=True)
    assert pool_of(report)["action"] == "unknown"
    assert any("dry run of NodePool" in note for note in report.notes)
