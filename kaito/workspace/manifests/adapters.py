"""Builds the parts of a pod that provide data: adapters, datasets, and the init containers that pull them.

The presets images define the interface: every directory below `/mnt/adapter` is an adapter, and the environment
variable `KAITO_ADAPTER_STRENGTHS` contains the strengths as JSON. Upstream has one variable per adapter, which does not
work for names with a dash.

The transformers server loads and unloads adapters from images without a restart: it follows a list in a ConfigMap and
pulls them. The pod template then contains neither names nor images, so that a change does not replace pods; it contains
the pull secrets, because a running pod cannot get another one. Adapters from volumes, and all adapters of the other
servers, are part of the template.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito.api import Workspace
from kaito.api.workspace import Adapter, DataSource
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.digest import digest
from kaito.workspace.ownership import pod_labels
from kaito.workspace.plan import ModelContainer, Plan

ADAPTERS_DIR = "/mnt/adapter"
STRENGTHS_ENV = "KAITO_ADAPTER_STRENGTHS"
PULL_COMMAND = ("python3", "/workspace/oci/pull_adapter.py")
"""Command of the registry client in the presets images."""

LIST_DIR = "/mnt/adapter-list"
LIST_KEY = "adapters.json"
STORE_DIR = "/mnt/adapter-store"
LIST_ENV = "KAITO_ADAPTER_LIST"
STORE_ENV = "KAITO_ADAPTER_STORE"
CREDENTIALS_ENV = "KAITO_ADAPTER_CREDENTIALS"

_LIST_VOLUME = "adapter-list"
_STORE_VOLUME = "adapter-store"
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


def is_listed(adapter: Adapter, model: ModelContainer | None) -> bool:
    """Whether the server pulls and loads the adapter by the list."""
    return model is not None and model.follows_adapter_list and bool(adapter.source.image)


def list_name(workspace: Workspace) -> str:
    """Returns the name of the ConfigMap with the list."""
    return f"{workspace.name}-adapters"


def adapter_list(workspace: Workspace, plan: Plan) -> ConfigMap | None:
    """Returns the ConfigMap with the list of adapters; None if the pods follow no list."""
    entries = _list_entries(workspace, plan)
    if not entries:
        return None
    document = {"revision": digest(entries), "adapters": entries}
    return ConfigMap(
        metadata=ObjectMeta(name=list_name(workspace), namespace=workspace.namespace, labels=pod_labels(workspace)),
        data={LIST_KEY: json.dumps(document, indent=1)},
    )


def list_revision(workspace: Workspace, plan: Plan) -> str:
    """Returns a digest of the list, which the pods report back; empty if they follow no list."""
    entries = _list_entries(workspace, plan)
    return digest(entries) if entries else ""


def _list_entries(workspace: Workspace, plan: Plan) -> list[dict[str, Any]]:
    adapters = workspace.inference.adapters if workspace.inference else ()
    listed = [adapter for adapter in adapters if is_listed(adapter, plan.container)]
    return [
        {
            "name": adapter.source.name,
            "image": adapter.source.image,
            "strength": float(adapter.strength or _DEFAULT_STRENGTH),
        }
        for adapter in sorted(listed, key=lambda adapter: adapter.source.name)
    ]


def _list_parts(workspace_list: str, listed: Sequence[Adapter], model: ModelContainer) -> PodParts:
    """Returns what a pod needs to follow the list: the list, a directory for what it pulls, and credentials."""
    parts = PodParts()
    parts.volumes.extend(
        (
            {"name": _LIST_VOLUME, "configMap": {"name": workspace_list}},
            {"name": _STORE_VOLUME, "emptyDir": {}},
        )
    )
    parts.mounts.extend(
        (
            {"name": _LIST_VOLUME, "mountPath": LIST_DIR, "readOnly": True},
            {"name": _STORE_VOLUME, "mountPath": STORE_DIR},
        )
    )
    parts.env.extend(({"name": LIST_ENV, "value": f"{LIST_DIR}/{LIST_KEY}"}, {"name": STORE_ENV, "value": STORE_DIR}))
    own = sorted({secret for adapter in listed for secret in adapter.source.image_pull_secrets})
    volumes, mounts, _ = credentials("adapters", [*dict.fromkeys((*own, *model.pull_secrets))])
    parts.volumes.extend(volumes)
    parts.mounts.extend(mounts)
    parts.env.extend({"name": CREDENTIALS_ENV, "value": mount["mountPath"]} for mount in mounts)
    return parts


def adapter_parts(adapters: Iterable[Adapter], model: ModelContainer, *, workspace_list: str) -> PodParts:
    """Returns what the adapters add to the pod, sorted by name: their order in the spec does not replace pods.

    Args:
        adapters: of the Workspace.
        model: the container of the model.
        workspace_list: name of the ConfigMap with the list of adapters.
    """
    everything = sorted(adapters, key=lambda adapter: adapter.source.name)
    listed = [adapter for adapter in everything if is_listed(adapter, model)]
    parts = _list_parts(workspace_list, listed, model) if listed else PodParts()
    ordered = [adapter for adapter in everything if not is_listed(adapter, model)]
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
