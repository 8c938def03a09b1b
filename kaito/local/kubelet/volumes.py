"""Writes the volumes of a pod as folders below the pod's folder.

ConfigMaps, secrets and projected sources become files; empty dirs and claims become folders; a claim's folder is kept
after its pod. Objects are read when the volume is written, as a kubelet does at mount time; ConfigMaps of running pods
are read again later.
"""

import base64
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import final

from kaito.runtime.kinds import ConfigMap, Container, KeyToPath, Pod, Secret, Volume


class MountError(Exception):
    """A volume cannot be set up yet; the message contains the missing object."""


GetConfigMap = Callable[[str, str], Awaitable[ConfigMap | None]]
GetSecret = Callable[[str, str], Awaitable[Secret | None]]


@final
class Volumes:
    """Sets up the volumes of pods below one folder."""

    def __init__(self, root: Path, config_map: GetConfigMap, secret: GetSecret) -> None:
        self._root = root
        self._config_map = config_map
        self._secret = secret

    async def prepare(self, pod: Pod, folder: Path) -> dict[str, Path]:
        """Writes the volumes of a pod; returns the folder of each volume by name.

        Raises:
            MountError: a ConfigMap or Secret that is not optional does not exist, or lacks a key.
        """
        return {
            volume.name: await self._prepare_volume(pod, volume, folder / "volumes" / volume.name)
            for volume in pod.spec.volumes
        }

    async def refresh(self, pod: Pod, folder: Path) -> None:
        """Writes the ConfigMap volumes of a running pod again, as a kubelet does when their objects change.

        A ConfigMap that was deleted leaves the files as they are.
        """
        for volume in pod.spec.volumes:
            if volume.config_map is not None:
                with contextlib.suppress(MountError):
                    await self._prepare_volume(pod, volume, folder / "volumes" / volume.name)

    async def _prepare_volume(self, pod: Pod, volume: Volume, folder: Path) -> Path:
        if volume.host_path is not None:
            return Path(volume.host_path.path)
        if volume.persistent_volume_claim is not None:
            folder = self._root / "claims" / pod.namespace / volume.persistent_volume_claim.claim_name
        folder.mkdir(parents=True, exist_ok=True)
        if volume.config_map is not None:
            source = volume.config_map
            await self._write_config_map(
                pod.namespace, source.name, source.items, folder, optional=bool(source.optional)
            )
        if volume.secret is not None:
            origin = volume.secret
            await self._write_secret(
                pod.namespace, origin.secret_name, origin.items, folder, optional=bool(origin.optional)
            )
        for entry in volume.projected.sources if volume.projected else ():
            if entry.config_map is not None:
                part = entry.config_map
                await self._write_config_map(
                    pod.namespace, part.name or "", part.items, folder, optional=bool(part.optional)
                )
            if entry.secret is not None:
                secret = entry.secret
                await self._write_secret(
                    pod.namespace, secret.name or "", secret.items, folder, optional=bool(secret.optional)
                )
        return folder

    async def _write_config_map(
        self, namespace: str, name: str, items: list[KeyToPath], folder: Path, *, optional: bool
    ) -> None:
        config_map = await self._config_map(namespace, name)
        if config_map is None:
            return _missing("configmap", namespace, name, optional=optional)
        data = {key: value.encode() for key, value in config_map.data.items()}
        binary = {key: base64.b64decode(value) for key, value in config_map.binary_data.items()}
        named = f'configmap "{namespace}/{name}"'
        return _write(data | binary, items, folder, mode=0o644, source=named, kind="config", optional=optional)

    async def _write_secret(
        self, namespace: str, name: str, items: list[KeyToPath], folder: Path, *, optional: bool
    ) -> None:
        secret = await self._secret(namespace, name)
        if secret is None:
            return _missing("secret", namespace, name, optional=optional)
        data = {key: base64.b64decode(value) for key, value in secret.data.items()}
        named = f'secret "{namespace}/{name}"'
        return _write(data, items, folder, mode=0o600, source=named, kind="secret", optional=optional)


def _missing(kind: str, namespace: str, name: str, *, optional: bool) -> None:
    if not optional:
        raise MountError(f'{kind} "{namespace}/{name}" not found')


def _write(
    data: dict[str, bytes], items: list[KeyToPath], folder: Path, *, mode: int, source: str, kind: str, optional: bool
) -> None:
    paths = {item.key: item.path for item in items} if items else {key: key for key in data}
    absent = sorted(key for key in paths if key not in data)
    if absent and not optional:
        # The kubelet's messages (pkg/volume/secret, pkg/volume/configmap).
        raise MountError(f"{source} references non-existent {kind} key: {', '.join(absent)}")
    for key, path in paths.items():
        if key in data:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Renamed into place: a running process never reads a part of a file.
            partial = target.with_name(f".{target.name}.partial")
            partial.unlink(missing_ok=True)
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT, mode), "wb") as file:
                file.write(data[key])
            partial.rename(target)


def mount_paths(container: Container, volumes: dict[str, Path]) -> dict[str, Path]:
    """Returns the folder of each mount path of a container, with its sub-path."""
    mounts: dict[str, Path] = {}
    for mount in container.volume_mounts:
        folder = volumes[mount.name] / mount.sub_path if mount.sub_path else volumes[mount.name]
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
        mounts[mount.mount_path] = folder
    return mounts
