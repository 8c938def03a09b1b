"""KEDA's operator, its metrics adapter and a HorizontalPodAutoscaler scale a Workspace by the load of its servers.

Everything but the model server and the cloud is real: kube-apiserver, the HorizontalPodAutoscaler of
kube-controller-manager, KEDA, the activator and both controllers. KEDA's metrics adapter is an extension API server: a
Service of the type ExternalName leads kube-apiserver to its port on this machine.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster.identities import Authority
from hack.envtest.control_plane import free_port
from hack.keda import locate, path
from hack.keda.binaries import ADAPTER, CONTROLLER_MANAGER, OPERATOR
from test.e2e.test_autoscaling import Server, served
from test.support.stack import BINARIES, Program, Stack, stack, until

pytestmark = pytest.mark.timeout(900)

NAME = "phi-4-mini"
ADDRESS = "127.0.0.43"
SECONDS = 240.0

WORKSPACE: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": NAME, "namespace": "default"},
    "spec": {"replicas": 1},
    "resource": {"instanceType": "Standard_NC24ads_A100_v4", "labelSelector": {"matchLabels": {"apps": NAME}}},
    "inference": {"preset": {"name": "phi-4-mini-instruct"}},
}


def scaled_object(port: int, **metadata: str) -> dict[str, Any]:
    """The ScaledObject of the guide, with short times."""
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    trigger = {"scalerAddress": f"127.0.0.1:{port}", "workspace": NAME, **metadata}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "name": NAME},
            "minReplicaCount": 1,
            "maxReplicaCount": 4,
            "pollingInterval": 1,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
            "triggers": [{"type": "external", "metadata": trigger}],
        },
    }


def aggregation(port: int) -> list[dict[str, Any]]:
    """The objects that lead kube-apiserver to KEDA's metrics adapter, whose callers need no certificate."""
    reader = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "external-metrics"}}
    metrics = {"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}
    discovery = {"nonResourceURLs": ["/apis/*"], "verbs": ["get"]}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "external-metrics"}
    service = {"name": "keda-metrics-apiserver", "namespace": "keda"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "keda"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": service,
         "spec": {"type": "ExternalName", "externalName": "localhost"}},
        reader | {"kind": "ClusterRole", "rules": [metrics, discovery]},
        reader | {"kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
         "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
         "spec": {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                  "versionPriority": 100, "insecureSkipTLSVerify": True, "service": {**service, "port": port}}},
    ]  # fmt: skip


def certificates(folder: Path) -> Path:
    """Writes the certificates with which the operator and the adapter know each other."""
    folder.mkdir()
    Authority(folder).issue(folder / "tls", user="keda", group="keda", names=("localhost",), addresses=("127.0.0.1",))
    return folder


def programs(running: Stack, keda_port: int, adapter_port: int) -> Iterator[Program]:
    """Yields the activator, KEDA and the HorizontalPodAutoscaler."""
    kubeconfig, folder = running.kubeconfig, running.folder
    certs = certificates(folder / "keda-certificates")
    environment = {"KUBECONFIG": str(kubeconfig), "WATCH_NAMESPACE": "", "POD_NAMESPACE": "keda"}
    environment["KEDA_CLUSTER_OBJECT_NAMESPACE"] = "keda"
    off = ["--metrics-bind-address=0", "--health-probe-bind-address=0"]
    metrics = f"127.0.0.1:{free_port()}"
    access = [f"--{part}-kubeconfig={kubeconfig}" for part in ("authentication", "authorization")]
    commands: dict[str, list[str]] = {
        "workspace-activator": [
            str(BINARIES / "workspace-activator"), f"--kubeconfig={kubeconfig}", *off,
            f"--keda-port={keda_port}", "--listen-address=127.0.0.1",
        ],
        OPERATOR: [str(path(OPERATOR)), *off, f"--metrics-service-bind-address={metrics}", f"--cert-dir={certs}"],
        ADAPTER: [
            str(path(ADAPTER)), *access, f"--lister-kubeconfig={kubeconfig}", f"--secure-port={adapter_port}",
            "--bind-address=127.0.0.1", f"--cert-dir={certs}", f"--tls-cert-file={certs / 'tls.crt'}",
            f"--tls-private-key-file={certs / 'tls.key'}", f"--metrics-service-address={metrics}",
            f"--port={free_port()}", "--authentication-skip-lookup",
        ],
        CONTROLLER_MANAGER: [
            str(path(CONTROLLER_MANAGER)), f"--kubeconfig={kubeconfig}", *access, "--leader-elect=false",
            "--bind-address=127.0.0.1", f"--secure-port={free_port()}", f"--cert-dir={folder / 'manager'}",
            "--controllers=horizontal-pod-autoscaler-controller", "--horizontal-pod-autoscaler-sync-period=2s",
        ],
    }  # fmt: skip
    for name, command in commands.items():
        yield Program(name, command, folder / f"{name}.log", environment)


def document(running: Stack, kind: str, name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.kubectl("get", kind, name, "-o", "json"))
    return found


def is_true(running: Stack, kind: str, condition: str) -> bool:
    conditions = document(running, kind).get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


@pytest.fixture
async def keda_port() -> int:
    return free_port()


@pytest.fixture
async def model() -> AsyncIterator[Server]:
    with served(ADDRESS) as server:
        yield server


@pytest.fixture
async def running(keda_port: int) -> AsyncIterator[Stack]:
    """Everything running, and one copy that serves."""
    adapter_port = free_port()
    async with stack() as cluster:
        with ExitStack() as cleanup:
            for crd in sorted((locate() / "crds").glob("keda.sh_*.yaml")):
                cluster.kubectl("apply", "--server-side", "-f", str(crd))
            for crd in sorted((locate() / "crds").glob("eventing.keda.sh_*.yaml")):
                cluster.kubectl("apply", "--server-side", "-f", str(crd))
            cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
            cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(aggregation(adapter_port)))
            for program in programs(cluster, keda_port, adapter_port):
                program.start()
                cleanup.callback(program.stop)
            try:
                yield cluster
            finally:
                if keep := os.environ.get("KEEP_LOGS"):
                    for log in cluster.folder.glob("*.log"):
                        (Path(keep) / log.name).write_bytes(log.read_bytes())


async def serve(running: Stack) -> None:
    """Creates the Workspace, and the pod of its first copy on its node."""
    running.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(WORKSPACE))
    await until(lambda: is_true(running, "workspace", "WorkspaceReady"), "the Workspace", SECONDS)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{NAME}-0", "labels": {"kaito.sh/workspace": NAME}},
        "spec": {
            "nodeName": document(running, "workspace")["status"]["workerNodes"][0],
            "containers": [{"name": "model", "image": "registry.example/model:1"}],
        },
    }
    running.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"}
    status = {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}], "conditions": [ready]}
    patch = json.dumps({"status": status})
    running.kubectl("patch", "pod", f"{NAME}-0", "--subresource=status", "--type=merge", f"--patch={patch}")


async def test_keda_scales_a_workspace_by_the_load_of_its_servers(
    running: Stack, model: Server, keda_port: int
) -> None:
    await serve(running)
    running.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(scaled_object(keda_port, Requests="10")))
    refusal = "metadata.Requests of the trigger is misspelled: write requests"
    await until(lambda: refusal in (running.folder / f"{OPERATOR}.log").read_text(), "KEDA to log the cause", SECONDS)
    assert not is_true(running, "scaledobject", "Ready")
    running.kubectl("delete", "scaledobject", NAME, f"--timeout={SECONDS:.0f}s")
    running.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(scaled_object(keda_port, requests="10")))
    await until(lambda: is_true(running, "scaledobject", "Ready"), "the ScaledObject to be Ready", SECONDS)
    await until(lambda: is_true(running, "scaledobject", "Active"), "the ScaledObject to be Active", SECONDS)
    (metric,) = document(running, "hpa", f"keda-hpa-{NAME}")["spec"]["metrics"]
    assert metric["type"] == "External"
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "10"}

    def replicas() -> int:
        found: int = document(running, "workspace")["spec"]["replicas"]
        return found

    model.running = 28
    await until(lambda: replicas() == 3, "three copies", SECONDS)
    await until(lambda: is_true(running, "workspace", "WorkspaceReady"), "three nodes", SECONDS)
    assert len(await running.pools()) == 3
    model.running = 2
    await until(lambda: replicas() == 1, "one copy", SECONDS)
    running.kubectl("scale", "workspace", NAME, "--replicas=0")
    await until(lambda: replicas() == 1, "the copy that minReplicaCount requires", SECONDS)
