"""`kubectl scale` and manifests that are applied again, on a real API server with the webhook of the controller."""

import json
from pathlib import Path
from typing import Any

import pytest

from hack.envtest.control_plane import free_port
from kaito.local.admission import LocalWebhook
from kaito.runtime.client import codec
from test.support.stack import Stack, stack, until

MANIFEST: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1alpha1",
    "kind": "Workspace",
    "metadata": {"name": "phi"},
    "resource": {
        "count": 1,
        "instanceType": "Standard_NC24ads_A100_v4",
        "labelSelector": {"matchLabels": {"apps": "phi"}},
    },
    "inference": {"preset": {"name": "phi-4"}},
}


def manifest(count: int) -> str:
    return json.dumps(MANIFEST | {"resource": MANIFEST["resource"] | {"count": count}})


def replicas(running: Stack) -> str:
    return running.kubectl("get", "workspace", "phi", "-o", "jsonpath={.spec.replicas}")


def machines(running: Stack) -> int:
    return len(json.loads(running.kubectl("get", "machines", "-o", "json"))["items"])


async def serve_webhook(running: Stack, folder: Path) -> None:
    """Restarts the controller with its webhook, and configures the API server to call it."""
    program = running.programs["workspace-controller"]
    program.stop()
    webhook = LocalWebhook(folder, free_port())
    program.command.remove("--webhook=false")
    program.command += webhook.flags()
    program.start()
    for configuration in webhook.configurations():
        running.kubectl("apply", "-f", "-", stdin=json.dumps(codec.for_apply(configuration)))

    def mutates() -> bool:
        answer = running.kubectl(
            "apply", "--dry-run=server", "-o", "jsonpath={.spec.replicas}", "-f", "-", stdin=manifest(3), check=False
        )
        return answer.startswith("3")

    await until(mutates, "the webhook to be called")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "apply", [["apply"], ["apply", "--server-side", "--field-manager=gitops"]], ids=["client", "server"]
)
async def test_a_manifest_that_is_applied_again_keeps_what_was_scaled(apply: list[str], tmp_path: Path) -> None:
    async with stack("machine") as running:
        await serve_webhook(running, tmp_path)
        running.kubectl(*apply, "-f", "-", stdin=manifest(1))
        assert replicas(running) == "1"
        await until(lambda: machines(running) == 1, "the first node")

        running.kubectl("scale", "workspace", "phi", "--replicas=3")
        await until(lambda: machines(running) == 3, "three nodes")
        running.kubectl(*apply, "-f", "-", stdin=manifest(1))
        assert replicas(running) == "3"
        running.kubectl(*apply, "-f", "-", stdin=manifest(2))
        assert replicas(running) == "2"
        running.kubectl("scale", "workspace", "phi", "--replicas=0")
        running.kubectl(*apply, "-f", "-", stdin=manifest(2))
        assert replicas(running) == "0"
        if "--server-side" not in apply:
            running.kubectl("replace", "-f", "-", stdin=manifest(2))
            assert replicas(running) == "0", "a client that replaces the object leaves spec.replicas out"
        refused = running.kubectl("scale", "workspace", "phi", "--replicas=500", check=False)
        assert "less than or equal to 128" in refused
