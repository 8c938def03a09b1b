"""Inputs that cannot run: Workspaces, each with the reason and a part of the message of the rejection.

Used by the unit tests (in-memory API server, virtual time) and by the process test on a real API server.
"""

from dataclasses import dataclass, field
from typing import Any

SIZE = "Standard_NC24ads_A100_v4"
A10 = "Standard_NV36ads_A10_v5"
V100 = "Standard_NC6s_v3"


@dataclass(frozen=True)
class Input:
    """One Workspace for which no claim may be created."""

    row: str
    part: dict[str, Any]
    """`inference` or `tuning`."""
    reason: str
    words: str
    """Part of the condition's message."""
    size: str = SIZE
    objects: tuple[dict[str, Any], ...] = field(default=())
    """Secrets and ConfigMaps that exist."""
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    at_admission: bool = False
    """Whether admission rejects it, because the object alone is invalid."""

    @property
    def name(self) -> str:
        """A name for the Workspace."""
        return "in-" + "".join(c if c.isalnum() else "-" for c in self.row.lower())

    def manifest(self) -> dict[str, Any]:
        """The Workspace."""
        return {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": self.name, "namespace": "default", "annotations": self.annotations},
            "resource": {"instanceType": self.size, "labelSelector": {"matchLabels": {"apps": self.name}}},
            **self.part,
        }


def config(name: str, text: str, key: str = "inference_config.yaml") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {key: text},
    }


PUSH = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "push", "namespace": "default"},
    "type": "kubernetes.io/dockerconfigjson",
    "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
}


TOKEN = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "token", "namespace": "default"},
    "data": {"HF_TOKEN": "eA=="},
}


def served(text: str, name: str, preset: str = "phi-4-mini-instruct") -> dict[str, Any]:
    """Inference with a configuration file, and the file."""
    return {
        "part": {"inference": {"preset": {"name": preset}, "config": name}},
        "objects": (config(name, text),),
    }


def template(**pod: Any) -> dict[str, Any]:
    container = {"name": "server", "image": "registry.example.com/server:1"}
    return {"inference": {"template": {"spec": {"containers": [container | pod.pop("container", {})], **pod}}}}


def adapter(**source: Any) -> dict[str, Any]:
    return {
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}, "adapters": [{"source": {"name": "a", **source}}]}
    }


def tuned(**change: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://example.com/data.parquet"]},
        "output": {"image": "registry.example.com/adapter:1", "imagePushSecret": "push"},
    }
    return {"tuning": given | change}


INPUTS = (
    Input("not YAML", reason="ConfigInvalid", words="not YAML", **served("vllm: [", "c1")),
    Input(
        "unknown key",
        reason="ConfigInvalid",
        words="did you mean vllm? (line 1, column 1)",
        **served("vlm: {}", "c2"),
    ),
    Input("context", reason="InvalidSpec", words="9999999", **served("vllm: {max-model-len: 9999999}", "c3")),
    Input(
        "context beyond memory",
        reason="InstanceTypeTooSmall",
        words="too small",
        size=A10,
        part={
            "inference": {
                "preset": {"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "token"}},
                "config": "c4",
            }
        },
        objects=(config("c4", "vllm: {max-model-len: 131072}"), TOKEN),
    ),
    Input(
        "parallel size",
        reason="InvalidSpec",
        words="tensor-parallel-size",
        **served("vllm: {tensor-parallel-size: 3}", "c5"),
    ),
    Input(
        "qlora without 4 bits",
        tuned(config="c6"),
        "ConfigInvalid",
        "method qlora needs QuantizationConfig.load_in_4bit",
        objects=(
            PUSH,
            config("c6", "training_config: {QuantizationConfig: {load_in_4bit: false}}", "training_config.yaml"),
        ),
    ),
    Input(
        "adapter image",
        adapter(image="!ValidImage"),
        "InvalidSpec",
        "'!ValidImage' is not an image reference",
        at_admission=True,
    ),
    Input(
        "data image",
        tuned(input={"image": "!ValidImage"}),
        "InvalidSpec",
        "tuning.input.image",
        objects=(PUSH,),
        at_admission=True,
    ),
    Input(
        "upper case",
        tuned(output={"image": "registry.example.com/Adapter:1", "imagePushSecret": "push"}),
        "InvalidSpec",
        "repositories are in lower case",
        objects=(PUSH,),
        at_admission=True,
    ),
    Input("unknown field", template(container={"cmd": ["x"]}), "WorkloadRefused", "cmd"),
    Input(
        "wrong type",
        template(nodeSelector={"x": True}),
        "WorkloadRefused",
        "nodeSelector.x: should be a valid string",
        at_admission=True,
    ),
    Input("volume source", adapter(volumeSource={"nonsense": {}}), "WorkloadRefused", "nonsense"),
    Input(
        "sixteen GPUs",
        template(container={"resources": {"limits": {"nvidia.com/gpu": 16}}}),
        "InvalidSpec",
        "requests 16 nvidia.com/gpu",
    ),
    Input(
        "more CPUs",
        template(container={"resources": {"requests": {"cpu": "25"}}}),
        "InvalidSpec",
        "requests 25 cpu, a node of Standard_NC24ads_A100_v4 has 24",
    ),
    Input(
        "more memory",
        template(container={"resources": {"requests": {"memory": "4Ti"}}}),
        "InvalidSpec",
        "requests 4096 GiB of memory, a node of Standard_NC24ads_A100_v4 has less than 576 GiB",
    ),
    Input(
        "pull secret",
        adapter(image="registry.example.com/a:1", imagePullSecrets=["absent"]),
        "SecretNotFound",
        "Secret 'absent' does not exist",
    ),
    Input(
        "impossible secret",
        tuned(output={"image": "registry.example.com/a:1", "imagePushSecret": "ACR_REGISTRY_SECRET_HERE"}),
        "InvalidSpec",
        "cannot be the name of a Secret",
        at_admission=True,
    ),
    Input(
        "nodes",
        {"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}}},
        "InvalidSpec",
        "whole number from 1 to 128",
        annotations={"kaito.sh/node-count-override": "99999999999"},
        at_admission=True,
    ),
    Input(
        "typo",
        template(container={"imagePulPolicy": "Always", "readinesProbe": {}}),
        "WorkloadRefused",
        "did you mean imagePullPolicy?",
        at_admission=True,
    ),
    Input(
        "type",
        template(container={"ports": [{"containerPort": "http"}]}),
        "WorkloadRefused",
        "containers[0].ports[0].containerPort",
        at_admission=True,
    ),
    Input(
        "text",
        {"inference": {"template": {"spec": {"containers": "x", "affinity": "no", "tolerations": "no"}}}},
        "WorkloadRefused",
        "inference.template.spec.affinity: should be a valid dictionary",
        at_admission=True,
    ),
    Input("restart", template(restartPolicy="Never"), "WorkloadRefused", "always restart", at_admission=True),
    Input(
        "data secret",
        tuned(input={"image": "registry.example.com/data:1", "imagePullSecrets": ["absent"]}),
        "SecretNotFound",
        "tuning.input.imagePullSecrets[0]: Secret 'absent' does not exist",
        objects=(PUSH,),
    ),
    Input(
        "url in the cluster",
        tuned(input={"urls": ["http://minio:9000/d.parquet"]}),
        "InvalidSpec",
        "--allow-in-cluster-data-urls",
        objects=(PUSH,),
        at_admission=True,
    ),
    Input(
        "env secret",
        template(container={"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}]}),
        "SecretNotFound",
        "containers[0].env[0].valueFrom.secretKeyRef.name: Secret 'absent' does not exist",
    ),
    Input(
        "selector",
        template(nodeSelector={"kubernetes.io/os": "windows"}),
        "InvalidSpec",
        "the Workspace's nodes have 'linux'",
    ),
    Input(
        "gpu on a CPU size",
        template(container={"resources": {"limits": {"nvidia.com/gpu": "1"}}}),
        "InvalidSpec",
        "has 0",
        size="Standard_D4s_v3",
    ),
    Input(
        "key of the secret",
        adapter(image="registry.example.com/a:1", imagePullSecrets=["opaque"]),
        "SecretInvalid",
        "has no key '.dockerconfigjson'",
        objects=(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "opaque", "namespace": "default"},
                "data": {"k": "eA=="},
            },
        ),
    ),
)
"""All inputs."""
