"""`Plan`: what applying dependents would change, from dry runs on the server, with a readable difference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from kaito.runtime.meta import ObjectKey, Resource

Action = Literal["create", "update", "delete", "none", "refuse", "skip"]

HIDDEN: Final = "<hidden>"
"""Stands for a value of a Secret."""

ABSENT: Final = "<absent>"

_SIGNS: Final[Mapping[Action, str]] = {
    "create": "+",
    "update": "~",
    "delete": "-",
    "none": "=",
    "refuse": "!",
    "skip": "?",
}
_SERVER_FIELDS: Final = {"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that would change."""

    path: str
    """For example `spec.replicas` or `spec.template.spec.containers[0].image`."""
    before: object
    after: object

    def __str__(self) -> str:
        return f"{self.path}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """What would happen to one object."""

    action: Action
    """`refuse`: the server or the framework would reject it; `skip`: its optional kind is not served."""
    kind: str
    key: ObjectKey
    fields: Sequence[FieldChange] = ()
    """Of an update."""
    message: str = ""
    """Why it would be refused."""
    stage: int = 0
    """Number of its stage, from 1; 0 for a deletion. Later stages wait for earlier ones."""

    def __str__(self) -> str:
        lines = [f"{_SIGNS[self.action]} {self.kind} {self.key}" + (f": {self.message}" if self.message else "")]
        return "\n".join([*lines, *(f"    {change}" for change in self.fields)])


@dataclass(frozen=True, slots=True)
class Plan:
    """What `Dependents.apply` would change. `str(plan)` is a preview, one line per object and changed field."""

    changes: Sequence[PlannedChange]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return all(change.action in {"none", "skip"} for change in self.changes)

    def __str__(self) -> str:
        shown = [str(change) for change in self.changes if change.action != "none"]
        return "\n".join(shown) or "no changes"


def differences(before: Resource, after: Resource) -> list[FieldChange]:
    """Returns the fields that differ, without the status and what the server maintains. Values of Secrets are
    hidden."""
    changes = _compare(_comparable(before), _comparable(after), "")
    if before.kind == "Secret" and before.group() == "":
        return [
            FieldChange(change.path, HIDDEN, HIDDEN) if change.path.startswith(("data", "stringData")) else change
            for change in changes
        ]
    return list(changes)


def _comparable(obj: Resource) -> dict[str, Any]:
    document = {name: value for name, value in obj.to_dict().items() if name != "status"}
    metadata: Mapping[str, Any] = document.get("metadata", {})
    document["metadata"] = {name: value for name, value in metadata.items() if name not in _SERVER_FIELDS}
    return document


def _compare(before: object, after: object, path: str) -> Iterator[FieldChange]:
    if before == after:
        return
    change = FieldChange(path, before, after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        old, new = cast("Mapping[str, object]", before), cast("Mapping[str, object]", after)
        for name in dict.fromkeys([*old, *new]):
            step = f".{name}" if name.isidentifier() else f"[{name}]"
            yield from _compare(old.get(name, ABSENT), new.get(name, ABSENT), (path + step).removeprefix("."))
        return
    if isinstance(before, list) and isinstance(after, list):
        olds, news = cast("list[object]", before), cast("list[object]", after)
        if len(olds) == len(news):
            for number, (old_item, new_item) in enumerate(zip(olds, news, strict=True)):
                yield from _compare(old_item, new_item, f"{path}[{number}]")
            return
    yield change
