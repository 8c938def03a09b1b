"""Renders the webhook configurations of the API server from the declarations.

Called by scripts of operators, whose output is committed and applied, and by `World.admit`. The configurations have no
`caBundle`: the running manager writes it (`kaito.runtime.certs.injection`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.webhook.declaration import AnyWebhook, Operation

CONVERT_PATH: Final = "/convert"
"""Path of conversions, as in controller-runtime."""

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
    """Renders the MutatingWebhookConfiguration (defaults, finalizers) and the ValidatingWebhookConfiguration.

    Args:
        webhooks: the webhooks of the manager.
        name: name of both configurations.
        namespace: namespace of the Service.
        service: the Service in front of the operator's `webhook_port`, with port 443; the name by default, as in the
            manager.
        url: instead of a Service, `https://host:port` of an operator that runs outside of the cluster; the manager
            needs the host in `webhook_hosts`.
        operations: operations that are validated; defaults apply to creations and updates only. With `DELETE` and
            `Fail` no object of the kind can be deleted while the operator is down.
        failure_policy: whether requests are allowed (`Ignore`) or denied (`Fail`) while the operator is unavailable. A
            webhook that only adds a finalizer has `Ignore`, because the controller adds it otherwise.
        timeout_seconds: timeout of the API server.

    Raises:
        ConfigurationError: no webhook, a webhook that is given twice, or neither or both of namespace and url.
    """
    paths = [path for webhook in webhooks for path in (webhook.mutate_path, webhook.validate_path)]
    if not webhooks or len(set(paths)) < len(paths):
        raise ConfigurationError(f"admission_manifests({name}): give each webhook once, and at least one")
    common = {
        "admissionReviewVersions": ["v1"],
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": timeout_seconds,
    }
    changes = [operation for operation in operations if operation in {"CREATE", "UPDATE"}]
    defaults = [
        _entry("default", webhook, _client(namespace, service or name, url, webhook.mutate_path), changes) | common
        for webhook in webhooks
        if webhook.defaults or webhook.mutate
    ] + [
        _entry("finalizer", webhook, _client(namespace, service or name, url, webhook.mutate_path), ["CREATE"])
        | common
        | {"failurePolicy": "Ignore"}
        for webhook in webhooks
        if webhook.finalizer and not (webhook.defaults or webhook.mutate) and "CREATE" in operations
    ]
    validations = [
        _entry("validate", webhook, _client(namespace, service or name, url, webhook.validate_path), operations)
        | common
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
    """The `conversion=` of `crd(...)` for the manager's webhook server.

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


def _entry(action: str, webhook: AnyWebhook, client: Mapping[str, Any], operations: Sequence[str]) -> dict[str, Any]:
    gvk, plural = webhook.kind.gvk(), webhook.kind.plural
    return {
        # Unique; the API server requires at least three segments.
        "name": f"{action}.{gvk.version}.{plural}.{gvk.group or 'core'}",
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
