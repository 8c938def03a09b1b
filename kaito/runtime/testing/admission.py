"""Webhooks in the process: the `World`'s API server asks `Webhook`s and `Conversion`s without sockets or certificates.

The questions and answers are the documents that travel between a real API server and a webhook server.
"""

from collections.abc import Mapping
from typing import Any, final

import msgspec

from kaito.apiserver import call_webhook
from kaito.runtime.webhook.answer import Answer, defaulting, validating
from kaito.runtime.webhook.conversion import Conversion, review as convert
from kaito.runtime.webhook.declaration import AnyWebhook
from kaito.runtime.webhook.manifests import admission_manifests
from kaito.runtime.webhook.review import parse

SERVICE = "in-process"
"""What the configurations point at; no such Service exists, nor is one needed."""


@final
class InProcessWebhooks:
    """Answers by path; what points elsewhere is called over the network."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        self._conversions: dict[tuple[str, str], Conversion[Any]] = {}

    def add(self, webhook: AnyWebhook) -> list[dict[str, Any]]:
        """Answer for a webhook; the configurations to store, so that the server asks."""
        if webhook.defaults:
            self._answers[webhook.mutate_path] = defaulting(webhook)
        if webhook.validate is not None:
            self._answers[webhook.validate_path] = validating(webhook)
        path = webhook.mutate_path if webhook.defaults else webhook.validate_path
        return admission_manifests(
            webhook,
            name=path.strip("/"),
            namespace="default",
            service=SERVICE,
            operations=("CREATE", "UPDATE", "DELETE"),
        )

    def convert(self, conversion: Conversion[Any]) -> None:
        """Answer for a conversion."""
        self._conversions[conversion.group_kind] = conversion

    async def call(self, config: dict[str, Any], review: dict[str, Any]) -> dict[str, Any]:
        """The server's `webhooks`: the answered review."""
        if review["kind"] == "ConversionReview" and self._converts(review["request"]["objects"][0]):
            return convert(self._conversions, msgspec.json.encode(review))
        service: dict[str, Any] = config.get("service") or {}
        answer = self._answers.get(str(service.get("path")))
        if answer is None:
            return await call_webhook(config, review)
        question = parse(msgspec.json.encode(review))
        verdict = await answer(question)
        answered: dict[str, Any] = msgspec.json.decode(verdict.encode(question.version, question.uid))
        return answered

    def _converts(self, document: Mapping[str, Any]) -> bool:
        return (str(document["apiVersion"]).rpartition("/")[0], document["kind"]) in self._conversions
