"""Webhooks in the process: the `World`'s API server calls `Webhook`s and `Conversion`s without sockets or certificates.

Requests and responses are the same documents as between a real API server and a webhook server.
"""

from collections.abc import Mapping
from typing import Any, final

import msgspec

from kaito.apiserver import call_webhook
from kaito.runtime.lifespan import StateProvider, no_state
from kaito.runtime.webhook.admission import AdmissionHandler, defaulting_handler, validating_handler
from kaito.runtime.webhook.conversion import Conversion, convert_review
from kaito.runtime.webhook.declaration import AnyWebhook
from kaito.runtime.webhook.manifests import admission_manifests
from kaito.runtime.webhook.review import parse_review

SERVICE = "in-process"
"""Service in the webhook configurations; it does not exist."""


@final
class InProcessWebhooks:
    """Calls webhooks of the process by path; other webhooks are called over the network.

    Args:
        state: Returns the state of the lifespan that the webhooks use.
    """

    def __init__(self, state: StateProvider = no_state) -> None:
        self._state = state
        self._handlers: dict[str, AdmissionHandler] = {}
        self._conversions: dict[tuple[str, str], Conversion[Any]] = {}

    def add(self, webhook: AnyWebhook) -> list[dict[str, Any]]:
        """Adds a webhook; returns the webhook configurations to create in the server."""
        if webhook.mutates:
            self._handlers[webhook.mutate_path] = defaulting_handler(webhook, self._state)
        if webhook.validate is not None:
            self._handlers[webhook.validate_path] = validating_handler(webhook, self._state)
        path = webhook.mutate_path if webhook.mutates else webhook.validate_path
        return admission_manifests(
            webhook,
            name=path.strip("/").replace("/", "."),
            namespace="default",
            service=SERVICE,
            operations=("CREATE", "UPDATE", "DELETE"),
        )

    def convert(self, conversion: Conversion[Any]) -> None:
        """Adds a conversion."""
        self._conversions[conversion.group_kind] = conversion

    async def call(self, config: dict[str, Any], review: dict[str, Any]) -> dict[str, Any]:
        """Calls a webhook and returns the review with the response; passed to the server as `webhooks`."""
        if review["kind"] == "ConversionReview" and self._converts(review["request"]["objects"][0]):
            return convert_review(self._conversions, msgspec.json.encode(review))
        service: dict[str, Any] = config.get("service") or {}
        handler = self._handlers.get(str(service.get("path")))
        if handler is None:
            return await call_webhook(config, review)
        parsed = parse_review(msgspec.json.encode(review))
        response = await handler(parsed)
        reply: dict[str, Any] = msgspec.json.decode(response.encode(parsed.version, parsed.uid))
        return reply

    def _converts(self, document: Mapping[str, Any]) -> bool:
        return (str(document["apiVersion"]).rpartition("/")[0], document["kind"]) in self._conversions
