"""Builds the parts of a pod that provide the weights of a model: volumes, and the init container that pulls them.

The weights are at `/workspace/weights` in every pod. With a cache, the init container makes links there to the files in
the cache, which the server reads at the same path.
"""

from typing import Any, Final

from kaito.models.sources import WEIGHTS_DIRECTORY
from kaito.models.weights import Weights
from kaito.workspace.manifests.adapters import PodParts, credentials
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.plan import ModelContainer

PULL_COMMAND: Final = ("python3", "/workspace/oci/pull_model.py")
"""Command of the registry client in Kaito's images."""

VOLUME: Final = "weights"
CACHE_VOLUME: Final = "weights-cache"
CACHE_DIRECTORY: Final = "/workspace/cache"

PULLER: Final = "weights"
"""Name of the init container that pulls the weights."""

_OPEN_CACHE: Final = f'test "$(stat -c %u {CACHE_DIRECTORY})" != 0 || chmod 1777 {CACHE_DIRECTORY}'
"""Makes a directory that the kubelet created writable for other users, with the sticky bit, as for `/tmp`. The owner
may do that without a capability."""


def weights_parts(model: ModelContainer) -> PodParts:
    """Returns what the source of the weights adds to the pod."""
    weights = model.weights
    match weights.method:
        case "Image":
            return PodParts()
        case "ImageVolume":
            image = {"reference": weights.artifact, "pullPolicy": "IfNotPresent"}
            return PodParts(
                volumes=[{"name": VOLUME, "image": image}],
                mounts=[{"name": VOLUME, "mountPath": WEIGHTS_DIRECTORY, "readOnly": True}],
            )
        case "Pull":
            parts = PodParts(volumes=[{"name": VOLUME, "emptyDir": {}}])
            _add_puller(parts, model)
            parts.mounts.append({"name": VOLUME, "mountPath": WEIGHTS_DIRECTORY, "readOnly": True})
            return parts
        case "NodeCache":
            return _cached(model)
        case "Download":
            return _downloaded({"name": VOLUME, "emptyDir": {}})


def _cached(model: ModelContainer) -> PodParts:
    weights = model.weights
    if weights.downloads:
        parts = _downloaded(_cache_volume(weights, VOLUME))
        opened = {"name": VOLUME, "mountPath": CACHE_DIRECTORY}
    else:
        parts = PodParts(volumes=[{"name": VOLUME, "emptyDir": {}}, _cache_volume(weights, CACHE_VOLUME)])
        opened = {"name": CACHE_VOLUME, "mountPath": CACHE_DIRECTORY}
        _add_puller(parts, model, opened)
        parts.mounts.append({"name": VOLUME, "mountPath": WEIGHTS_DIRECTORY, "readOnly": True})
        parts.mounts.append({**opened, "readOnly": True})
    if weights.cache_directory:
        parts.init_containers.insert(0, _cache_opener(model, opened))
    return parts


def _cache_volume(weights: Weights, name: str) -> dict[str, Any]:
    if weights.cache_claim:
        return {"name": name, "persistentVolumeClaim": {"claimName": weights.cache_claim}}
    return {"name": name, "hostPath": {"path": weights.cache_directory, "type": "DirectoryOrCreate"}}


def _cache_opener(model: ModelContainer, mount: dict[str, Any]) -> dict[str, Any]:
    """Returns the init container that makes the directory of the node writable.

    The kubelet creates it for root, and `fsGroup` does not apply to directories of the node.
    """
    return {
        "name": "cache-permissions",
        "image": model.tools_image,
        "command": ["/bin/sh", "-c", _OPEN_CACHE],
        "volumeMounts": [mount],
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _downloaded(volume: dict[str, Any]) -> PodParts:
    """Returns the volume with the cache of the Hugging Face client, which the server fills."""
    return PodParts(
        volumes=[volume],
        mounts=[{"name": VOLUME, "mountPath": WEIGHTS_DIRECTORY}],
        env=[{"name": "HF_HUB_CACHE", "value": WEIGHTS_DIRECTORY}],
    )


def _add_puller(parts: PodParts, model: ModelContainer, *cache: dict[str, Any]) -> None:
    """Adds the init container that pulls the artifact with the pull secrets of the pod."""
    volumes, mounts, arguments = credentials(VOLUME, model.pull_secrets)
    flags = [f"--progress-port={SERVER_PORT}", *(["--cache", CACHE_DIRECTORY] if cache else [])]
    parts.init_containers.append(
        {
            "name": PULLER,
            "image": model.tools_image,
            "command": [*PULL_COMMAND, model.weights.artifact, WEIGHTS_DIRECTORY, *flags, *arguments],
            "volumeMounts": [{"name": VOLUME, "mountPath": WEIGHTS_DIRECTORY}, *cache, *mounts],
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
    )
    parts.volumes.extend(volumes)
