"""Tells the API server which CA to trust: writes the bundle into the configurations that point at our server.

Configurations are found by what they point at (our Service, or a URL with one of our names), so nothing needs to be
named twice. Only `caBundle` is touched, by JSON patch with a `test` on the entry's name.
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
class Identity:
    """What a webhook configuration must point at to be ours."""

    service: str
    namespace: str
    hosts: tuple[str, ...] = ()
    """Names in URLs, for servers without a Service."""

    def is_meant(self, config: WebhookClientConfig) -> bool:
        """Whether the configuration points here."""
        if config.service is not None:
            return (config.service.name, config.service.namespace) == (self.service, self.namespace)
        return urlsplit(config.url or "").hostname in self.hosts


@final
class Injector:
    """Keeps `caBundle` right.

    Args:
        client: live client, not fenced: every replica may do this, all of them write the same.
        identity: who we are.
        crds: names of CustomResourceDefinitions that convert here.
    """

    def __init__(self, client: Client, identity: Identity, *, crds: Collection[str] = ()) -> None:
        self._client = client
        self._identity = identity
        self._crds = tuple(crds)

    async def inject(self, bundle: bytes) -> int:
        """Write the bundle wherever it is missing; how many objects were changed.

        Raises:
            ApiError: the server refuses; Forbidden names the missing permission.
        """
        encoded = base64.b64encode(bundle).decode()
        changed = 0
        for obj, places in [*await self._configurations(), *await self._definitions()]:
            operations = [operation for place in places for operation in place.operations(encoded)]
            if operations:
                changed += await self._patch(obj, operations)
        return changed

    async def _configurations(self) -> "Sequence[tuple[Resource, list[_Place]]]":
        found: list[MutatingWebhookConfiguration | ValidatingWebhookConfiguration] = [
            *await self._client.list(MutatingWebhookConfiguration),
            *await self._client.list(ValidatingWebhookConfiguration),
        ]
        return [(configuration, self._places(configuration.webhooks)) for configuration in found]

    def _places(self, webhooks: Sequence[ValidatingWebhook]) -> "list[_Place]":
        return [
            _Place(
                ("webhooks", number, "clientConfig"), webhook.client_config, ("webhooks", number, "name"), webhook.name
            )
            for number, webhook in enumerate(webhooks)
            if self._identity.is_meant(webhook.client_config)
        ]

    async def _definitions(self) -> "Sequence[tuple[Resource, list[_Place]]]":
        definitions = [await self._client.find(CustomResourceDefinition, name) for name in self._crds]
        return [(definition, self._conversion(definition)) for definition in definitions if definition is not None]

    def _conversion(self, definition: CustomResourceDefinition) -> "list[_Place]":
        conversion = definition.spec.conversion
        webhook = conversion.webhook if conversion is not None else None
        config = webhook.client_config if webhook is not None else None
        if config is None or not self._identity.is_meant(config):
            return []
        return [_Place(("spec", "conversion", "webhook", "clientConfig"), config)]

    async def _patch(self, obj: Resource, operations: list[dict[str, Any]]) -> bool:
        try:
            await self._client.patch(obj, JsonPatch(operations))
        except (Conflict, Invalid, NotFound) as error:
            _log.info("webhook configuration changed meanwhile, trying again soon", error=str(error))
            return False
        except ApiError as error:
            _log.warning("the CA bundle could not be written", kind=obj.kind, name=obj.name, error=str(error))
            raise
        _log.info("CA bundle written", kind=obj.kind, name=obj.name)
        return True


@dataclass(frozen=True, slots=True)
class _Place:
    """One `clientConfig` that points here."""

    path: tuple[str | int, ...]
    config: WebhookClientConfig
    name_path: tuple[str | int, ...] = ()
    name: str = ""
    """What must be at `name_path`, so that a reordered list is not mistaken."""

    def operations(self, encoded: str) -> list[dict[str, Any]]:
        """What puts the bundle there; nothing when it is there."""
        if self.config.ca_bundle == encoded:
            return []
        test = {"op": "test", "path": pointer(*self.name_path), "value": self.name}
        add = {"op": "add", "path": pointer(*self.path, "caBundle"), "value": encoded}
        return [test, add] if self.name_path else [add]
