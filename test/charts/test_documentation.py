"""The commands of the pages about installing, upgrading and uninstalling run on a real kube-apiserver."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.envtest import ControlPlane
from hack.tools import locate
from test.charts.rendering import ROOT
from test.support.codeblocks import code_blocks

DOCS = ROOT / "docs"
pytestmark = pytest.mark.timeout(300)

NO_PODS_RUN = re.compile(r"rollout status|kubectl run ")
"""Commands that need a kubelet; `test/node` runs such."""


class Shell:
    """Runs the blocks of a section in a copy of the files that the commands name."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.folder = folder
        for name in ("charts", "config"):
            shutil.copytree(ROOT / name, folder / name)
        path = f"{Path(locate('helm')).parent}:{os.environ['PATH']}"
        self.env = os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": path}

    def run(self, page: str, section: str) -> str:
        """Runs the shell blocks of a section.

        Raises:
            AssertionError: the section has no block, or a command fails.
        """
        text = (DOCS / page).read_text()
        (start,) = [match.end() for match in re.finditer(rf"^#+ {re.escape(section)}$", text, flags=re.MULTILINE)]
        following = re.search(r"^## ", text[start:], flags=re.MULTILINE)
        first = text[:start].count("\n") + 1
        last = first + text[start : start + following.start()].count("\n") if following else 10**6
        blocks = [b for b in code_blocks(DOCS / page) if b.language == "sh" and first <= b.line < last]
        assert blocks, f"{page}: {section} has no commands"
        return "".join(self.bash(block.code) for block in blocks)

    def bash(self, script: str) -> str:
        """Runs a script whose commands must all succeed."""
        joined = script.replace("\\\n", " ")
        kept = "\n".join(line for line in joined.splitlines() if not NO_PODS_RUN.search(line))
        command = ["bash", "-euo", "pipefail", "-c", kept]
        result = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{kept}\n{result.stdout}{result.stderr}"
        return result.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with ControlPlane() as control_plane:
        yield Shell(control_plane.kubeconfig, tmp_path)


def test_install_upgrade_roll_back_and_uninstall_with_helm(shell: Shell) -> None:
    install, upgrade, uninstall = "getting-started/install.md", "guides/upgrade.md", "guides/uninstall.md"
    shell.run(install, "Namespace")
    assert "kubectl delete inferencesets,workspaces" in shell.run(install, "With Helm on AKS")
    with_helm = [b.code for b in code_blocks(DOCS / upgrade) if b.code.startswith("helm upgrade")]
    assert len(with_helm) == 1
    shell.bash(with_helm[0])
    shell.run(upgrade, "Go back")
    blocks = [b.code for b in code_blocks(DOCS / uninstall) if b.code.startswith("helm uninstall")]
    assert len(blocks) == 1
    shell.bash("kubectl delete inferencesets,workspaces --all --all-namespaces")
    shell.bash(blocks[0].replace("delete namespace kaito-system", "delete namespace kaito-system --wait=false"))
    assert shell.bash("kubectl get crd --output=name") == ""


def test_from_kustomize_to_helm_and_the_label_for_metrics(shell: Shell) -> None:
    page = "getting-started/install.md"
    shell.run(page, "With kustomize")
    shell.bash("cp charts/gpu-provisioner/values/aks.yaml my-provisioner.yaml")
    shell.bash("cp charts/workspace-controller/values/aks.yaml my-controller.yaml")
    shell.run(page, "From kustomize to Helm")
    assert "workspace-controller" in shell.bash("helm list --namespace kaito-system")
    shell.bash("kubectl create namespace monitoring")
    shell.run(page, "Access to the metrics")


def test_existing_nodes_with_helm(shell: Shell) -> None:
    shell.run("getting-started/install.md", "Namespace")
    shell.run("getting-started/install.md", "With Helm for existing nodes or Karpenter")
    assert "byo" in shell.bash("kubectl -n kaito-system get deployment workspace-controller -o yaml")


OPERATED_KINDS = {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"}
"""Kinds of the Prometheus Operator that the charts install."""


def any_object(kind: str, plural: str) -> dict[str, object]:
    """Returns a CRD whose objects may have any field."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    spec = {"group": "monitoring.coreos.com", "scope": "Namespaced", "names": names, "versions": [version]}
    metadata = {"name": f"{plural}.monitoring.coreos.com"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }


def test_tracing_monitoring_and_the_console_are_added_to_an_installation(shell: Shell) -> None:
    install = "getting-started/install.md"
    shell.run(install, "Namespace")
    shell.run(install, "With Helm on AKS")
    shell.run("operations/tracing.md", "Configure")
    for program in ("workspace-controller", "gpu-provisioner"):
        deployment = shell.bash(f"kubectl -n kaito-system get deployment {program} -o yaml")
        assert "--tracing-endpoint=http://otel-collector.monitoring:4318" in deployment
    documents = [any_object(kind, plural) for kind, plural in OPERATED_KINDS.items()]
    (shell.folder / "operator.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))
    shell.bash("kubectl apply -f operator.json && kubectl wait --for=condition=Established crd --all --timeout=60s")
    monitoring = [
        b.code for b in code_blocks(DOCS / "operations" / "monitoring.md") if b.code.startswith("helm upgrade")
    ]
    assert len(monitoring) == 1
    shell.bash(monitoring[0])
    found = shell.bash("kubectl -n kaito-system get podmonitors,prometheusrules,configmaps -o name").splitlines()
    assert {name.partition(".")[0] for name in found if "monitoring" in name} == {"podmonitor", "prometheusrule"}
    assert "configmap/kaito-dashboard" in found
    console = [b.code for b in code_blocks(DOCS / "guides" / "console.md") if "helm install console" in b.code]
    assert len(console) == 1
    shell.bash(console[0][console[0].index("helm") :])
    deployment = shell.bash("kubectl -n kaito-system get deployment kaito-console -o yaml")
    assert "--host=console.example.com" in deployment
    assert "image: registry.example.com/kaito/console:" in deployment
