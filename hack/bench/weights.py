"""Measures the time from `kubectl apply` to the first token on a real node, by source of the weights.

    KAITO_E2E_KEEP=1 make e2e                     # a cluster with the images, the installation and the model
    python -m hack.bench weights --cluster kaito-e2e

One Workspace with SmolLM2-135M-Instruct is applied on an existing node and queried until it generates a token. The
serving image is on the node in all rows. Weights come from the registry of the cluster, on the same machine:

* image volume: the artifact is not on the node, or is (second pod).
* pull: an init container pulls into a volume of the pod, each time.
* node cache: an init container pulls into a PersistentVolumeClaim that is empty, or filled (second pod).

*weights* is the time until the container of the server starts: the transfer, and for all sources the creation of the
pod. *first token* includes the import of PyTorch and the load of the model on the CPU.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml

from hack.bench.report import Column, Figures, Report, medians
from hack.cluster import REGISTRY, Cluster, binaries

NAME: Final = "bench-weights"
ARTIFACT: Final = f"{REGISTRY}/models/phi-3-mini-4k-instruct:0.2.0"
CLAIM: Final = "weights-cache"
LIMIT_SECONDS: Final = 300.0
POLL_SECONDS: Final = 0.2
POD: Final = f"{NAME}-0"

COLUMNS = (
    Column("weights_seconds", "weights", "{:.1f} s"),
    Column("token_seconds", "first token", "{:.1f} s"),
)


class Node:
    """The cluster, with what the rows need."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.authority = (cluster.layout.certificates / "ca.crt").read_text()

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Applies objects in the namespace `default`."""
        self._cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(documents)
        )

    def get(self, *words: str) -> Any:
        """Returns an object; None if it does not exist."""
        found = self._cluster.run("kubectl", "get", *words, "-o", "json", check=False)
        return json.loads(found.stdout) if found.returncode == 0 else None

    def delete(self, *words: str) -> None:
        """Deletes objects and waits for it."""
        self._cluster.kubectl("delete", "--ignore-not-found", *words)

    def forget_artifact(self) -> None:
        """Removes the artifact from the node."""
        ctr = (binaries.path("ctr"), "--address", self._cluster.layout.containerd_socket, "-n", "k8s.io")
        self._cluster.run(*ctr, "images", "rm", "--sync", ARTIFACT, check=False)

    def first_token(self) -> bool:
        """Whether the Service answers a request with a token."""
        service = self.get("service", NAME)
        if service is None:
            return False
        body = {"model": "phi-3-mini-4k-instruct", "prompt": "Paris", "max_tokens": 1}
        url = f"http://{service['spec']['clusterIP']}/v1/completions"
        command = (
            "curl",
            "-sf",
            "--max-time",
            "20",
            "-H",
            "content-type: application/json",
            "-d",
            json.dumps(body),
            url,
        )
        return self._cluster.run(*command, check=False).returncode == 0

    def server_has_started(self) -> bool:
        """Whether the container of the server runs."""
        pod: dict[str, Any] = self.get("pod", POD) or {}
        statuses: list[dict[str, Any]] = pod.get("status", {}).get("containerStatuses", [])
        return any("running" in status["state"] for status in statuses)


def workspace(source: str) -> dict[str, Any]:
    """The Workspace of a row."""
    weights = {"source": source, "artifact": ARTIFACT} | ({"cacheClaim": CLAIM} if source == "NodeCache" else {})
    authority = {
        "env": [{"name": "SSL_CERT_FILE", "value": "/etc/registry/ca.crt"}],
        "volumes": [{"name": "authority", "configMap": {"name": "registry-authority"}}],
        "volumeMounts": [{"name": "authority", "mountPath": "/etc/registry", "readOnly": True}],
    }
    preset = {"name": "phi-3-mini-4k-instruct", "presetOptions": {"weights": weights}}
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": NAME, "annotations": {"kaito.sh/runtime": "transformers"}},
        "resource": {"labelSelector": {"matchLabels": {"apps": "phi-3"}}},
        "inference": {"preset": preset | ({} if source == "ImageVolume" else {"podOptions": authority})},
    }


def cache_volume(folder: str) -> list[dict[str, Any]]:
    """A volume of the node, and a claim for it."""
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": CLAIM}
    volume = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": "Retain",
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": CLAIM},
            "spec": {**volume, "hostPath": {"path": folder, "type": "DirectoryOrCreate"}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": "default"},
            "spec": {**spec, "resources": {"requests": {"storage": "2Gi"}}},
        },
    ]


def until(what: str, reached: Callable[[], bool], began: float) -> float:
    """Waits; returns the seconds since `began`."""
    while not reached():
        if time.monotonic() - began > LIMIT_SECONDS:
            raise TimeoutError(f"{what}: not after {LIMIT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def turn(node: Node, source: str) -> Figures:
    """Applies the Workspace, waits for its first token, and deletes it."""
    began = time.monotonic()
    node.apply(workspace(source))
    weights = until("the container of the server", node.server_has_started, began)
    token = until("a token", node.first_token, began)
    node.delete("workspace", NAME)
    until("the end of the pod", lambda: node.get("pod", POD) is None, time.monotonic())
    return {"weights_seconds": weights, "token_seconds": token}


def measure(cluster: Cluster, runs: int) -> Report:
    """Runs all rows in turn and reports the medians."""
    node = Node(cluster)
    cluster.kubectl("label", "node", cluster.layout.name, "apps=phi-3", "--overwrite")
    metadata = {"name": "registry-authority", "namespace": "default"}
    node.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": node.authority}})
    turns: dict[str, list[Figures]] = {}
    for run in range(runs):
        node.forget_artifact()
        folder = str(cluster.layout.state / f"weights-cache-{run}")
        node.apply(*cache_volume(folder))
        cluster.run("sh", "-c", f"rm -rf {folder} && mkdir -p {folder} && chown 65532:65532 {folder}")
        for row, source in (
            ("image volume", "ImageVolume"),
            ("image volume, second pod", "ImageVolume"),
            ("pull", "Pull"),
            ("node cache", "NodeCache"),
            ("node cache, second pod", "NodeCache"),
        ):
            turns.setdefault(row, []).append(turn(node, source))
            print(f"  {row} {run + 1}/{runs}: {turns[row][-1]}", flush=True)
        node.delete("persistentvolumeclaim", CLAIM)
        node.delete("persistentvolume", CLAIM)
    return Report(
        name="weights",
        about=f"from kubectl apply to the first token of SmolLM2-135M on a real node; medians of {runs}",
        settings={"runs": runs, "artifact": ARTIFACT},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cluster", default="kaito-e2e", help="name of the running cluster")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    return [measure(Cluster(options.cluster), options.runs)]
