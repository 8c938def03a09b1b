"""What a CustomResourceDefinition says beyond the models: versions, columns, rules, subresources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kaito.runtime.meta import Resource

ColumnType = Literal["string", "integer", "number", "boolean", "date"]
RuleReason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A validation rule in CEL, attached to a model by `rules: ClassVar = [Rule(...)]` or to a field by `rules(...)`.

    `self` is the value; a rule that uses `oldSelf` runs on updates only.
    """

    rule: str
    message: str = ""
    """What the user reads when it fails."""
    message_expression: str = ""
    """CEL that computes the message; wins over `message`."""
    field_path: str = ""
    """The field the error points at, relative to the value: `.spec.size`."""
    reason: RuleReason | None = None
    optional_old_self: bool = False
    """Run also on creation, with `oldSelf` an optional."""

    def to_schema(self) -> dict[str, Any]:
        """The entry of `x-kubernetes-validations`."""
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
    """Rules of one field: `size: int = Field(json_schema_extra=rules(Rule("self >= oldSelf", "cannot shrink")))`."""
    return {"x-kubernetes-validations": [rule.to_schema() for rule in given], **schema}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    json_path: str
    type: ColumnType = "string"
    priority: int = 0
    """0 is always shown, 1 only with `-o wide`."""
    description: str = ""
    format: str = ""

    def to_schema(self) -> dict[str, Any]:
        """The entry of `additionalPrinterColumns`."""
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
    """Paths of the `scale` subresource, so that `kubectl scale` and autoscalers work."""

    replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ""

    def to_schema(self) -> dict[str, Any]:
        """The `scale` entry of `subresources`."""
        paths = {"specReplicasPath": self.replicas, "statusReplicasPath": self.status_replicas}
        return paths | ({"labelSelectorPath": self.selector} if self.selector else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One served version of a kind."""

    model: type[Resource]
    storage: bool = False
    """Objects are stored in this version; true for exactly one."""
    served: bool = True
    columns: Sequence[Column] = ()
    """Columns after NAME; without any, kubectl shows AGE."""
    deprecated: str = ""
    """The warning clients of this version get; empty while it is current."""
    scale: Scale | None = None
    selectable: Sequence[str] = ()
    """JSON paths usable in field selectors: `.spec.nodeName`."""
    extra: Mapping[str, Any] | None = None
    """Further fields of the version, as the API has them."""

    @property
    def name(self) -> str:
        """`v1beta1` of `example.com/v1beta1`."""
        return self.model.gvk().version
