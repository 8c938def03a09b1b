"""`kaito explain` and `kubectl kaito explain` on a real API server: a quota failure in one screen, and its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from test.support.stack import Stack, stack, until

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

SCREEN_LINES = 40
COLUMNS = 100


def explain(running: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return kaito(running, "explain", *arguments)


def kaito(running: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of `kaito` against the cluster."""
    script = "import sys; from kaito.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, *arguments, f"--kubeconfig={running.kubeconfig}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def plug_in(running: Stack, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `kubectl kaito`, with the console script `kubectl-kaito` in the PATH."""
    script = folder / "kubectl-kaito"
    script.write_text(f"#!{sys.executable}\nfrom kaito.cli.main import main\nmain()\n")
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(running.kubeconfig)}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = ["kubectl", "kaito", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("node_api", ["machine", "nodeclaim"])
async def test_a_quota_failure_is_explained_in_one_screen(node_api: str, tmp_path: Path) -> None:
    async with stack(node_api, provisioner_flags=["--quota-retry=600s"]) as running:
        await running.admin("POST", "faults", {"named": "quota", "times": None})
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: "QuotaExceeded" in explain(running, "phi").stdout, "the quota to be explained")

        found = explain(running, "phi")
        assert found.returncode == 1, found.stderr
        lines = found.stdout.splitlines()
        assert len(lines) <= SCREEN_LINES
        assert max(len(line) for line in lines if "$ " not in line) <= COLUMNS
        kind = {"machine": "Machine", "nodeclaim": "NodeClaim"}[node_api]
        assert lines[0].startswith("Workspace default/phi: is not ready, created ")
        assert lines[2].startswith(f"cause    QuotaExceeded on {kind} ws")
        text = " ".join(found.stdout.split())  # where a line wraps depends on the digits of a time
        assert "the provisioner makes the next launch attempt; 1 failed so far" in text
        assert "az vm list-usage --location" in text
        assert f"! {kind}" in text
        assert "- AgentPool" in text
        assert "ago: QuotaExceeded: see the cause" in text

        result = plug_in(running, tmp_path, "explain", "phi", "-o", "json")
        assert result.returncode == 1, result.stderr
        assert json.loads(result.stdout)["cause"]["reason"] == "QuotaExceeded"

        await running.admin("DELETE", "faults")
        resource = "machine" if node_api == "machine" else "nodeclaim"
        (claim,) = json.loads(running.kubectl("get", f"{resource}s", "-o", "json"))["items"]
        running.kubectl("annotate", resource, claim["metadata"]["name"], "kaito.sh/retry-launch=now")
        await until(lambda: explain(running, "phi").returncode == 0, "the Workspace to be ready", seconds=120)
        ready = explain(running, "phi").stdout
        assert "the model answers" in ready
        assert "kaito chat phi -n default" in ready

        cost = json.loads(kaito(running, "cost", "-A", "-o", "json").stdout)
        (paid,) = cost["workspaces"]
        assert (paid["name"], paid["nodes"], paid["currency"], paid["perHour"]) == ("phi", 1, "USD", 3.06)
        assert paid["total"] > 0
        top = kaito(running, "top", "--once").stdout.splitlines()
        assert "1 Workspaces, 1 nodes, 3.06 USD per hour" in top[0]

        missing = explain(running, "phy")
        assert (missing.returncode, missing.stdout) == (2, "")
        assert "did you mean phi?" in missing.stderr
