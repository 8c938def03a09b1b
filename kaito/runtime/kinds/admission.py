"""Webhook configurations: the admission webhooks that the API server calls before it stores an object."""

from pydantic import Field

from kaito.runtime.meta import LabelSelector, Model, Resource


class ServiceReference(Model):
    """Reference to a Service of a webhook."""

    namespace: str
    name: str
    path: str | None = None
    port: int | None = None


class WebhookClientConfig(Model):
    """Address of a webhook and the CA of its certificate (base64 PEM)."""

    url: str | None = None
    service: ServiceReference | None = None
    ca_bundle: str | None = None


class RuleWithOperations(Model):
    """Requests for which a webhook is called."""

    operations: list[str] = []
    api_groups: list[str] = []
    api_versions: list[str] = []
    resources: list[str] = []
    scope: str | None = None


class MatchCondition(Model):
    """CEL expression that a request must match for the webhook to be called."""

    name: str
    expression: str


class ValidatingWebhook(Model):
    """Webhook that may reject a request."""

    name: str
    client_config: WebhookClientConfig = Field(default_factory=WebhookClientConfig)
    rules: list[RuleWithOperations] = []
    failure_policy: str | None = None
    """`Fail` or `Ignore`, or a value of a newer API server."""
    match_policy: str | None = None
    """`Exact` or `Equivalent`, or a value of a newer API server."""
    side_effects: str | None = None
    """`None`, `NoneOnDryRun`, `Some` or `Unknown`, or a value of a newer API server."""
    timeout_seconds: int | None = None
    admission_review_versions: list[str] = []
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    match_conditions: list[MatchCondition] = []


class MutatingWebhook(ValidatingWebhook):
    """Webhook that may change the object."""

    reinvocation_policy: str | None = None
    """`Never` or `IfNeeded`, or a value of a newer API server."""


class ValidatingWebhookConfiguration(
    Resource, api="admissionregistration.k8s.io/v1", kind="ValidatingWebhookConfiguration", namespaced=False
):
    """Set of validating webhooks."""

    webhooks: list[ValidatingWebhook] = []


class MutatingWebhookConfiguration(
    Resource, api="admissionregistration.k8s.io/v1", kind="MutatingWebhookConfiguration", namespaced=False
):
    """Set of mutating webhooks."""

    webhooks: list[MutatingWebhook] = []
