"""Deleting the installation of a real API server while a Workspace lives leaves no paid pool behind (A.5)."""

import json
import subprocess

import pytest

from test.support.stack import ROOT, Stack, stack, until

MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi}
resource:
  instanceType: Standard_NC6s_v3
  labelSelector: {matchLabels: {apps: phi}}
inference:
  preset: {name: phi-3-mini-4k-instruct}
"""
INSTALLATION = str(ROOT / "config" / "default")
MARKED = "crd,clusterroles,clusterrolebindings,namespaces,deployments,serviceaccounts,roles,rolebindings,services"


def delete_installation(running: Stack) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", f"--kubeconfig={running.kubeconfig}", "delete", "-k", INSTALLATION, "--wait=false"]
    return subprocess.run([*command, "--ignore-not-found"], capture_output=True, text=True, check=False)


def installed(running: Stack) -> list[str]:
    """Objects of the installation that are not being deleted."""
    selector = ["-l", "kaito.sh/installation=true", "--all-namespaces"]
    found = json.loads(running.kubectl("get", MARKED, *selector, "-o", "json"))["items"]
    return sorted(
        f"{item['kind']}/{item['metadata']['name']}" for item in found if "deletionTimestamp" not in item["metadata"]
    )


def is_ready(running: Stack) -> bool:
    path = '{.status.conditions[?(@.type=="WorkspaceReady")].status}'
    return running.kubectl("get", "workspace", "phi", "-o", f"jsonpath={path}") == "True"


def guarded(running: Stack) -> bool:
    return "kaito-in-use" in running.kubectl("get", "validatingadmissionpolicybindings")


@pytest.mark.timeout(300)
async def test_an_installation_in_use_stays_and_an_unused_one_goes_without_a_trace() -> None:
    async with stack() as running:
        rendered = running.kubectl("kustomize", INSTALLATION)
        # The controllers run as processes here: nothing would answer the webhook's Service.
        parts = [part for part in rendered.split("\n---\n") if "WebhookConfiguration\n" not in part]
        running.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin="\n---\n".join(parts))
        everything = installed(running)
        assert "Namespace/kaito-system" in everything
        assert "CustomResourceDefinition/workspaces.kaito.sh" in everything
        assert "ClusterRole/gpu-provisioner" in everything

        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: is_ready(running), "the Workspace to be ready")
        await until(lambda: guarded(running), "the guard")
        probe = ["delete", "namespace", "kaito-system", "--dry-run=server"]
        await until(lambda: "Kaito is in use" in running.kubectl(*probe, check=False), "the API server to enforce it")

        refused = delete_installation(running)
        assert refused.returncode != 0
        assert refused.stderr.count("Kaito is in use") >= len(everything)
        assert "kubectl delete inferencesets,workspaces --all --all-namespaces" in refused.stderr
        assert installed(running) == everything, "nothing of the installation was deleted"
        assert is_ready(running)
        assert list((await running.pools()).values()) == ["Succeeded"]

        running.programs["workspace-controller"].kill()
        assert delete_installation(running).returncode != 0
        assert installed(running) == everything, "the API server refuses also while no controller runs"
        running.programs["workspace-controller"].start()

        running.kubectl("delete", "workspaces", "--all", "--all-namespaces", "--timeout=90s")
        assert await running.pools() == {}, "the provisioner lives until the claims are gone"
        await until(lambda: not guarded(running), "the guard to go")
        await until(lambda: delete_installation(running).returncode == 0, "the deletion to be accepted")
        await until(lambda: not installed(running), "the installation to go")
        await until(lambda: "kaito.sh" not in running.kubectl("get", "crd"), "the CRDs to go")
        assert await running.pools() == {}
        assert "kaito-in-use" not in running.kubectl("get", "validatingadmissionpolicies")
