"""What tells the API server to ask the webhooks: their configurations, made from the declarations.

Called by operators' own scripts, whose output is committed and applied, and by `World.admit`. There is no `caBundle` in
them: a running manager writes it (`kaito.runtime.certs.injection`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.webhook.declaration import AnyWebhook, Operation

CONVERT_PATH: Final = "/convert"
"""Where the webhook server answers conversions; controller-runtime's path."""

FailurePolicy = Literal["Fail", "Ignore"]


def admission_manifests(
    *webhooks: AnyWebhook,
    name: str,
    namespace: str = "",
    service: str = "",
    url: str = "",
    operations: Sequence[Operation] = ("CREATE", "UPDATE"),
    failure_policy: FailurePolicy = "Fail",
    timeout_seconds: int = 10,
) -> list[dict[str, Any]]:
    """A MutatingWebhookConfiguration for the defaults and a ValidatingWebhookConfiguration for the rest.

    Args:
        webhooks: those given to the manager.
        name: of both configurations.
        namespace: where the Service is.
        service: in front of the operator's `webhook_port`, at port 443; the name by default, as the manager does.
        url: instead of a Service, `https://host:port` of an operator that runs outside of the cluster; the manager
            needs the host in `webhook_hosts`.
        operations: asked about; defaults are only asked about creations and updates. With `DELETE` and `Fail` nothing
            can be deleted while the operator is down.
        failure_policy: what holds when the operator does not answer.
        timeout_seconds: how long the API server waits.

    Raises:
        ConfigurationError: there is no webhook, one is given twice, or there is not one place to ask.
    """
    paths = [path for webhook in webhooks for path in (webhook.mutate_path, webhook.validate_path)]
    if not webhooks or len(set(paths)) < len(paths):
        raise ConfigurationError(f"admission_manifests({name}): give each webhook once, and at least one")
    terms = {
        "admissionReviewVersions": ["v1"],
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": timeout_seconds,
    }
    changes = [operation for operation in operations if operation in {"CREATE", "UPDATE"}]
    defaults = [
        _entry("default", webhook, _client(namespace, service or name, url, webhook.mutate_path), changes) | terms
        for webhook in webhooks
        if webhook.defaults
    ]
    validations = [
        _entry("validate", webhook, _client(namespace, service or name, url, webhook.validate_path), operations) | terms
        for webhook in webhooks
        if webhook.validate is not None
    ]
    found = {"MutatingWebhookConfiguration": defaults, "ValidatingWebhookConfiguration": validations}
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": entries,
        }
        for kind, entries in found.items()
        if entries
    ]


def conversion_manifest(*, namespace: str = "", service: str = "", url: str = "") -> dict[str, Any]:
    """What `crd(..., conversion=)` takes: the API server has our webhook server convert.

    Arguments and errors are those of `admission_manifests`.
    """
    client = _client(namespace, service, url, CONVERT_PATH)
    return {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}


def _client(namespace: str, service: str, url: str, path: str) -> dict[str, Any]:
    if bool(url) == bool(namespace):
        raise ConfigurationError(f"webhook at {path}: give the namespace of its Service, or a url")
    if url:
        return {"url": url.rstrip("/") + path}
    if not service:
        raise ConfigurationError(f"webhook at {path}: give the name of its Service")
    return {"service": {"name": service, "namespace": namespace, "path": path}}


def _entry(what: str, webhook: AnyWebhook, client: Mapping[str, Any], operations: Sequence[str]) -> dict[str, Any]:
    gvk, plural = webhook.kind.gvk(), webhook.kind.plural
    return {
        # Unique, and the API server wants at least three words.
        "name": f"{what}.{gvk.version}.{plural}.{gvk.group or 'core'}",
        "clientConfig": dict(client),
        "rules": [
            {
                "apiGroups": [gvk.group],
                "apiVersions": [gvk.version],
                "operations": list(operations),
                "resources": [plural],
            }
        ],
    }
