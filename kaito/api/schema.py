"""Field types that carry limits into the generated CRD, without making the models refuse what is already stored.

Limits live in the schema only (`json_schema_extra`): the API server enforces them on writes, while reading an object
stored under an older schema still works. `maxLength` and `maxItems` also bound the cost of the CEL rules, which the
API server estimates before it accepts a CRD.
"""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

ObjectName = Annotated[str, Field(json_schema_extra={"maxLength": 253})]
"""Name of another object in the same namespace: a DNS-1123 subdomain, at most 253 characters."""

ImageReference = Annotated[str, Field(json_schema_extra={"maxLength": 512})]
"""Container image reference, `registry/repository:tag` or `…@sha256:…`."""

Url = Annotated[str, Field(json_schema_extra={"maxLength": 2048})]
"""Absolute http or https URL."""

LabelKey = Annotated[str, Field(json_schema_extra={"maxLength": 317})]
"""`prefix/name`: prefix at most 253 characters, name at most 63."""

LabelValue = Annotated[str, Field(json_schema_extra={"maxLength": 63})]

RawObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object of a core kind kept as it came, so that a newer Kubernetes field is neither lost nor refused. The schema
says `type: object`, because CEL cannot see a field without a type."""
