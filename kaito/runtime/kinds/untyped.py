"""Objects of kinds known only at run time, and metadata-only views of any kind."""

from typing import Any

from kaito.runtime.meta import Model, Resource


class ListMeta(Model):
    """Metadata of a list."""

    resource_version: str = ""
    continue_: str = ""
    remaining_item_count: int | None = None


def untyped_kind(api: str, kind: str, *, plural: str = "", namespaced: bool = True) -> type["Untyped"]:
    """A class for a kind without a model: every field but metadata is reached through `Untyped.field`.

    Without a plural the client asks the server for it, and for whether the kind has namespaces.
    """

    class Kind(Untyped, api=api, kind=kind, plural=plural, namespaced=namespaced):
        """An object without a model."""

    Kind.__name__ = Kind.__qualname__ = kind
    Kind.plural = plural
    return Kind


class Untyped(Resource):
    """An object without a model. Unknown fields are kept as they came."""

    def field(self, path: str) -> Any:
        """The value at a dotted path of wire names, or None: `obj.field("spec.replicas")`."""
        value: Any = self.model_extra or {}
        for name in path.split("."):
            if not isinstance(value, dict):
                return None
            value = value.get(name)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- JSON
        return value  # pyright: ignore[reportUnknownVariableType] -- JSON
