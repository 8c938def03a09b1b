"""The Job that tunes a model: one pod that fetches the data, trains, and pushes the adapter.

The image does all three (`kaito-tuning`), so there is no sidecar that could outlive a failed run and keep the GPU: the
pod ends when the run ends. It is not retried, because a fresh pod has lost the checkpoints; its last words are in the
termination message. The Job carries a digest of its inputs: an edit makes a new Job.
"""

import json
from typing import Any

import yaml

from kaito.api import Workspace, labels
from kaito.api.workspace import TuningSpec
from kaito.runtime.kinds import ConfigMap, Job, JobSpec, PodTemplateSpec
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.digest import digest
from kaito.workspace.manifests.adapters import PodParts, puller
from kaito.workspace.manifests.inference import access_token, container_resources, pull_secret_names, storage
from kaito.workspace.manifests.placement import affinity, tolerations
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.ownership import pod_labels
from kaito.workspace.plan import Plan, Serving
from kaito.workspace.settings import WorkspaceSettings

DATA_DIR = "/mnt/data"
RESULTS_DIR = "/mnt/results"
PUSH_CREDENTIALS_DIR = "/root/.docker"
PUSH_CREDENTIALS_FILE = f"{PUSH_CREDENTIALS_DIR}/config.json"

IN_CLUSTER_ENV = "KAITO_ALLOW_IN_CLUSTER_DATA_URLS"
"""Environment variable with which the downloader allows addresses inside the cluster."""

_LORA = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}
_QUANTIZATION = {
    "lora": {"load_in_4bit": False},
    "qlora": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": True,
    },
}
"""Defaults of upstream Kaito v0.12's templates `lora-params-template` and `qlora-params-template`."""


def training_config(workspace: Workspace, tuning: TuningSpec, *, downloads: bool) -> ConfigMap:
    """The settings of a run that names none: its method's defaults, owned by the Workspace and gone with it.

    `downloads` says that the model is not in the image, so that files may be fetched.
    """
    document = {
        "training_config": {
            "ModelConfig": {"torch_dtype": "bfloat16", "local_files_only": not downloads, "device_map": "auto"},
            "QuantizationConfig": _QUANTIZATION[tuning.method.lower()],
            "LoraConfig": _LORA,
            "TrainingArguments": {
                "output_dir": RESULTS_DIR,
                "ddp_find_unused_parameters": False,
                "save_strategy": "epoch",
                "per_device_train_batch_size": 1,
            },
            "DataCollator": {"mlm": True},
            "DatasetConfig": {"shuffle_dataset": True, "train_test_split": 1},
        }
    }
    return ConfigMap(
        metadata=ObjectMeta(
            name=f"{workspace.name}-training", namespace=workspace.namespace, labels=pod_labels(workspace)
        ),
        data={"training_config.yaml": yaml.safe_dump(document, sort_keys=False)},
    )


def tuning_job(workspace: Workspace, plan: Plan, settings: WorkspaceSettings) -> Job:
    """The workload of a tuning Workspace.

    Raises:
        ValueError: the Workspace tunes nothing, or was planned without a preset.
    """
    if workspace.tuning is None or plan.serving is None:
        raise ValueError(f"workspace {workspace.key} has nothing to tune")
    template = _template(workspace, workspace.tuning, plan, plan.serving, settings)
    return Job(
        metadata=ObjectMeta(
            name=workspace.name,
            namespace=workspace.namespace,
            labels=pod_labels(workspace),
            annotations={labels.TEMPLATE_HASH: digest(template)},
        ),
        spec=JobSpec(backoff_limit=0, template=PodTemplateSpec.model_validate(template)),
    )


def _template(
    workspace: Workspace, tuning: TuningSpec, plan: Plan, serving: Serving, settings: WorkspaceSettings
) -> dict[str, Any]:
    parts = [storage(plan), _data(tuning, serving, settings), _results(tuning)]
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in sorted(serving.env.items())]
    container = {
        "name": workspace.name,
        "image": serving.image,
        "command": list(serving.command),
        "ports": [{"name": "metrics", "containerPort": SERVER_PORT, "protocol": "TCP"}],
        "env": [*env, *access_token(serving), *(variable for part in parts for variable in part.env)],
        "resources": container_resources(plan.hardware, settings),
        "volumeMounts": [mount for part in parts for mount in part.mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "initContainers": [init for part in parts for init in part.init_containers],
        "volumes": [volume for part in parts for volume in part.volumes],
        "affinity": affinity(workspace, settings.node_api),
        "tolerations": tolerations(),
        "imagePullSecrets": pull_secret_names(serving.pull_secrets, *(part.pull_secrets for part in parts)),
    }
    annotations = {labels.CONFIG_HASH: plan.config_hash} if plan.config_hash else {}
    return {
        "metadata": {"labels": pod_labels(workspace), "annotations": annotations},
        "spec": {name: value for name, value in spec.items() if value},
    }


def _data(tuning: TuningSpec, serving: Serving, settings: WorkspaceSettings) -> PodParts:
    """The dataset below `/mnt/data`: downloaded by the run itself, unpacked from an image, or mounted."""
    parts, source = PodParts(), tuning.input
    mount = {"name": "data-volume", "mountPath": DATA_DIR}
    parts.mounts.append(mount)
    parts.volumes.append({**(source.volume_source or {"emptyDir": {}}), "name": "data-volume"})
    if source.urls:
        parts.env.append({"name": "DATA_URLS", "value": json.dumps(list(source.urls))})
        if settings.allow_in_cluster_data_urls:
            parts.env.append({"name": IN_CLUSTER_ENV, "value": "true"})
    if source.image:
        container, volumes = puller(
            name=source.name or "data",
            reference=source.image,
            directory=DATA_DIR,
            secrets=source.image_pull_secrets,
            image=serving.tools_image,
            mount=mount,
        )
        parts.init_containers.append(container)
        parts.volumes.extend(volumes)
        parts.pull_secrets.extend(source.image_pull_secrets)
    return parts


def _results(tuning: TuningSpec) -> PodParts:
    """Where the adapter is written, and the credentials with which it is pushed."""
    parts, output = PodParts(), tuning.output
    parts.volumes.append({**(output.volume_source or {"emptyDir": {}}), "name": "results-volume"})
    parts.mounts.append({"name": "results-volume", "mountPath": RESULTS_DIR})
    if output.image_push_secret:
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        parts.volumes.append(
            {"name": "docker-config", "secret": {"secretName": output.image_push_secret, "items": items}}
        )
        parts.mounts.append({"name": "docker-config", "mountPath": PUSH_CREDENTIALS_DIR, "readOnly": True})
    return parts
