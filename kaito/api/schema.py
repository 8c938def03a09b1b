"""Field types with limits in the generated CRD that the models do not enforce.

The limits are only in the schema (`json_schema_extra`). The API server enforces them on writes, and objects stored
under an older schema can still be read. `maxLength` and `maxItems` also limit the cost of the CEL rules, which the API
server estimates before it accepts a CRD.
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
"""An object of a core kind that is stored unchanged, so that fields of newer Kubernetes versions are neither lost nor
rejected. The schema has `type: object`, because CEL cannot read a field without a type."""
