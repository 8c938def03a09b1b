"""Builds the parts of a pod that provide data: adapters, datasets, and the init containers that pull them.

The presets images define the interface: every directory below `/mnt/adapter` is an adapter, and the environment
variable `KAITO_ADAPTER_STRENGTHS` contains the strengths as JSON. Upstream has one variable per adapter, which does not
work for names with a dash.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito.api.workspace import Adapter, DataSource
from kaito.workspace.plan import ModelContainer

ADAPTERS_DIR = "/mnt/adapter"
STRENGTHS_ENV = "KAITO_ADAPTER_STRENGTHS"
PULL_COMMAND = ("python3", "/workspace/oci/pull_adapter.py")
"""Command of the registry client in the presets images."""

_DEFAULT_STRENGTH = "1.0"
_SHARED_VOLUME = "adapter-volume"
CREDENTIALS_DIR = "/mnt/registry"
"""Directory of registry credentials; not below `/root`, which an unprivileged user cannot enter."""
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PodParts:
    """Containers, volumes and variables that a feature adds to a pod."""

    init_containers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    volumes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    mounts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    env: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    pull_secrets: list[str] = field(default_factory=list[str])


def part_name(prefix: str, name: str) -> str:
    """Returns `<prefix>-<name>` as the name of a container or volume: a DNS label of at most 63 characters.

    If the name is longer or contains dots, a digest takes its place.
    """
    plain = f"{prefix}-{name.lower()}"
    if _DNS_LABEL.fullmatch(plain) and len(plain) <= 63:
        return plain
    return f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def credentials(name: str, secrets: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Returns volume, mount and `--docker-config` arguments with the registry credentials of an init container."""
    if not secrets:
        return [], [], []
    volume = part_name("docker-config", name)
    directory = f"{CREDENTIALS_DIR}/{volume}"
    sources = [
        {"secret": {"name": secret, "items": [{"key": ".dockerconfigjson", "path": f"{secret}.json"}]}}
        for secret in secrets
    ]
    arguments = [word for secret in secrets for word in ("--docker-config", f"{directory}/{secret}.json")]
    return (
        [{"name": volume, "projected": {"sources": sources}}],
        [{"name": volume, "mountPath": directory, "readOnly": True}],
        arguments,
    )


def add_image_source(
    parts: PodParts, source: DataSource, *, name: str, directory: str, mount: dict[str, Any], model: ModelContainer
) -> None:
    """Adds the init container that unpacks `/data` of the source's image into a directory, with its credentials.

    Args:
        parts: what the pod gets.
        source: the image and its pull secrets.
        name: name of the data, which becomes part of the container's name.
        directory: where the files are unpacked.
        mount: the mount of the volume that contains the directory.
        model: image with the registry client, and the pull secrets of the pod, which are tried after the source's.
    """
    secrets = [*dict.fromkeys((*source.image_pull_secrets, *model.pull_secrets))]
    volumes, mounts, arguments = credentials(name, secrets)
    parts.init_containers.append(
        {
            "name": part_name("puller", name),
            "image": model.tools_image,
            "command": [*PULL_COMMAND, source.image, directory, *arguments],
            "volumeMounts": [mount, *mounts],
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
    )
    parts.volumes.extend(volumes)
    parts.pull_secrets.extend(source.image_pull_secrets)


def adapter_parts(adapters: Iterable[Adapter], model: ModelContainer) -> PodParts:
    """Returns what the adapters add to the pod, sorted by name: their order in the spec does not replace pods."""
    parts = PodParts()
    ordered = sorted(adapters, key=lambda adapter: adapter.source.name)
    shared = {"name": _SHARED_VOLUME, "mountPath": ADAPTERS_DIR}
    if any(adapter.source.image for adapter in ordered):
        parts.volumes.append({"name": _SHARED_VOLUME, "emptyDir": {}})
        parts.mounts.append(shared)
    for adapter in ordered:
        source = adapter.source
        directory = f"{ADAPTERS_DIR}/{source.name}"
        if source.image:
            add_image_source(parts, source, name=source.name, directory=directory, mount=shared, model=model)
        else:
            volume = part_name(_SHARED_VOLUME, source.name)
            parts.volumes.append({**(source.volume_source or {}), "name": volume})
            parts.mounts.append({"name": volume, "mountPath": directory, "readOnly": True})
    if ordered:
        strengths = {adapter.source.name: adapter.strength or _DEFAULT_STRENGTH for adapter in ordered}
        parts.env.append({"name": STRENGTHS_ENV, "value": json.dumps(strengths, sort_keys=True)})
    return parts
