"""Schemas of the built-in types, read from the definitions of a Kubernetes release (`data/builtin-schemas.json`)."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.wire import Object, decode

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@cache
def definitions() -> dict[str, Object]:
    """Returns the OpenAPI definitions by name."""
    found: dict[str, Object] = decode((files("kaito.apiserver") / "data" / "builtin-schemas.json").read_bytes())
    return found


@cache
def _names() -> dict[tuple[str, str, str], str]:
    return {
        (kind["group"], kind["version"], kind["kind"]): name
        for name, schema in definitions().items()
        for kind in schema.get("x-kubernetes-group-version-kind", ())
    }


def definition_name(group: str, version: str, kind: str) -> str | None:
    """Returns the name of the definition of a built-in kind."""
    return _names().get((group, version, kind))


@cache
def builtin_schema(group: str, version: str, kind: str) -> Schema | None:
    """Returns the schema of a built-in kind, or None for one the release does not define."""
    name = definition_name(group, version, kind)
    return None if name is None else Schema(definitions()[name], definitions())


@cache
def object_meta() -> Schema:
    """Returns the schema of `ObjectMeta`."""
    return Schema(definitions()[OBJECT_META], definitions())


class _WithMetadata(Schema):
    """The schema of a custom resource with the server's `ObjectMeta` instead of the CRD's metadata."""

    __slots__ = ()

    def child(self, name: str) -> Schema | None:
        """Returns the schema of a property."""
        return object_meta() if name == "metadata" else super().child(name)

    def declares(self, name: str) -> bool:
        """Returns whether a property is written out in the schema."""
        return name in {"apiVersion", "kind", "metadata"} or super().declares(name)


@lru_cache(maxsize=64)
def ownership_schema(schema: Schema) -> Schema:
    """Returns the schema that ownership of a custom resource's fields is counted with; the same for one schema."""
    return _WithMetadata(schema.raw)
