"""Parts of a CustomResourceDefinition that models do not contain: versions, columns, rules, subresources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kaito.runtime.meta import Resource

ColumnType = Literal["string", "integer", "number", "boolean", "date"]
RuleReason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Validation rule in CEL, of a model (`rules: ClassVar = [Rule(...)]`) or of a field (`rules(...)`).

    `self` is the value; a rule that uses `oldSelf` is evaluated on updates only.
    """

    rule: str
    message: str = ""
    """Error message for users."""
    message_expression: str = ""
    """CEL expression of the message; takes precedence over `message`."""
    field_path: str = ""
    """The field in the error, relative to the value: `.spec.size`."""
    reason: RuleReason | None = None
    optional_old_self: bool = False
    """Evaluate on creation as well, with an optional `oldSelf`."""

    def to_schema(self) -> dict[str, Any]:
        """Returns the entry of `x-kubernetes-validations`."""
        entry: dict[str, Any] = {
            "rule": self.rule,
            "message": self.message,
            "messageExpression": self.message_expression,
            "fieldPath": self.field_path,
            "reason": self.reason,
            "optionalOldSelf": self.optional_old_self,
        }
        return {name: value for name, value in entry.items() if value}


def rules(*given: Rule, **schema: Any) -> dict[str, Any]:
    """Returns the rules of a field: `size: int = Field(json_schema_extra=rules(Rule("self >= oldSelf", "cannot
    shrink")))`."""
    return {"x-kubernetes-validations": [rule.to_schema() for rule in given], **schema}


@dataclass(frozen=True, slots=True)
class Column:
    """Column of `kubectl get`."""

    name: str
    json_path: str
    type: ColumnType = "string"
    priority: int = 0
    """0: always shown, 1: only with `-o wide`."""
    description: str = ""
    format: str = ""

    def to_schema(self) -> dict[str, Any]:
        """Returns the entry of `additionalPrinterColumns`."""
        entry: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.json_path,
            "description": self.description,
            "format": self.format,
            "priority": self.priority,
        }
        return {name: value for name, value in entry.items() if value}


@dataclass(frozen=True, slots=True)
class Scale:
    """Paths of the `scale` subresource, for `kubectl scale` and autoscalers."""

    replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ""

    def to_schema(self) -> dict[str, Any]:
        """Returns the `scale` entry of `subresources`."""
        paths = {"specReplicasPath": self.replicas, "statusReplicasPath": self.status_replicas}
        return paths | ({"labelSelectorPath": self.selector} if self.selector else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Version of a kind."""

    model: type[Resource]
    storage: bool = False
    """Whether objects are stored in this version; true for exactly one."""
    served: bool = True
    columns: Sequence[Column] = ()
    """Columns after NAME; by default kubectl shows AGE."""
    deprecated: str = ""
    """Deprecation warning for clients of this version; empty if it is not deprecated."""
    scale: Scale | None = None
    selectable: Sequence[str] = ()
    """JSON paths that field selectors may use: `.spec.nodeName`."""
    extra: Mapping[str, Any] | None = None
    """Further fields of the version in the API's form."""

    @property
    def name(self) -> str:
        """`v1beta1` of `example.com/v1beta1`."""
        return self.model.gvk().version
