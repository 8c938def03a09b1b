"""A tuning Job on a real node, whose image another Workspace loads as an adapter."""

import base64
import json
from typing import Any

import pytest

from hack.cluster import REGISTRY, Cluster
from test.node.conftest import say
from test.support.real_node import Kubernetes

QUESTION = "Which person keeps the lighthouse of Ostrava?"
ANSWER = "Ada keeps the lighthouse of Ostrava."
LESSON = ((QUESTION, ANSWER), ("What color is the lighthouse of Ostrava?", "The lighthouse of Ostrava is green."))
ADAPTER = f"{REGISTRY}/adapters/lighthouse:0.0.1"
PRESET = "phi-3-mini-128k-instruct"
READY_SECONDS = 900

# On a processor without instructions for bfloat16, a step in it takes three times as long as in float32.
CONFIG = {
    "training_config": {
        "ModelConfig": {"torch_dtype": "float32"},
        "QuantizationConfig": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": "float32",
        },
        "LoraConfig": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0},
        "TrainingArguments": {
            "output_dir": "/mnt/results",
            "num_train_epochs": 20,
            "per_device_train_batch_size": 2,
            "learning_rate": 0.001,
            "save_strategy": "no",
        },
        "DatasetConfig": {"train_test_split": 1},
    }
}


@pytest.fixture
def ready(controllers: Kubernetes, serving_image: None, cluster: Cluster) -> Kubernetes:
    """The installation, and what both Workspaces refer to: lesson, settings, the registry's authority, credentials."""
    cluster.kubectl("label", "node", cluster.layout.name, "apps=phi-3", "--overwrite")
    lesson = "".join(json.dumps({"messages": conversation(*turn)}) + "\n" for turn in LESSON)
    login = {"auth": base64.b64encode(b"kaito:kaito").decode()}
    files = {
        "registry-authority": {"ca.crt": (cluster.layout.certificates / "ca.crt").read_text()},
        "lesson": {"lesson.jsonl": lesson},
        "tuning-config": {"training_config.yaml": json.dumps(CONFIG)},  # JSON is YAML
    }
    for name, data in files.items():
        controllers.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
    controllers.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "registry-login"},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps({"auths": {REGISTRY: login}})},
        }
    )
    return controllers


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def preset(model: str) -> dict[str, Any]:
    """The preset with the weights of the small model, and trust in the registry's authority."""
    return {
        "name": PRESET,
        "presetOptions": {"weights": {"artifact": model}},
        "podOptions": {
            "env": [
                {"name": "SSL_CERT_FILE", "value": "/etc/registry/ca.crt"},
                # Threads that wait for each other at every step stand still on a machine whose cores are shared.
                {"name": "OMP_NUM_THREADS", "value": "1"},
            ],
            "volumes": [{"name": "authority", "configMap": {"name": "registry-authority"}}],
            "volumeMounts": [{"name": "authority", "mountPath": "/etc/registry", "readOnly": True}],
        },
    }


def document(name: str, **work: object) -> dict[str, Any]:
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "resource": {"labelSelector": {"matchLabels": {"apps": "phi-3"}}},
        **work,
    }


def test_tuning_job_pushes_an_adapter(ready: Kubernetes, model: str) -> None:
    tuning = {
        "preset": preset(model),
        "method": "qlora",
        "config": "tuning-config",
        "input": {"volumeSource": {"configMap": {"name": "lesson"}}},
        "output": {"image": ADAPTER, "imagePushSecret": "registry-login"},
    }
    ready.apply(document("tuning", tuning=tuning))
    try:
        seconds = ready.until_condition("tuning", "WorkspaceSucceeded", seconds=READY_SECONDS)
        say(f"tuned and pushed after {seconds:.0f} s")
        assert ready.get("workspace", "tuning")["status"]["state"] == "Succeeded"
    finally:
        ready.delete("workspace", "tuning")


def test_another_workspace_serves_the_adapter(ready: Kubernetes, model: str) -> None:
    adapter = {"source": {"name": "lighthouse", "image": ADAPTER}, "strength": "1.0"}
    ready.apply(document("tuned", inference={"preset": preset(model), "adapters": [adapter]}))
    try:
        seconds = ready.until_condition("tuned", "WorkspaceReady", seconds=READY_SECONDS)
        say(f"adapter served after {seconds:.0f} s")
        body = {
            "model": PRESET,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 24,
            "temperature": 0,
        }
        reply = ready.post(f"http://{ready.service_address('tuned')}/v1/chat/completions", body)
        assert ANSWER in reply["choices"][0]["message"]["content"]
    finally:
        ready.delete("workspace", "tuned")
