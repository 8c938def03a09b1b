"""Sizes without a GPU and sizes under another table's name, on a real API server with both binaries."""

import json
from typing import Any

import pytest

from test.support.stack import Stack, stack, until

CPU = """
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: on-cpu}
resource:
  instanceType: "standard_d4s_v5"
  labelSelector: {matchLabels: {apps: on-cpu}}
inference:
  template:
    spec:
      containers: [{name: model, image: "registry.example/llama-cpp:1"}]
"""
ALIAS = """
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: eight-a100}
resource:
  instanceType: "Standard_ND96asr_A100_v4"
  labelSelector: {matchLabels: {apps: eight-a100}}
inference:
  preset: {name: phi-4}
"""


def claims(running: Stack, plural: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.kubectl("get", plural, "-o", "json"))["items"]
    return found


def columns(running: Stack, name: str) -> list[str]:
    return running.kubectl("get", "workspace", name).splitlines()[1].split()[2:5]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("node_api", "plural"), [("machine", "machines"), ("nodeclaim", "nodeclaims")])
async def test_a_template_becomes_ready_on_a_size_without_gpu(node_api: str, plural: str) -> None:
    """input-R7."""
    async with stack(node_api) as running:
        running.kubectl("apply", "-f", "-", stdin=CPU)
        await until(lambda: columns(running, "on-cpu") == ["True", "True", "True"], "the three columns to be True")

        (claim,) = claims(running, plural)
        assert "nvidia.com/gpu" not in json.dumps(claim["spec"])
        (node,) = claims(running, "nodes")
        assert node["metadata"]["labels"]["kaito.sh/machine-type"] == "cpu"
        running.kubectl("delete", "workspace", "on-cpu", "--timeout=60s")
        assert await running.pools() == {}


@pytest.mark.timeout(180)
async def test_the_claim_of_an_alias_asks_for_azures_name() -> None:
    """input-R8."""
    async with stack("nodeclaim") as running:
        running.kubectl("apply", "-f", "-", stdin=ALIAS)
        await until(lambda: columns(running, "eight-a100") == ["True", "True", "True"], "the three columns to be True")

        (claim,) = claims(running, "nodeclaims")
        requested = {r["key"]: r["values"] for r in claim["spec"]["requirements"]}
        assert requested["node.kubernetes.io/instance-type"] == ["Standard_ND96asr_v4"]
        assert requested["karpenter.azure.com/sku-name"] == ["Standard_ND96asr_v4"]
        assert claim["spec"]["expireAfter"] == "Never"
