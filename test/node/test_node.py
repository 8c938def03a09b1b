"""The node itself: images from the registry, logs and exec, name resolution, Services, volumes made of images."""

import io
from pathlib import Path

import pytest

from hack.cluster import REGISTRY, Cluster, image_archive
from test.node.conftest import say
from test.support.node_images import make_base
from test.support.real_node import Kubernetes

FILES = f"{REGISTRY}/test/files:1"


@pytest.fixture(scope="module")
def base(cluster: Cluster) -> str:
    return make_base(cluster, say)


@pytest.fixture(scope="module")
def files(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a file, as packed models are, in the cluster's registry."""
    archive = tmp_path_factory.mktemp("files") / "files.tar"
    content = io.BytesIO()
    image_archive.write(content, FILES, {"config.json": b'{"model_type": "llama"}\n'})
    archive.write_bytes(content.getvalue())
    push(cluster, archive, FILES)
    return FILES


def push(cluster: Cluster, archive: Path, reference: str) -> None:
    cluster.run("buildah", "pull", "-q", f"oci-archive:{archive}")
    cluster.run("buildah", "push", "--tls-verify=false", reference, f"docker://{reference}")


def pod(name: str, image: str, script: str, **spec: object) -> dict[str, object]:
    container: dict[str, object] = {"name": "main", "image": image, "command": ["sh", "-c", script]}
    container |= {"volumeMounts": spec.pop("volumeMounts", [])}
    metadata = {"name": name, "labels": {"app": name}}
    body = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def phase(kubernetes: Kubernetes, name: str) -> str:
    found: str = kubernetes.get("pod", name)["status"].get("phase", "")
    return found


def test_pod_runs_an_image_of_the_registry_and_has_logs_and_exec(
    cluster: Cluster, kubernetes: Kubernetes, base: str
) -> None:
    kubernetes.apply(pod("shell", base, "echo started; sleep 600"))
    kubernetes.until("pod shell runs", lambda: phase(kubernetes, "shell") == "Running")
    kubernetes.until("its log", lambda: cluster.kubectl("logs", "shell") == "started\n", 30)
    version = cluster.kubectl("exec", "shell", "--", "python3", "-c", "import sys; print(sys.version_info.major)")
    assert version == "3\n"


def test_service_is_resolved_and_reached_from_a_pod(cluster: Cluster, kubernetes: Kubernetes, base: str) -> None:
    server = pod("web", base, "cd /etc && exec python3 -m http.server 8000")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    kubernetes.apply(server, service)
    program = "import urllib.request; print(urllib.request.urlopen('http://web.default.svc/hostname').read().decode())"

    def answer() -> str:
        result = cluster.run("kubectl", "exec", "shell", "--", "python3", "-c", program, check=False)
        return result.stdout.strip()

    kubernetes.until("the Service answers with the host name of its pod", lambda: answer() == "web", 60)


def test_name_outside_of_the_cluster_is_not_resolved(cluster: Cluster, base: str) -> None:
    program = "import socket; socket.getaddrinfo('registry.example.com', 443)"
    result = cluster.run("kubectl", "exec", "shell", "--", "python3", "-c", program, check=False, timeout_seconds=60)
    assert "gaierror" in result.stderr


def test_image_is_mounted_as_a_volume(cluster: Cluster, kubernetes: Kubernetes, base: str, files: str) -> None:
    volume = {"name": "weights", "image": {"reference": files, "pullPolicy": "IfNotPresent"}}
    mount = {"name": "weights", "mountPath": "/workspace/weights", "readOnly": True}
    kubernetes.apply(pod("reader", base, "cat /workspace/weights/config.json", volumes=[volume], volumeMounts=[mount]))
    kubernetes.until("pod reader ends", lambda: phase(kubernetes, "reader") == "Succeeded")
    assert cluster.kubectl("logs", "reader") == '{"model_type": "llama"}\n'


def test_node_advertises_gpus(kubernetes: Kubernetes, cluster: Cluster, base: str) -> None:
    claim = {"limits": {"nvidia.com/gpu": "2"}}
    wanted = pod("gpu", base, "true")
    wanted["spec"]["containers"][0]["resources"] = claim  # type: ignore[index]
    kubernetes.apply(wanted)
    kubernetes.until("a pod with two GPUs ends", lambda: phase(kubernetes, "gpu") == "Succeeded")


def test_pods_are_deleted(kubernetes: Kubernetes) -> None:
    kubernetes.delete("service", "web")
    kubernetes.delete("pods", "-l", "app", "--grace-period=1")
    assert kubernetes.items("pods") == []
