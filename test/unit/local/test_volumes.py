"""Volumes and environments of local pods: what is missing keeps a container from starting, as with a kubelet."""

import base64
from pathlib import Path
from typing import Any

import pytest

from kaito.local.kubelet.environment import Environment, MissingReference
from kaito.local.kubelet.volumes import MountError, Volumes
from kaito.runtime.kinds import ConfigMap, Pod, Secret
from kaito.runtime.meta import ObjectMeta


async def config_map(namespace: str, name: str) -> ConfigMap | None:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace), data={"a": "1"}) if name == "here" else None


async def secret(namespace: str, name: str) -> Secret | None:
    data = {"config.json": base64.b64encode(b"{}").decode()}
    return Secret(metadata=ObjectMeta(name=name, namespace=namespace), data=data) if name == "here" else None


def pod(*, volume: dict[str, Any] | None = None, container: dict[str, Any] | None = None) -> Pod:
    return Pod.model_validate(
        {
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "containers": [{"name": "c", "image": "i", **(container or {})}],
                "volumes": [{"name": "v", **volume}] if volume else [],
            },
        }
    )


ITEMS = [{"key": ".dockerconfigjson", "path": "config.json"}]


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"secret": {"secretName": "here", "items": ITEMS}}, "references non-existent secret key: .dockerconfigjson"),
        (
            {"configMap": {"name": "here", "items": [{"key": "b", "path": "b"}]}},
            "references non-existent config key: b",
        ),
        ({"projected": {"sources": [{"secret": {"name": "here", "items": ITEMS}}]}}, "non-existent secret key"),
        ({"secret": {"secretName": "absent"}}, 'secret "n/absent" not found'),
    ],
)
async def test_a_missing_key_keeps_the_pod_from_starting(tmp_path: Path, volume: dict[str, Any], words: str) -> None:
    """11-local-missing-secret-key: the pod started without the file."""
    with pytest.raises(MountError, match=words):
        await Volumes(tmp_path, config_map, secret).prepare(pod(volume=volume), tmp_path)


async def test_an_optional_source_may_lack_the_key(tmp_path: Path) -> None:
    volume = {"secret": {"secretName": "here", "items": ITEMS, "optional": True}}
    folders = await Volumes(tmp_path, config_map, secret).prepare(pod(volume=volume), tmp_path)
    assert list(folders["v"].iterdir()) == []


async def test_the_keys_that_are_there_are_written(tmp_path: Path) -> None:
    volume = {"secret": {"secretName": "here", "items": [{"key": "config.json", "path": "x/y.json"}]}}
    folders = await Volumes(tmp_path, config_map, secret).prepare(pod(volume=volume), tmp_path)
    assert (folders["v"] / "x" / "y.json").read_bytes() == b"{}"


@pytest.mark.parametrize("source", ["configMapRef", "secretRef"])
async def test_a_missing_source_of_all_variables_keeps_the_container_from_starting(source: str) -> None:
    wanting = pod(container={"envFrom": [{source: {"name": "absent"}}]})
    with pytest.raises(MissingReference, match='"absent" not found'):
        await Environment(wanting, "127.0.0.1", config_map, secret).resolve(wanting.spec.containers[0])
    optional = pod(container={"envFrom": [{source: {"name": "absent", "optional": True}}]})
    assert await Environment(optional, "127.0.0.1", config_map, secret).resolve(optional.spec.containers[0]) == {}
