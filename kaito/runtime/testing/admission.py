"""Admission in the process: the `World`'s API server asks `Webhook` declarations without sockets or certificates.

The questions and answers are the documents that travel between a real API server and a webhook server.
"""

from collections.abc import Iterator
from typing import Any, final

import msgspec

from kaito.apiserver.webhook_client import call_webhook
from kaito.runtime.webhook.answer import Answer, defaulting, validating
from kaito.runtime.webhook.declaration import AnyWebhook
from kaito.runtime.webhook.review import parse

GROUP = "admissionregistration.k8s.io"

SERVICE = {"name": "in-process", "namespace": "default"}
"""What the configurations point at; no such Service exists, nor is one needed."""


@final
class InProcessWebhooks:
    """Answers by path; what points elsewhere is called over the network."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    def add(self, webhook: AnyWebhook) -> Iterator[dict[str, Any]]:
        """Answer for a webhook; the configurations to store, so that the server asks."""
        if webhook.defaults:
            self._answers[webhook.mutate_path] = defaulting(webhook)
            yield _configuration("MutatingWebhookConfiguration", webhook, webhook.mutate_path)
        if webhook.validate is not None:
            self._answers[webhook.validate_path] = validating(webhook)
            yield _configuration("ValidatingWebhookConfiguration", webhook, webhook.validate_path)

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


def _configuration(kind: str, webhook: AnyWebhook, path: str) -> dict[str, Any]:
    gvk = webhook.kind.gvk()
    name = path.strip("/")
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{name}.testing.kaito.dev",
                "clientConfig": {"service": SERVICE | {"path": path}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "matchPolicy": "Equivalent",
                "rules": [
                    {
                        "apiGroups": [gvk.group],
                        "apiVersions": [gvk.version],
                        "resources": [webhook.kind.plural],
                        "operations": ["CREATE", "UPDATE", "DELETE"],
                    }
                ],
            }
        ],
    }
