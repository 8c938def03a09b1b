"""Label and field selectors of list, watch and delete-collection requests.

`parse_labels` and `parse_fields` raise a 400 `StatusError` as the real server does; the result is a predicate over
objects. Which fields can be selected is a table per type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kaito.apiserver.errors import bad_request
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.wire import Json, Object, lookup

_TOKEN = re.compile(r"\s*(?:(!=|==|=|!|\(|\)|,|>|<)|([^\s=!,()<>]+))")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_KEY = re.compile(r"^([a-z0-9A-Z.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")


_OPERATORS = frozenset({"=", "==", "!=", "!", "<", ">", "("})


@dataclass(frozen=True, slots=True)
class Requirement:
    """One comma-separated part of a label selector."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Object) -> bool:
        """Returns whether labels meet this requirement."""
        present = self.key in labels
        match self.operator:
            case "exists":
                return present
            case "!":
                return not present
            case "in":
                return present and labels[self.key] in self.values
            case "notin":
                return not present or labels[self.key] not in self.values
            case _:
                return present and self._compares(str(labels[self.key]))

    def _compares(self, value: str) -> bool:
        bound = next(iter(self.values))
        try:
            return int(value) > int(bound) if self.operator == "gt" else int(value) < int(bound)
        except ValueError:
            return False


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.failure(f"unexpected character at {position}")
            self.tokens.append(match.group(1) or match.group(2))
            position = match.end()
        self.index = 0

    def failure(self, why: str) -> Exception:
        return bad_request(f"unable to parse requirement: {why}")

    def peek(self) -> str:
        return self.tokens[self.index] if self.index < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.index += 1
        return token

    def key(self) -> str:
        token = self.next()
        if not _KEY.match(token):
            raise self.failure(
                f'<nil>: Invalid value: "{token}": name part must consist of alphanumeric characters, '
                f"'-', '_' or '.', "
                "and must start and end with an alphanumeric character"
            )
        return token

    def value(self) -> str:
        token = "" if self.peek() in {",", ")", ""} else self.next()
        if token in _OPERATORS:
            raise self.failure(f"found '{token}', expected: identifier")
        if not _VALUE.match(token) or len(token) > 63:
            raise self.failure(
                f'values[0][x]: Invalid value: "{token}": a valid label must be an empty string or consist of '
                "alphanumeric characters"
            )
        return token

    def values(self) -> frozenset[str]:
        if self.next() != "(":
            raise self.failure("found values without an opening parenthesis, expected: '('")
        if self.index >= len(self.tokens):
            raise self.failure("found '', expected: ',', ')' or identifier")
        found = {self.value()}
        while self.peek() == ",":
            self.next()
            found.add(self.value())
        if self.next() != ")":
            raise self.failure("found the end of the selector, expected: ',' or ')'")
        return frozenset(found)

    def requirement(self) -> Requirement:
        if self.peek() == "!":
            self.next()
            return Requirement(self.key(), "!")
        key = self.key()
        operator = self.peek()
        if operator in {",", ""}:
            return Requirement(key, "exists")
        self.next()
        match operator:
            case "=" | "==":
                return Requirement(key, "in", frozenset({self.value()}))
            case "!=":
                return Requirement(key, "notin", frozenset({self.value()}))
            case "in" | "notin":
                return Requirement(key, operator, self.values())
            case ">" | "<":
                return Requirement(key, "gt" if operator == ">" else "lt", frozenset({self.value()}))
            case _:
                raise self.failure(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def parse(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        while self.index < len(self.tokens):
            requirements.append(self.requirement())
            if self.index < len(self.tokens) and self.next() != ",":
                raise self.failure(f"found '{self.tokens[self.index - 1]}', expected: ',' or 'end of string'")
        return requirements


def parse_labels(text: str) -> list[Requirement]:
    """Returns the requirements of a label selector; none for an empty one."""
    return _Parser(text).parse() if text.strip() else []


def label_predicate(requirements: Iterable[Requirement]) -> Callable[[Object], bool]:
    """Returns a predicate over objects."""
    wanted = tuple(requirements)

    def matches(data: Object) -> bool:
        labels: Object = data["metadata"].get("labels") or {}
        return all(requirement.matches(labels) for requirement in wanted)

    return matches


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One comma-separated part of a field selector."""

    path: str
    value: str
    negated: bool = False


_SELECTABLE: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "replicasets.apps": frozenset({"status.replicas"}),
    "jobs.batch": frozenset({"status.successful"}),
    "events": frozenset(
        {
            *(
                f"{holder}.{name}"
                for holder in ("involvedObject", "regarding")
                for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
            ),
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        }
    ),
}


def parse_fields(text: str, resource: Resource) -> list[FieldRequirement]:
    """Returns the requirements of a field selector; 400 for a field that the type does not offer."""
    found: list[FieldRequirement] = []
    for part in text.split(","):
        if not part:
            continue
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
        if match is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        path, operator, value = match.groups()
        allowed = {"metadata.name", *_SELECTABLE.get(resource.storage, ()), *resource.selectable_fields}
        if resource.namespaced or not resource.custom:
            allowed.add("metadata.namespace")
        if path not in allowed:
            what = f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'
            if resource.custom or resource.storage in _SELECTABLE:
                what = f"field label not supported: {path}"
            raise bad_request(what)
        found.append(FieldRequirement(path, re.sub(r"\\(.)", r"\1", value), operator == "!="))
    return found


_ALIASES = {"regarding": "involvedObject", "reportingController": "reportingComponent"}


def field_value(data: Object, path: str) -> str:
    """Returns the value that a field selector compares, as text ("" when missing)."""
    head, _, rest = path.partition(".")
    if head in _ALIASES and head not in data:
        head = _ALIASES[head]
    if head == "source":
        return str(lookup(data, ("source", "component")) or data.get("reportingComponent") or "")
    if path == "status.successful":
        return str(lookup(data, ("status", "succeeded")) or 0)
    value: Json = lookup(data, (head, *(rest.split(".") if rest else ())))
    if value is None and path == "status.replicas":
        return "0"
    if value is None and path in {"spec.unschedulable", "spec.hostNetwork"}:
        return "false"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def field_predicate(requirements: Iterable[FieldRequirement]) -> Callable[[Object], bool]:
    """Returns a predicate over objects."""
    wanted = tuple(requirements)

    def matches(data: Object) -> bool:
        return all((field_value(data, part.path) == part.value) != part.negated for part in wanted)

    return matches


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects of a type that a request selects: namespace, labels and fields."""

    namespace: str
    labels: tuple[Requirement, ...]
    fields: tuple[FieldRequirement, ...]

    def matches(self, data: Object) -> bool:
        """Returns whether an object belongs to the selection."""
        metadata: Object = data["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        if self.labels and not label_predicate(self.labels)(data):
            return False
        return not self.fields or field_predicate(self.fields)(data)

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered out."""
        return not (self.namespace or self.labels or self.fields)


def selection(resource: Resource, namespace: str, labels: str, fields: str) -> Selection:
    """Parses the selectors of a request."""
    return Selection(namespace, tuple(parse_labels(labels)), tuple(parse_fields(fields, resource)))


def selector_matches(selector: Object, labels: Object | None) -> bool:
    """Returns whether labels meet a `metav1.LabelSelector` (an empty one matches everything)."""
    have = labels or {}
    wanted: Object = selector.get("matchLabels") or {}
    if any(have.get(key) != value for key, value in wanted.items()):
        return False
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    expressions: list[Object] = selector.get("matchExpressions") or []
    return all(
        Requirement(str(item["key"]), operators[str(item["operator"])], frozenset(item.get("values") or ())).matches(
            have
        )
        for item in expressions
    )
