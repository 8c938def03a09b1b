"""Resolves environment variables of a container: literals, references to ConfigMaps and Secrets, and fields of the
pod."""

import base64
import re
from collections.abc import Mapping

from kaito.local.kubelet.volumes import GetConfigMap, GetSecret
from kaito.runtime.kinds import Container, EnvVarSource, KeySelector, Pod

_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class MissingReference(Exception):
    """A variable refers to an object or key that does not exist (CreateContainerConfigError)."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replaces `$(NAME)` by its value; unknown names stay as they are (Kubernetes documentation)."""
    return _REFERENCE.sub(lambda match: env.get(match.group(1), match.group(0)), text)


class Environment:
    """Resolves the environment of containers of one pod."""

    def __init__(self, pod: Pod, ip: str, config_map: GetConfigMap, secret: GetSecret) -> None:
        self._pod = pod
        self._ip = ip
        self._config_map = config_map
        self._secret = secret

    async def resolve(self, container: Container) -> dict[str, str]:
        """All variables of the container, later ones able to refer to earlier ones.

        Raises:
            MissingReference: an object or key that is not optional does not exist.
        """
        env: dict[str, str] = {}
        for source in container.env_from:
            prefix = source.prefix or ""
            if source.config_map_ref is not None:
                config_map = source.config_map_ref
                found = await self._config_map(self._pod.namespace, config_map.name)
                if found is None and not config_map.optional:
                    raise MissingReference(f'configmap "{config_map.name}" not found')
                env |= {prefix + key: value for key, value in (found.data if found else {}).items()}
            if source.secret_ref is not None:
                secret = await self._secret(self._pod.namespace, source.secret_ref.name)
                if secret is None and not source.secret_ref.optional:
                    raise MissingReference(f'secret "{source.secret_ref.name}" not found')
                values = secret.data if secret else {}
                env |= {prefix + key: base64.b64decode(value).decode() for key, value in values.items()}
        for variable in container.env:
            if variable.value_from is None:
                env[variable.name] = expand(variable.value or "", env)
            else:
                value = await self._referenced(variable.value_from)
                if value is not None:
                    env[variable.name] = value
        return env

    async def _referenced(self, source: EnvVarSource) -> str | None:
        if source.field_ref is not None:
            return self._field(source.field_ref.field_path)
        if source.config_map_key_ref is not None:
            selector = source.config_map_key_ref
            config_map = await self._config_map(self._pod.namespace, selector.name)
            return _required(config_map.data.get(selector.key) if config_map else None, "configmap", selector)
        if source.secret_key_ref is not None:
            chosen = source.secret_key_ref
            secret = await self._secret(self._pod.namespace, chosen.name)
            encoded = _required(secret.data.get(chosen.key) if secret else None, "secret", chosen)
            return None if encoded is None else base64.b64decode(encoded).decode()
        return None

    def _field(self, path: str) -> str:
        pod = self._pod
        keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        if keyed:
            return (pod.labels if keyed.group(1) == "labels" else pod.annotations).get(keyed.group(2), "")
        return {
            "metadata.name": pod.name,
            "metadata.namespace": pod.namespace,
            "metadata.uid": pod.uid,
            "spec.nodeName": pod.spec.node_name or "",
            "spec.serviceAccountName": pod.spec.service_account_name or "default",
            "status.podIP": self._ip,
            "status.hostIP": "127.0.0.1",
        }.get(path, "")


def _required(value: str | None, kind: str, selector: KeySelector) -> str | None:
    if value is None and not selector.optional:
        raise MissingReference(f'{kind} "{selector.name}" has no key "{selector.key}", or does not exist')
    return value
