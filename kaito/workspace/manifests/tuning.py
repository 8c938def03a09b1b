"""Builds the Job that tunes a model: one pod that downloads the data, trains, and pushes the adapter.

One container (`kaito-tuning`) does all three, so that no sidecar keeps the GPU after a failed run. The Job is not
retried, because a new pod does not have the checkpoints. The termination message contains the error. The Job contains a
digest of the user's inputs: if they change, the controller replaces it.
"""

import json
from typing import Any, Final

import yaml

from kaito.api import Workspace, labels
from kaito.api.workspace import TuningSpec
from kaito.runtime.kinds import ConfigMap, Job, JobSpec, PodFailurePolicy, PodTemplateSpec
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.digest import digest
from kaito.workspace.manifests.adapters import CREDENTIALS_DIR, PodParts, add_image_source
from kaito.workspace.manifests.preset_pod import preset_template, weights_annotation
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.ownership import pod_labels
from kaito.workspace.plan import ModelContainer, Plan
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.tracing import trace_annotation

DATA_DIR = "/mnt/data"
RESULTS_DIR = "/mnt/results"
PUSH_CREDENTIALS_DIR = f"{CREDENTIALS_DIR}/push"
PUSH_CREDENTIALS_FILE = f"{PUSH_CREDENTIALS_DIR}/config.json"

IN_CLUSTER_ENV = "KAITO_ALLOW_IN_CLUSTER_DATA_URLS"
"""Environment variable that allows the downloader to use addresses inside the cluster."""

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


_FAILURE_POLICY: Final[dict[str, Any]] = {
    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
}
"""A pod that is evicted with its node does not fail the Job: the next pod continues from the last checkpoint, if the
results are in a volume that outlives the pod."""


def training_config(workspace: Workspace, tuning: TuningSpec, *, downloads: bool, revision: str = "") -> ConfigMap:
    """Returns the ConfigMap with the defaults of the method, for a tuning Workspace that names none.

    Args:
        workspace: the owner of the ConfigMap.
        tuning: method and data.
        downloads: whether the model is downloaded, because no volume or image contains it.
        revision: commit to download; empty for the latest.
    """
    model: dict[str, Any] = {"torch_dtype": "bfloat16", "local_files_only": not downloads, "device_map": "auto"}
    if downloads and revision:
        model["revision"] = revision
    document = {
        "training_config": {
            "ModelConfig": model,
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
    """Renders the Job of a tuning Workspace.

    Raises:
        ValueError: the Workspace has no tuning, or was planned without a preset.
    """
    if workspace.tuning is None or plan.container is None:
        raise ValueError(f"workspace {workspace.key} has nothing to tune")
    template = _template(workspace, workspace.tuning, plan, plan.container, settings)
    return Job(
        metadata=ObjectMeta(
            name=workspace.name,
            namespace=workspace.namespace,
            labels=pod_labels(workspace),
            annotations={
                labels.TEMPLATE_HASH: digest(template),
                labels.INPUTS_HASH: tuning_inputs(workspace.tuning, plan),
                **weights_annotation(plan),
                **trace_annotation(plan),
            },
        ),
        spec=JobSpec(
            backoff_limit=0,
            pod_failure_policy=PodFailurePolicy.model_validate(_FAILURE_POLICY),
            template=PodTemplateSpec.model_validate(template),
        ),
    )


def tuning_inputs(tuning: TuningSpec, plan: Plan) -> str:
    """Returns a digest of what the user requests: the fields of the Workspace, and the user's configuration file.

    The version and the settings of the controller are not part of it: an upgrade neither interrupts a run nor repeats
    one that has ended. Fields with their default are left out, so that a new field does not change the digest.
    """
    fields = tuning.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    fields["method"] = tuning.method.lower()
    fields.pop("ttlSecondsAfterFinished", None)  # about the nodes after the run
    fields["preset"] = {**fields.get("preset", {}), "name": tuning.preset.name.lower()}
    return digest([fields, plan.config_hash if tuning.config else ""])


def _template(
    workspace: Workspace, tuning: TuningSpec, plan: Plan, model: ModelContainer, settings: WorkspaceSettings
) -> dict[str, Any]:
    container = {"ports": [{"name": "metrics", "containerPort": SERVER_PORT, "protocol": "TCP"}]}
    parts = [_data(tuning, model, settings), _results(tuning)]
    template = preset_template(workspace, plan, model, settings, container=container, parts=parts)
    return {**template, "spec": {"restartPolicy": "Never", **template["spec"]}}


def _data(tuning: TuningSpec, model: ModelContainer, settings: WorkspaceSettings) -> PodParts:
    """Returns the dataset below `/mnt/data`: downloaded by the run, unpacked from an image, or mounted."""
    parts, source = PodParts(), tuning.input
    mount = {"name": "data-volume", "mountPath": DATA_DIR}
    parts.mounts.append(mount)
    parts.volumes.append({**(source.volume_source or {"emptyDir": {}}), "name": "data-volume"})
    if source.urls:
        parts.env.append({"name": "DATA_URLS", "value": json.dumps(list(source.urls))})
        if settings.allow_in_cluster_data_urls:
            parts.env.append({"name": IN_CLUSTER_ENV, "value": "true"})
    if source.image:
        name = source.name or "data"
        add_image_source(parts, source, name=name, directory=DATA_DIR, mount=mount, model=model)
    return parts


def _results(tuning: TuningSpec) -> PodParts:
    """Returns the volume for the adapter, and the credentials to push it."""
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
