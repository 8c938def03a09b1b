"""Label selectors: the `LabelSelector` of the API, its string form for requests, and matching in memory.

The semantics are those of the API server: every requirement must hold, and an empty selector matches everything.
Callers interpret an absent selector.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import Field, WithJsonSchema

from kaito.runtime.meta.model import Model

OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")

Operator = Annotated[str, WithJsonSchema({"type": "string", "enum": list(OPERATORS)})]
"""One of `OPERATORS` in schemas; objects from a newer API server may contain another operator."""


class LabelSelectorRequirement(Model):
    """Requirement for the value of a label."""

    key: str
    operator: Operator  # a docstring here would become a description in schemas that embed this struct
    values: list[str] = Field(default_factory=list[str])

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels satisfy the requirement; `NotIn` is satisfied by an absent label, too.

        An unknown operator matches nothing, as in the API server.
        """
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case _:
                return False

    def __str__(self) -> str:
        match self.operator:
            case "In":
                return f"{self.key} in ({','.join(sorted(self.values))})"
            case "NotIn":
                return f"{self.key} notin ({','.join(sorted(self.values))})"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case _:
                return f"{self.key} {self.operator.lower()} ({','.join(sorted(self.values))})"


class LabelSelector(Model):
    """Label selector: labels and expressions that must all match."""

    match_labels: dict[str, str] = Field(default_factory=dict[str, str])
    match_expressions: list[LabelSelectorRequirement] = Field(default_factory=list[LabelSelectorRequirement])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the string form: `app=web,tier in (a,b),!legacy,stage!=test`.

        Raises:
            ValueError: A part is not a requirement.
        """
        labels: dict[str, str] = {}
        expressions: list[LabelSelectorRequirement] = []
        for requirement in map(_requirement, _parts(text)):
            if requirement.operator == "In" and len(requirement.values) == 1 and requirement.key not in labels:
                labels[requirement.key] = requirement.values[0]
            else:
                expressions.append(requirement)
        return cls(match_labels=labels, match_expressions=expressions)

    @property
    def is_empty(self) -> bool:
        """Whether it matches everything."""
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels satisfy every requirement."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )

    def __str__(self) -> str:
        """Returns the `labelSelector` query parameter."""
        equalities = [f"{key}={value}" for key, value in sorted(self.match_labels.items())]
        return ",".join([*equalities, *map(str, self.match_expressions)])


_SET = re.compile(r"(?P<key>[^\s!=<>,()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUALITY = re.compile(r"(?P<key>[^\s!=<>,()]+)\s*(?P<operator>==?|!=)\s*(?P<value>[^\s!=,()]*)")
_PRESENCE = re.compile(r"(?P<absent>!?)\s*(?P<key>[^\s!=<>,()]+)")


def _parts(text: str) -> list[str]:
    """Splits at the commas that are not inside parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def _requirement(part: str) -> LabelSelectorRequirement:
    if found := _SET.fullmatch(part):
        values = [value.strip() for value in found["values"].split(",")]
        return LabelSelectorRequirement(
            key=found["key"], operator="In" if found["operator"] == "in" else "NotIn", values=values
        )
    if found := _EQUALITY.fullmatch(part):
        return LabelSelectorRequirement(
            key=found["key"], operator="NotIn" if found["operator"] == "!=" else "In", values=[found["value"]]
        )
    if found := _PRESENCE.fullmatch(part):
        return LabelSelectorRequirement(key=found["key"], operator="DoesNotExist" if found["absent"] else "Exists")
    message = f"{part!r} is not a label requirement such as a=b, a!=b, a in (b,c), a notin (b,c), a, !a"
    raise ValueError(message)
