"""Converts pydantic models to structural OpenAPI v3 schemas, as CustomResourceDefinitions require.

A structural schema (Kubernetes documentation, "Specifying a structural schema") has no references, a type for every
value, and no alternatives except int-or-string. Properties of a model that it cannot express are errors that name the
field; they are never omitted silently. Docstrings become descriptions, which `kubectl explain` shows.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from kaito.runtime.crd.declare import Rule
from kaito.runtime.crd.docstrings import attribute_docstrings
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import Condition, Model, ObjectMeta, Resource

Schema = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
RULES = "x-kubernetes-validations"

_ORDER = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "anyOf",
    "items",
    "properties",
    "additionalProperties",
    "required",
    "nullable",
)
"""Keys that a structural schema may contain besides `x-kubernetes-*`, in the order of the output."""

_ROOT = {
    "apiVersion": {
        "description": "APIVersion defines the versioned schema of this representation of an object.",
        "type": "string",
    },
    "kind": {
        "description": "Kind is a string value representing the REST resource this object represents.",
        "type": "string",
    },
    "metadata": {"type": "object"},
}


_TYPE_META: Schema = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
"""Properties of a resource inside another one; the model has them as class attributes."""

_BUILT_IN = "kaito.runtime.kinds."
"""The modules of built-in kinds."""


def is_built_in(model: type) -> bool:
    """Whether the model, or a base class, is a built-in struct, to which later releases of Kubernetes add fields."""
    return any(base.__module__.startswith(_BUILT_IN) for base in model.__mro__)


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, with hooks where its output would lose information."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Makes an optional field not nullable: it may be absent, and the API server drops nulls of such fields."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Keeps only defaults that are not empty: the API server would write an empty one into every object."""
        default = schema.get("default")
        if isinstance(default, Model):
            inner = self.generate_inner(schema["schema"])
            value = default.to_dict()
            return inner | {"default": value} if value else inner
        inner = super().default_schema(schema)
        if not inner.get("default"):
            inner.pop("default", None)
        return inner

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Adds CEL rules, and preserves unknown fields of built-in structs.

        Models of built-in structs have the fields of one release: the API server would prune those of a later one.
        """
        model = schema["cls"]
        if issubclass(model, ObjectMeta):
            return {"type": "object", PRESERVE: True}
        produced = super().model_schema(schema)
        if issubclass(model, Model):
            _describe(produced.get("properties", {}), model)
        if issubclass(model, Resource):
            produced["properties"] = _TYPE_META | produced.get("properties", {})
        if is_built_in(model):
            produced[PRESERVE] = True
        given: Iterable[Rule] = getattr(model, "rules", ())
        if validations := [rule.to_schema() for rule in given]:
            produced[RULES] = validations
        if issubclass(model, Condition):
            produced["x-list-key"] = "type"
        return produced

    def any_schema(self, schema: core_schema.AnySchema) -> JsonSchemaValue:  # noqa: ARG002 -- pydantic's hook
        """Returns the schema of any value."""
        return {PRESERVE: True}


def _describe(properties: dict[str, Schema], model: type[Model]) -> None:
    """Adds the docstrings of attributes as descriptions, unless a field has a description."""
    docstrings = attribute_docstrings(model)
    for name, field in model.model_fields.items():
        text = docstrings.get(name, "")
        found = properties.get(str(field.validation_alias or field.alias or name))
        if text and found is not None:
            found.setdefault("description", text)


def structural_schema(model: type[Resource]) -> Schema:
    """Returns the `openAPIV3Schema` of a kind.

    Raises:
        ConfigurationError: A field's type has no structural schema; the message contains the field.
    """
    try:
        raw = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator)
    except PydanticInvalidForJsonSchema as error:
        message = f"{model.kind}: a field has no JSON schema: {error.message}"
        raise ConfigurationError(message) from error
    builder = _Builder(model.kind, raw.get("$defs", {}))
    schema = builder.build(raw, ".", ())
    properties: Schema = schema.get("properties", {})
    schema["properties"] = _ROOT | {name: value for name, value in properties.items() if name not in _ROOT}
    if "status" in properties:
        _drop_defaults(properties["status"])
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name not in {"metadata", "status"}]
        if not schema["required"]:
            del schema["required"]
    return schema


class _Builder:
    """Converts pydantic's JSON schema to a structural schema."""

    def __init__(self, kind: str, definitions: Mapping[str, Schema]) -> None:
        self._kind = kind
        self._definitions = definitions

    def build(self, raw: Schema, path: str, inside: tuple[str, ...]) -> Schema:
        """Converts the schema of a value; `inside` contains the definitions being expanded, to detect recursion."""
        raw, inside = self._resolve(raw, path, inside)
        schema: Schema = {}
        for name, value in raw.items():
            match name:
                case "properties":
                    schema[name] = {
                        field: self.build(inner, f"{path.rstrip('.')}.{field}", inside)
                        for field, inner in value.items()
                    }
                case "additionalProperties":
                    schema |= self._mapping(value, path, inside)
                case "items":
                    schema |= self._list(value, path, inside)
                case _ if name in _TRANSLATED:
                    schema |= _TRANSLATED[name](value)
                case _ if name.startswith("x-kubernetes-") or name in _ORDER:
                    schema[name] = value
                case _ if name not in _IGNORED:
                    self._refuse(path, f"{name} is not allowed in a structural schema")
                case _:
                    pass
        self._complete(schema, path)
        extensions = [name for name in schema if name not in _ORDER]
        return {name: schema[name] for name in (*_ORDER, *extensions) if name in schema}

    def _resolve(self, raw: Schema, path: str, inside: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """Resolves references and `allOf` with one element.

        Keys beside the reference take precedence over those of the target. Rules are merged, because those of a model
        apply wherever it is used.
        """
        while True:
            if "$ref" in raw:
                name = str(raw["$ref"]).rpartition("/")[2]
                if name in inside:
                    self._refuse(path, f"{name} is recursive; annotate the field with WithJsonSchema")
                inside = (*inside, name)
                raw = _at_place(self._definitions[name], raw, "$ref")
            elif len(raw.get("allOf", ())) == 1:
                raw = _at_place(raw["allOf"][0], raw, "allOf")
            else:
                return raw, inside

    def _complete(self, schema: Schema, path: str) -> None:
        """Adds the missing type, or preserves unknown fields of a value without one."""
        if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
            self._refuse(path, "a union of types has no structural schema; only int-or-string has one")
        if "enum" in schema and "type" not in schema:
            first: object = schema["enum"][0]
            schema["type"] = "boolean" if isinstance(first, bool) else "integer" if isinstance(first, int) else "string"
        if schema.get("type") == "object" and "properties" not in schema and "additionalProperties" not in schema:
            schema[PRESERVE] = True
        if "type" not in schema and not schema.get("x-kubernetes-int-or-string"):
            schema[PRESERVE] = True

    def _mapping(self, value: Any, path: str, inside: tuple[str, ...]) -> Schema:
        """Converts the values of a mapping. For models the value is `true`: unknown fields are allowed."""
        if not isinstance(value, dict):
            return {}
        built = self.build(value, f"{path}.*", inside)  # pyright: ignore[reportUnknownArgumentType] -- JSON
        return built if set(built) == {PRESERVE} else {"additionalProperties": built}

    def _list(self, value: Schema, path: str, inside: tuple[str, ...]) -> Schema:
        target, _ = self._resolve(value, path, inside)
        # API conventions: conditions are a map keyed by type, so that writers do not overwrite each other's.
        key = target.get("x-list-key")
        keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]} if key else {}
        return {"items": self.build(value, f"{path}[]", inside)} | keyed

    def _refuse(self, path: str, why: str) -> None:
        message = f"{self._kind}{path}: {why}"
        raise ConfigurationError(message)


def _paragraphs(docstring: str) -> Schema:
    """Joins the wrapped lines of a docstring: `kubectl explain` wraps the text again."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip())
    return {"description": "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)}


_TRANSLATED: dict[str, Callable[[Any], Schema]] = {
    "description": _paragraphs,
    "const": lambda value: {"enum": [value]},
    "exclusiveMinimum": lambda value: {"minimum": value, "exclusiveMinimum": True},
    "exclusiveMaximum": lambda value: {"maximum": value, "exclusiveMaximum": True},
    "uniqueItems": lambda unique: {"x-kubernetes-list-type": "set"} if unique else {},
}
"""JSON Schema 2020-12 keys with another form in OpenAPI v3.0 and Kubernetes."""

_IGNORED = frozenset({"title", "$defs", "examples", "deprecated", "propertyNames", "x-list-key"})


def _at_place(target: Schema, place: Schema, reference: str) -> Schema:
    """Merges the target of a reference with the keys beside it."""
    combined = target | {key: value for key, value in place.items() if key != reference}
    if RULES in target and RULES in place:
        combined[RULES] = [*target[RULES], *place[RULES]]
    return combined


def _drop_defaults(schema: Schema) -> None:
    """Removes defaults: status contains observations only."""
    schema.pop("default", None)
    for part in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            _drop_defaults(part)  # pyright: ignore[reportUnknownArgumentType] -- JSON
