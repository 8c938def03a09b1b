"""Admission in the process: the `World`'s API server asks `Webhook` declarations without sockets or certificates.

The questions and answers are the documents that travel between a real API server and a webhook server.
"""

from typing import Any, final

import msgspec

from kaito.apiserver.webhook_client import call_webhook
from kaito.runtime.webhook.answer import Answer, defaulting, validating
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

    async def call(self, config: dict[str, Any], review: dict[str, Any]) -> dict[str, Any]:
        """The server's `webhooks`: the answered review."""
        service: dict[str, Any] = config.get("service") or {}
        answer = self._answers.get(str(service.get("path")))
        if answer is None:
            return await call_webhook(config, review)
        question = parse(msgspec.json.encode(review))
        verdict = await answer(question)
        answered: dict[str, Any] = msgspec.json.decode(verdict.encode(question.version, question.uid))
        return answered
