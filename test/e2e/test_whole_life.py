"""The phi-3 sample Workspace on a real API server, both binaries as processes, the cloud simulated."""

import json
from typing import Any

import pytest

from test.support.stack import Stack, stack, until

MANIFEST = """
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: workspace-phi-3-mini}
resource:
  instanceType: "Standard_NC6s_v3"
  labelSelector: {matchLabels: {apps: phi-3}}
inference:
  preset: {name: phi-3-mini-4k-instruct}
"""


def items(running: Stack, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.kubectl("get", kind, "-o", "json"))["items"]
    return found


def columns(running: Stack) -> list[str]:
    lines = running.kubectl("get", "workspace", "workspace-phi-3-mini").splitlines()
    assert lines[0].split() == ["NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]
    return lines[1].split()[1:5]


def is_ready(running: Stack) -> bool:
    return columns(running) == ["Standard_NC6s_v3", "True", "True", "True"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("node_api", "plural"), [("machine", "machines"), ("nodeclaim", "nodeclaims")])
async def test_from_apply_to_true_columns_and_back_to_nothing(node_api: str, plural: str) -> None:
    async with stack(node_api) as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: is_ready(running), "the three columns to be True")

        (claim,) = items(running, plural)
        assert claim["metadata"]["name"].startswith("ws")
        ready = next(c for c in claim["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True"
        assert await running.pools() == {claim["metadata"]["name"]: "Succeeded"}
        service = running.kubectl("get", "service", "workspace-phi-3-mini").splitlines()[1].split()
        assert service[1] == "ClusterIP"
        assert service[4] == "80/TCP,29500/TCP"

        running.kubectl("delete", "workspace", "workspace-phi-3-mini", "--timeout=60s")
        assert items(running, plural) == []
        assert items(running, "nodes") == []
        assert await running.pools() == {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["workspace-controller", "gpu-provisioner"])
@pytest.mark.parametrize("moment", ["claim exists", "pool exists", "node exists", "workload exists", "deleting"])
async def test_killed_at_any_moment_the_result_is_the_same(victim: str, moment: str) -> None:
    async with stack() as running:
        most_pools = 0

        async def reached() -> bool:
            nonlocal most_pools
            pools = await running.pools()
            most_pools = max(most_pools, len(pools))
            match moment:
                case "claim exists":
                    return bool(items(running, "machines"))
                case "pool exists":
                    return bool(pools)
                case "node exists":
                    return bool(items(running, "nodes"))
                case "workload exists":
                    return bool(items(running, "statefulsets"))
                case _:
                    return is_ready(running)

        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(reached, moment)
        if moment == "deleting":
            running.kubectl("delete", "workspace", "workspace-phi-3-mini", "--wait=false")
        running.programs[victim].kill()
        running.programs[victim].start()
        if moment == "deleting":
            await until(lambda: not items(running, "workspaces"), "the Workspace to go")
            assert items(running, "machines") == []
            assert await running.pools() == {}
            return
        await until(lambda: is_ready(running), "the three columns to be True")
        machines = items(running, "machines")
        assert len(machines) == 1
        assert list(await running.pools()) == [machines[0]["metadata"]["name"]]
        assert most_pools <= 1
