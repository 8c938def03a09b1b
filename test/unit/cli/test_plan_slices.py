"""`kaito plan` with copies on slices of GPUs."""

import json
from typing import Any

import pytest

from test.unit.cli.test_plan import A100, planned, run, workspace


def test_copies_on_slices_of_gpus_are_planned_on_their_nodes(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    partition = {"mode": "mig", "profile": "1g.10gb"}
    resource = workspace()["resource"] | {"count": 8, "partition": partition}
    path = written(workspace(resource=resource, inference={"preset": {"name": "qwen3.5-2b"}}))
    (plan,) = planned(capsys, "-f", path, "--region", "eastus")
    nodes = plan["nodes"]
    assert (nodes["count"], nodes["copies"], nodes["copiesPerNode"], nodes["toCreate"]) == (2, 8, 7, 2)
    assert run("-f", path, "--region", "eastus") == 0
    text = capsys.readouterr().out
    assert "copies   8, each on a slice of a GPU\n" in text
    assert "nodes    2 x Standard_NC24ads_A100_v4 1g.10gb (7 slices of NVIDIA A100, 9.5 GiB each), " in text
    assert "         each copy uses a slice of 9.5 GiB, of which a node has 7\n" in text
    assert "7.35 USD" in text


def test_a_set_on_slices_of_gpus_has_a_copy_on_every_slice(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    document = workspace()
    selector = document["resource"]["labelSelector"]
    resource = {
        "instanceType": document["resource"]["instanceType"],
        "partition": {"mode": "mig", "profile": "1g.10gb"},
    }
    template = {"resource": resource, "inference": {"preset": {"name": "qwen3.5-2b"}}}
    spec = {"replicas": 2, "labelSelector": selector, "template": template}
    path = written({**document, "kind": "InferenceSet", "spec": spec})
    (plan,) = planned(capsys, "-f", path, "--region", "eastus")
    assert (plan["inferenceSet"]["workspaces"], plan["inferenceSet"]["nodes"]) == (2, 2)
    assert (plan["nodes"]["count"], plan["nodes"]["copies"], plan["price"]["perHour"]) == (1, 7, 3.673)


def test_copies_share_an_existing_node_with_slices(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n", "labels": {"apps": "w", "node.kubernetes.io/instance-type": A100}},
        "status": {"capacity": {"nvidia.com/mig-1g.10gb": "7"}},
    }
    partition = {"mode": "mig", "profile": "1g.10gb"}
    own = workspace(
        resource={"labelSelector": {"matchLabels": {"apps": "w"}}, "count": 7, "partition": partition},
        inference={"preset": {"name": "qwen3.5-2b"}},
    )
    path = written(own, node)
    assert run("-f", path, "-o", "json", "--", "--node-api=byo") == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert (plan["nodes"]["count"], plan["nodes"]["copiesByNode"]) == (1, {"n": 7})
    assert run("-f", path, "--", "--node-api=byo") == 0
    text = capsys.readouterr().out
    assert "copies   7, which share nodes\n" in text
    assert "its copies share nodes, which have the resources for 7\n" in text
