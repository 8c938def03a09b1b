"""CEL validation rules (`x-kubernetes-validations`)."""

from __future__ import annotations

from kaito.apiserver.errors import FieldError
from kaito.apiserver.schema import Schema
from kaito.apiserver.wire import Object


def rule_errors(data: Object, schema: Schema, old: Object | None) -> list[FieldError]:
    """Return the rules that an object breaks."""
    return []
