"""Writes the CA bundle into the webhook configurations of this server, so that the API server trusts it.

Configurations are found by their target (the Service, or a URL with one of the host names), so their names need not be
configured. Only `caBundle` is changed, by a JSON patch that tests the name of the entry.
"""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import urlsplit

from kaito.runtime.client import Client, JsonPatch
from kaito.runtime.client.patch import pointer
from kaito.runtime.errors import ApiError, Conflict, Invalid, NotFound
from kaito.runtime.kinds import (
    CustomResourceDefinition,
    MutatingWebhookConfiguration,
    ValidatingWebhookConfiguration,
)
from kaito.runtime.kinds.admission import ValidatingWebhook, WebhookClientConfig
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Resource

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """The target of this server's webhook configurations."""

    service: str
    namespace: str
    hosts: tuple[str, ...] = ()
    """Host names in URLs, for servers without a Service."""

    def matches(self, config: WebhookClientConfig) -> bool:
        """Whether a configuration has this target."""
        if config.service is not None:
            return (config.service.name, config.service.namespace) == (self.service, self.namespace)
        return urlsplit(config.url or "").hostname in self.hosts


@final
class CABundleInjector:
    """Keeps `caBundle` of all configurations current.

    Args:
        client: live client, not fenced: all replicas write the same bundle.
        target: the target of this server.
        crds: names of the CustomResourceDefinitions that this server converts.
    """

    def __init__(self, client: Client, target: WebhookTarget, *, crds: Collection[str] = ()) -> None:
        self._client = client
        self._target = target
        self._crds = tuple(crds)

    async def inject(self, bundle: bytes) -> int:
        """Writes the bundle where it differs; the number of changed objects.

        Raises:
            ApiError: the API server rejects the patch; `Forbidden` contains the missing permission.
        """
        encoded = base64.b64encode(bundle).decode()
        changed = 0
        for obj, configs in [*await self._configurations(), *await self._definitions()]:
            operations = [operation for config in configs for operation in config.operations(encoded)]
            if operations:
                changed += await self._patch(obj, operations)
        return changed

    async def _configurations(self) -> "Sequence[tuple[Resource, list[_ClientConfig]]]":
        found: list[MutatingWebhookConfiguration | ValidatingWebhookConfiguration] = [
            *await self._client.list(MutatingWebhookConfiguration),
            *await self._client.list(ValidatingWebhookConfiguration),
        ]
        return [(configuration, self._client_configs(configuration.webhooks)) for configuration in found]

    def _client_configs(self, webhooks: Sequence[ValidatingWebhook]) -> "list[_ClientConfig]":
        return [
            _ClientConfig(
                ("webhooks", number, "clientConfig"), webhook.client_config, ("webhooks", number, "name"), webhook.name
            )
            for number, webhook in enumerate(webhooks)
            if self._target.matches(webhook.client_config)
        ]

    async def _definitions(self) -> "Sequence[tuple[Resource, list[_ClientConfig]]]":
        definitions = [await self._client.find(CustomResourceDefinition, name) for name in self._crds]
        return [(definition, self._conversion(definition)) for definition in definitions if definition is not None]

    def _conversion(self, definition: CustomResourceDefinition) -> "list[_ClientConfig]":
        conversion = definition.spec.conversion
        webhook = conversion.webhook if conversion is not None else None
        config = webhook.client_config if webhook is not None else None
        if config is None or not self._target.matches(config):
            return []
        return [_ClientConfig(("spec", "conversion", "webhook", "clientConfig"), config)]

    async def _patch(self, obj: Resource, operations: list[dict[str, Any]]) -> bool:
        try:
            await self._client.patch(obj, JsonPatch(operations))
        except (Conflict, Invalid, NotFound) as error:
            _log.info("conflict: webhook configuration changed concurrently, retrying", error=str(error))
            return False
        except ApiError as error:
            _log.warning("CA bundle not written", kind=obj.kind, name=obj.name, error=str(error))
            raise
        _log.info("CA bundle written", kind=obj.kind, name=obj.name)
        return True


@dataclass(frozen=True, slots=True)
class _ClientConfig:
    """One `clientConfig` with this target, and its path in the object."""

    path: tuple[str | int, ...]
    config: WebhookClientConfig
    name_path: tuple[str | int, ...] = ()
    name: str = ""
    """The value expected at `name_path`, so that a reordered list is not patched at the wrong index."""

    def operations(self, encoded: str) -> list[dict[str, Any]]:
        """The operations that write the bundle; empty if it is current."""
        if self.config.ca_bundle == encoded:
            return []
        test = {"op": "test", "path": pointer(*self.name_path), "value": self.name}
        add = {"op": "add", "path": pointer(*self.path, "caBundle"), "value": encoded}
        return [test, add] if self.name_path else [add]
