"""CustomResourceDefinitions, for reading and patching; `kaito.runtime.crd` generates them."""

from typing import Any

from pydantic import Field

from kaito.runtime.kinds.admission import WebhookClientConfig
from kaito.runtime.meta import Model, Resource, Time


class CustomResourceDefinitionNames(Model):
    """Names of the kind in the API."""

    plural: str
    kind: str
    singular: str | None = None
    list_kind: str | None = None
    short_names: list[str] = []
    categories: list[str] = []


class CustomResourceDefinitionVersion(Model):
    """Version of a kind; the schema is a structural OpenAPI v3 schema."""

    name: str
    served: bool
    storage: bool
    deprecated: bool | None = None
    deprecation_warning: str | None = None
    schema_: dict[str, Any] = {}
    subresources: dict[str, Any] | None = None
    additional_printer_columns: list[dict[str, Any]] = []
    selectable_fields: list[dict[str, Any]] = []


class WebhookConversion(Model):
    """Conversion webhook and its review versions."""

    conversion_review_versions: list[str] = []
    client_config: WebhookClientConfig | None = None


class CustomResourceConversion(Model):
    """Conversion between versions."""

    strategy: str
    """`None` or `Webhook`, or a value of a newer API server."""
    webhook: WebhookConversion | None = None


class CustomResourceDefinitionSpec(Model):
    """Names, scope and versions of a custom kind."""

    group: str
    names: CustomResourceDefinitionNames
    scope: str
    """`Namespaced` or `Cluster`, or a value of a newer API server."""
    versions: list[CustomResourceDefinitionVersion] = []
    conversion: CustomResourceConversion | None = None
    preserve_unknown_fields: bool | None = None


class CustomResourceDefinitionCondition(Model):
    """`Established`, `NamesAccepted`, `NonStructuralSchema`, `Terminating`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time | None = None
    observed_generation: int | None = None


class CustomResourceDefinitionStatus(Model):
    """Whether the kind is served."""

    conditions: list[CustomResourceDefinitionCondition] = []
    stored_versions: list[str] = []
    accepted_names: CustomResourceDefinitionNames | None = None
    observed_generation: int | None = None


class CustomResourceDefinition(
    Resource, api="apiextensions.k8s.io/v1", kind="CustomResourceDefinition", namespaced=False
):
    """Definition of a custom kind."""

    spec: CustomResourceDefinitionSpec
    status: CustomResourceDefinitionStatus = Field(default_factory=CustomResourceDefinitionStatus)

    @property
    def is_established(self) -> bool:
        """Whether the API server serves the kind."""
        return any(c.type == "Established" and c.status == "True" for c in self.status.conditions)
