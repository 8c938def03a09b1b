"""InferenceSets on a real API server with both programs: the sample of upstream's shape, scaled by kubectl."""

import json
from pathlib import Path
from typing import Any

import pytest

from test.e2e.test_scale import serve_webhook
from test.support.stack import Stack, stack, until

MANIFEST = """
apiVersion: kaito.sh/VERSION
kind: InferenceSet
metadata: {name: phi-4-mini}
spec:
  replicas: 2
  labelSelector: {matchLabels: {apps: phi-4-mini}}
  template:
    resource: {instanceType: Standard_NC24ads_A100_v4}
    inference: {preset: {name: phi-4-mini-instruct}}
  autoUpgrade:
    enabled: true
    strategy: Surge
    maintenanceWindow: {schedule: "0 2 * * 6", duration: 4h}
"""
"""The example of upstream's reference, unchanged."""


def items(running: Stack, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.kubectl("get", kind, "-o", "json"))["items"]
    return found


def row(running: Stack) -> list[str]:
    """Returns REPLICAS and READYREPLICAS as kubectl prints them."""
    lines = running.kubectl("get", "inferenceset", "phi-4-mini").splitlines()
    assert lines[0].split() == ["NAME", "REPLICAS", "READYREPLICAS", "AGE"]
    return lines[1].split()[1:-1]


def names(running: Stack) -> list[str]:
    found = items(running, "workspaces")
    return [each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
async def test_scaled_by_kubectl_from_one_to_three_to_one_and_deleted(version: str) -> None:
    async with stack() as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST.replace("VERSION", version))
        await until(lambda: row(running) == ["2", "2"], "two Workspaces to serve")
        running.kubectl("scale", "inferenceset", "phi-4-mini", "--replicas=1")
        await until(lambda: row(running) == ["1", "1"], "one Workspace to be deleted")
        assert names(running) == ["phi-4-mini-0"]
        service = running.kubectl("get", "service", "phi-4-mini", "-o", "jsonpath={.spec.selector}")
        assert json.loads(service) == {"inferenceset.kaito.sh/created-by": "phi-4-mini"}

        running.kubectl("scale", "inferenceset", "phi-4-mini", "--replicas=3")
        await until(lambda: row(running) == ["3", "3"], "three Workspaces to serve")
        assert len(await running.pools()) == 3
        running.kubectl("wait", "--for=condition=InferenceSetUpdated", "inferenceset/phi-4-mini", "--timeout=30s")

        running.kubectl("scale", "inferenceset", "phi-4-mini", "--replicas=1")
        await until(lambda: names(running) == ["phi-4-mini-0"], "two Workspaces to be deleted")
        await until(lambda: len(items(running, "nodes")) == 1, "their nodes to be deleted")
        assert row(running) == ["1", "1"]

        running.kubectl("delete", "inferenceset", "phi-4-mini", "--timeout=60s")
        assert items(running, "workspaces") == []
        assert items(running, "machines") == []
        assert await running.pools() == {}


@pytest.mark.timeout(240)
async def test_killed_while_a_template_change_is_rolled_out_the_result_is_the_same() -> None:
    async with stack() as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST.replace("VERSION", "v1beta1"))
        await until(lambda: row(running) == ["2", "2"], "two Workspaces to serve")
        patch = {"spec": {"template": {"inference": {"preset": {"name": "phi-3-mini-128k-instruct"}}}}}
        running.kubectl("patch", "inferenceset", "phi-4-mini", "--type=merge", f"--patch={json.dumps(patch)}")
        await until(lambda: len(names(running)) == 3, "an additional Workspace")
        running.programs["workspace-controller"].kill()
        running.programs["workspace-controller"].start()

        def is_replaced() -> bool:
            found = items(running, "workspaces")
            assert len(found) <= 4
            return len(found) == 2 and all(
                each["inference"]["preset"]["name"] == "phi-3-mini-128k-instruct" for each in found
            )

        await until(is_replaced, "both Workspaces to be replaced", 120)
        await until(lambda: row(running) == ["2", "2"], "both to serve")
        await until(lambda: len(items(running, "nodes")) == 2, "the old nodes to be deleted")


@pytest.mark.timeout(180)
async def test_the_webhook_judges_every_field_and_an_update_only_by_what_it_introduces(tmp_path: Path) -> None:
    async with stack() as running:
        await serve_webhook(running, tmp_path)
        valid = MANIFEST.replace("VERSION", "v1beta1")
        for wrong, message in (
            (valid.replace("Standard_NC24ads_A100_v4", "Standard_D2s_v3"), "spec.template.resource.instanceType"),
            (valid.replace("phi-4-mini-instruct", "no-such-model"), "spec.template.inference.preset.name"),
            (valid.replace("0 2 * * 6", "0 2 * *"), "spec.autoUpgrade.maintenanceWindow.schedule"),
            (valid.replace("duration: 4h", "duration: 4d"), "spec.autoUpgrade.maintenanceWindow.duration"),
        ):
            refused = running.kubectl("apply", "-f", "-", stdin=wrong, check=False)
            assert message in refused, refused
        assert items(running, "inferencesets") == []
        applied = running.kubectl("apply", "-f", "-", stdin=valid, check=False)
        assert "Warning: spec: the plan is 2 nodes of Standard_NC24ads_A100_v4" in applied
        await until(lambda: row(running) == ["2", "2"], "two Workspaces to serve, with the webhook")
        scaled = running.kubectl("scale", "inferenceset", "phi-4-mini", "--replicas=1")
        assert "scaled" in scaled
        await until(lambda: row(running) == ["1", "1"], "one Workspace to be deleted")
        assert items(running, "workspaces")[0]["spec"]["replicas"] == 1
