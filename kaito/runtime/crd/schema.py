"""A pydantic model as a structural OpenAPI v3 schema, the form CustomResourceDefinitions accept.

Structural means (Kubernetes documentation, "Specifying a structural schema"): no references, every value typed, no
alternatives except int-or-string. What a model says that the form cannot express is an error naming the field, never
left out silently. Descriptions come from docstrings, so that `kubectl explain` reads like the source.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from kaito.runtime.crd.declare import Rule
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
"""Order of the keys in the output, and all that a structural schema may hold besides `x-kubernetes-*`."""

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
"""Of a resource inside another one; the model has them on its class."""

_BUILT_IN = "kaito.runtime.kinds."
"""The modules of built-in kinds."""


def is_narrow(model: type) -> bool:
    """Whether the model, or one that it extends, names only some fields of a struct that is defined elsewhere."""
    return any(base.__module__.startswith(_BUILT_IN) for base in model.__mro__)


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, adjusted where its answer would lose meaning before it reaches us."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Optional means may be absent, not may be null: the API server drops nulls of such fields."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Keep only defaults that say something: an empty one would be written into every object."""
        default = schema.get("default")
        if isinstance(default, Model):
            inner = self.generate_inner(schema["schema"])
            said = default.to_dict()
            return inner | {"default": said} if said else inner
        inner = super().default_schema(schema)
        if not inner.get("default"):
            inner.pop("default", None)
        return inner

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Add what classes say and fields cannot: CEL rules, and which structs keep all their fields.

        Models of built-in structs are narrow: the API server would prune a pod's `seccompProfile`.
        """
        model = schema["cls"]
        if issubclass(model, ObjectMeta):
            return {"type": "object", PRESERVE: True}
        produced = super().model_schema(schema)
        if issubclass(model, Resource):
            produced["properties"] = _TYPE_META | produced.get("properties", {})
        if is_narrow(model):
            produced[PRESERVE] = True
        given: Iterable[Rule] = getattr(model, "rules", ())
        if validations := [rule.to_schema() for rule in given]:
            produced[RULES] = validations
        if issubclass(model, Condition):
            produced["x-list-key"] = "type"
        return produced

    def any_schema(self, schema: core_schema.AnySchema) -> JsonSchemaValue:  # noqa: ARG002 -- pydantic's hook
        """Anything at all."""
        return {PRESERVE: True}


def structural_schema(model: type[Resource]) -> Schema:
    """The `openAPIV3Schema` of a kind.

    Raises:
        ConfigurationError: a field's type has no structural form; the message names the field.
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
    """Walks pydantic's JSON schema and writes the structural one."""

    def __init__(self, kind: str, definitions: Mapping[str, Schema]) -> None:
        self._kind = kind
        self._definitions = definitions

    def build(self, raw: Schema, path: str, inside: tuple[str, ...]) -> Schema:
        """One value; `inside` are the definitions being expanded, to notice recursion."""
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
                    self._refuse(path, f"{name} has no place in a structural schema")
                case _:
                    pass
        self._complete(schema, path)
        extensions = [name for name in schema if name not in _ORDER]
        return {name: schema[name] for name in (*_ORDER, *extensions) if name in schema}

    def _resolve(self, raw: Schema, path: str, inside: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """Replace references and one-element `allOf` by what they mean.

        Words at the place win over the target's; rules add up, because a model's own must hold wherever it stands.
        """
        while True:
            if "$ref" in raw:
                name = str(raw["$ref"]).rpartition("/")[2]
                if name in inside:
                    self._refuse(path, f"{name} contains itself; give the field WithJsonSchema or a depth")
                inside = (*inside, name)
                raw = _at_place(self._definitions[name], raw, "$ref")
            elif len(raw.get("allOf", ())) == 1:
                raw = _at_place(raw["allOf"][0], raw, "allOf")
            else:
                return raw, inside

    def _complete(self, schema: Schema, path: str) -> None:
        """Give the value a type, or say that it has none on purpose."""
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
        """A mapping's values. For models, whose value is `true`, it only says that unknown fields survive."""
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
    """Docstrings are wrapped for the source; `kubectl explain` wraps again."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip())
    return {"description": "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)}


_TRANSLATED: dict[str, Callable[[Any], Schema]] = {
    "description": _paragraphs,
    "const": lambda value: {"enum": [value]},
    "exclusiveMinimum": lambda value: {"minimum": value, "exclusiveMinimum": True},
    "exclusiveMaximum": lambda value: {"maximum": value, "exclusiveMaximum": True},
    "uniqueItems": lambda unique: {"x-kubernetes-list-type": "set"} if unique else {},
}
"""JSON Schema 2020-12 words that OpenAPI v3.0 and Kubernetes spell differently."""

_IGNORED = frozenset({"title", "$defs", "examples", "deprecated", "propertyNames", "x-list-key"})


def _at_place(target: Schema, place: Schema, reference: str) -> Schema:
    """What a reference means where it stands."""
    combined = target | {key: value for key, value in place.items() if key != reference}
    if RULES in target and RULES in place:
        combined[RULES] = [*target[RULES], *place[RULES]]
    return combined


def _drop_defaults(schema: Schema) -> None:
    """Status says what was observed: nothing is assumed there."""
    schema.pop("default", None)
    for part in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            _drop_defaults(part)  # pyright: ignore[reportUnknownArgumentType] -- JSON
