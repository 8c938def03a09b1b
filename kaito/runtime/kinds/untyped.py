"""Objects of kinds without a model, which are known only at run time."""

from typing import Any

from kaito.runtime.meta import Model, Resource


class ListMeta(Model):
    """Metadata of a list."""

    resource_version: str = ""
    continue_: str = ""
    remaining_item_count: int | None = None


def untyped_kind(api: str, kind: str, *, plural: str = "", namespaced: bool = True) -> type["Untyped"]:
    """Creates a class for a kind without a model; `Untyped.field` reads all fields except metadata.

    Without a plural the client discovers plural and scope.
    """

    class Kind(Untyped, api=api, kind=kind, plural=plural, namespaced=namespaced):
        """An object without a model."""

    Kind.__name__ = Kind.__qualname__ = kind
    Kind.plural = plural
    return Kind


class Untyped(Resource):
    """Object without a model, with all fields as unknown fields."""

    def field(self, path: str) -> Any:
        """Returns the value at a dotted path of JSON names, or None: `obj.field("spec.replicas")`."""
        value: Any = self.model_extra or {}
        for name in path.split("."):
            if not isinstance(value, dict):
                return None
            value = value.get(name)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- JSON
        return value  # pyright: ignore[reportUnknownVariableType] -- JSON
