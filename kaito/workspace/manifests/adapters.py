"""LoRA adapters in a pod: volumes, the containers that pull them, and their strengths.

The interface is the presets images': every directory below `/mnt/adapter` is an adapter, strengths are JSON in
`KAITO_ADAPTER_STRENGTHS`. A variable per adapter, as upstream has it, cannot carry a name with a dash through a shell.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito.api.workspace import Adapter
from kaito.workspace.plan import Serving

ADAPTERS_DIR = "/mnt/adapter"
STRENGTHS_ENV = "KAITO_ADAPTER_STRENGTHS"
PULL_COMMAND = ("python3", "/workspace/oci/pull_adapter.py")
"""Path of the registry client in the presets images."""

_DEFAULT_STRENGTH = "1.0"
_SHARED_VOLUME = "adapter-volume"
_CREDENTIALS_DIR = "/root/.docker/config.d"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PodParts:
    """What something adds to a pod."""

    init_containers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    volumes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    mounts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    env: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    pull_secrets: list[str] = field(default_factory=list[str])


def part_name(prefix: str, name: str) -> str:
    """`<prefix>-<name>` as a container or volume name: a DNS label of at most 63 characters.

    Adapter names may hold dots and be longer; then a digest stands for the name.
    """
    plain = f"{prefix}-{name.lower()}"
    if _LABEL.fullmatch(plain) and len(plain) <= 63:
        return plain
    return f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def credentials(name: str, secrets: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Volume, mount and `--docker-config` arguments that give a pulling container its registry credentials."""
    if not secrets:
        return [], [], []
    volume = part_name("docker-config", name)
    directory = f"{_CREDENTIALS_DIR}/{volume}"
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


def puller(
    *, name: str, reference: str, directory: str, secrets: Sequence[str], image: str, mount: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The init container that unpacks `/data` of an image into `directory`, and the volumes it needs."""
    volumes, mounts, arguments = credentials(name, secrets)
    container = {
        "name": part_name("puller", name),
        "image": image,
        "command": [*PULL_COMMAND, reference, directory, *arguments],
        "volumeMounts": [mount, *mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return container, volumes


def adapter_parts(adapters: Iterable[Adapter], serving: Serving) -> PodParts:
    """Everything the adapters add to the pod. Sorted by name, so that their order in the spec does not roll pods."""
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
            container, volumes = puller(
                name=source.name,
                reference=source.image,
                directory=directory,
                secrets=source.image_pull_secrets,
                image=serving.tools_image,
                mount=shared,
            )
            parts.init_containers.append(container)
            parts.volumes.extend(volumes)
            parts.pull_secrets.extend(source.image_pull_secrets)
        else:
            volume = part_name(_SHARED_VOLUME, source.name)
            parts.volumes.append({**(source.volume_source or {}), "name": volume})
            parts.mounts.append({"name": volume, "mountPath": directory, "readOnly": True})
    if ordered:
        strengths = {adapter.source.name: adapter.strength or _DEFAULT_STRENGTH for adapter in ordered}
        parts.env.append({"name": STRENGTHS_ENV, "value": json.dumps(strengths, sort_keys=True)})
    return parts
