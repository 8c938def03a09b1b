"""Turns the schema of a kind into classes with typed fields.

The types are those that lose nothing in a read and a write:

==================================  ================================================================================
schema                              type
==================================  ================================================================================
`type: string`                      `str`, also for enumerations, so that values of later versions can be read
`type: string, format: date-time`   `Timestamp`
`x-kubernetes-int-or-string`        `Quantity` if the pattern is that of quantities, else `IntOrString`
`type: integer`, `boolean`          `int`, `bool`
`type: number`                      `int | float`
`type: array`                       `list[...]`
`additionalProperties`              `dict[str, ...]`
`type: object` with `properties`    a class; equal schemas of a kind share one
the structure of a `Condition`      `Condition`
an embedded resource, other objects `dict[str, Any]`
anything else                       `Any`
==================================  ================================================================================

An optional list or map is empty if it is absent, an optional struct or scalar is None. `spec` and `status` are never
None if all of their fields are optional.
"""

import json
import keyword
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

from kaito.runtime.meta import Model, Resource, wire_name

IMPORTS: Final[Mapping[str, str]] = {
    "Any": "typing",
    "Condition": "kaito.runtime.meta",
    "Field": "pydantic",
    "IntOrString": "kaito.runtime.meta",
    "Model": "kaito.runtime.meta",
    "Quantity": "kaito.runtime.meta",
    "Resource": "kaito.runtime.meta",
    "Timestamp": "kaito.runtime.meta",
}
"""Names that a generated module may import, with their modules."""

_BUILT_IN: Final = frozenset({"int", "float", "str", "bool", "list", "dict"})
_RESERVED_CLASSES: Final = frozenset({*IMPORTS, *_BUILT_IN, "None", "True", "False"})
_OF_MODELS: Final = frozenset(dir(Model)) | _BUILT_IN
_OF_RESOURCES: Final = frozenset(dir(Resource)) | _BUILT_IN
"""Names that a field must not hide: attributes of the base class, and types in the annotations of the later fields."""

_MAX_LISTED: Final = 50
"""Values of an enumeration in a docstring."""

_PROTECTED: Final = ("model_dump", "model_validate")
"""Prefixes of names that pydantic reserves."""

_CONDITION: Final = frozenset({"type", "status", "reason", "message", "lastTransitionTime"})
_CONDITION_OPTIONAL: Final = frozenset({"observedGeneration"})
_IDENTITY: Final = frozenset({"apiVersion", "kind", "metadata"})
_WORDS: Final = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+|[0-9]+")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDefinition:
    """A field of a class."""

    name: str
    """Name in Python."""
    alias: str
    """Name in JSON, if it does not follow from the name; empty otherwise."""
    type: str
    default: str
    """Python expression; empty for a required field."""
    doc: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDefinition:
    """A class of the module."""

    name: str
    bases: str
    """Base class with class keywords."""
    doc: str
    fields: tuple[FieldDefinition, ...]

    @property
    def has_required_field(self) -> bool:
        """Whether an instance without arguments is not possible."""
        return any(not each.default for each in self.fields)


@final
@dataclass(slots=True)
class Structs:
    """The classes of one module, in the order in which they can be defined."""

    classes: list[ClassDefinition] = field(default_factory=list[ClassDefinition])
    imports: set[str] = field(default_factory=set[str])
    """Names of `IMPORTS` that the classes use."""
    _names: set[str] = field(default_factory=set[str])
    _shared: dict[str, ClassDefinition] = field(default_factory=dict[str, ClassDefinition])
    """Classes of the current kind by their schema."""

    def add_kind(self, *, kind: str, keywords: str, schema: Mapping[str, Any]) -> None:
        """Adds the classes of a kind.

        Args:
            kind: its name.
            keywords: class keywords of the kind.
            schema: the schema of an object.
        """
        self._shared = {}
        name = self._reserve(kind)
        self.imports.add("Resource")
        doc = _text(schema) or f"A {kind}."
        fields = self._fields(name, schema, is_kind=True)
        self.classes.append(ClassDefinition(name=name, bases=f"Resource, {keywords}", doc=doc, fields=fields))

    def _fields(self, parent: str, schema: Mapping[str, Any], *, is_kind: bool) -> tuple[FieldDefinition, ...]:
        """Returns the fields of a class, the required ones first."""
        properties, required = _object(schema.get("properties")), _required(schema)
        names: set[str] = set()
        fields: list[FieldDefinition] = []
        for json_name in sorted(map(str, properties)):
            if (is_kind and json_name in _IDENTITY) or not _is_text(json_name):
                continue
            # Objects can be created by Python names, so a name must not be another field's name in JSON.
            name = python_name(json_name, is_kind=is_kind, used=names | (properties.keys() - {json_name}))
            names.add(name)
            fields.append(
                self._field(
                    parent, name, json_name, _object(properties.get(json_name)), is_kind=is_kind,
                    is_required=json_name in required,
                )
            )  # fmt: skip
        return tuple(sorted(fields, key=lambda each: bool(each.default)))

    def _field(
        self, parent: str, name: str, json_name: str, schema: Mapping[str, Any], *, is_kind: bool, is_required: bool
    ) -> FieldDefinition:
        expression, struct = self._type(f"{parent}{_pascal(json_name)}", schema)
        alias = "" if wire_name(name) == json_name else json_name
        if alias:
            self.imports.add("Field")
        default = ""
        if not is_required:
            if expression.startswith("list["):
                default = "[]"
            elif expression.startswith("dict["):
                default = "{}"
            elif is_kind and json_name in {"spec", "status"} and struct and not struct.has_required_field:
                default = f"{struct.name}()"
            else:
                default = "None"
        if expression != "Any" and (default == "None" or (schema.get("nullable") and default not in {"[]", "{}"})):
            expression = f"{expression} | None"
        return FieldDefinition(name=name, alias=alias, type=expression, default=default, doc=_field_doc(schema))

    def _type(self, name: str, schema: Mapping[str, Any]) -> tuple[str, ClassDefinition | None]:
        """Returns the type expression of a schema, and the class if it is one."""
        if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
            return self._imported("Quantity" if "KMGTPE" in str(schema.get("pattern")) else "IntOrString"), None
        match schema.get("type"):
            case "string":
                return (self._imported("Timestamp") if schema.get("format") == "date-time" else "str"), None
            case "integer":
                return "int", None
            case "number":
                return "int | float", None
            case "boolean":
                return "bool", None
            case "array":
                items = _object(schema.get("items"))
                return f"list[{self._type(_singular(name), items)[0] if items else self._imported('Any')}]", None
            case "object":
                return self._object_type(name, schema)
            case _:
                return self._imported("Any"), None

    def _object_type(self, name: str, schema: Mapping[str, Any]) -> tuple[str, ClassDefinition | None]:
        properties = _object(schema.get("properties"))
        if schema.get("x-kubernetes-embedded-resource") or not properties:
            values = _object(schema.get("additionalProperties"))
            expression = self._type(_singular(name), values)[0] if values else self._imported("Any")
            return f"dict[str, {expression}]", None
        if _CONDITION <= properties.keys() <= _CONDITION | _CONDITION_OPTIONAL:
            return self._imported("Condition"), None
        key = json.dumps(schema, sort_keys=True)
        struct = self._shared.get(key)
        if struct is None:
            reserved = self._reserve(name)
            self.imports.add("Model")
            doc = _text(schema) or f"Fields of {name}."
            fields = self._fields(reserved, schema, is_kind=False)
            struct = ClassDefinition(name=reserved, bases="Model", doc=doc, fields=fields)
            self._shared[key] = struct
            self.classes.append(struct)
        return struct.name, struct

    def _imported(self, name: str) -> str:
        self.imports.add(name)
        return name

    def _reserve(self, name: str) -> str:
        """Returns a class name that no other class has."""
        candidate, number = name, 2
        if candidate in _RESERVED_CLASSES or keyword.iskeyword(candidate):
            candidate = f"{name}Kind"
        while candidate in self._names:
            candidate, number = f"{name}{number}", number + 1
        self._names.add(candidate)
        return candidate


def _object(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _required(schema: Mapping[str, Any]) -> frozenset[str]:
    """Returns the required properties; one with a default in the schema is filled in by the API server."""
    listed: Any = schema.get("required")
    properties = _object(schema.get("properties"))
    names = [each for each in _list(listed) if isinstance(each, str)]
    return frozenset(name for name in names if "default" not in _object(properties.get(name)))


def _is_text(json_name: str) -> bool:
    """Whether a field can have the name: not empty, and without halves of characters, which YAML can contain."""
    return bool(json_name) and not any("\ud800" <= each <= "\udfff" for each in json_name)


def _text(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description") or "").strip()


def _field_doc(schema: Mapping[str, Any]) -> str:
    values: Any = schema.get("enum")
    found = [each for each in _list(values) if each != ""]
    listed = ", ".join(f"`{each}`" for each in found[:_MAX_LISTED])
    text = _text(schema)
    if not listed:
        return text
    if len(found) > _MAX_LISTED:
        listed += f" and {len(found) - _MAX_LISTED} more"
    return f"{text}\n\nOne of {listed}." if text else f"One of {listed}."


def json_words(json_name: str) -> list[str]:
    """Returns the words of a name in JSON, in its spelling: `podCIDRs` is `pod` and `CIDRs`."""
    return [word for part in re.split(r"[^A-Za-z0-9]+", json_name) for word in _WORDS.findall(part)]


def python_name(json_name: str, *, is_kind: bool, used: Collection[str] = ()) -> str:
    """Returns the name of a field in Python, which is not used, and is not an attribute of the base class.

    Args:
        json_name: the name in JSON.
        is_kind: whether the class is a kind, not a struct.
        used: names of the other fields.
    """
    reserved = _OF_RESOURCES if is_kind else _OF_MODELS
    base = "_".join(word.lower() for word in json_words(json_name)) or "field"
    if base[0].isdigit() or base.startswith(_PROTECTED):
        base = f"n{base}"
    name, number = base, 2
    if keyword.iskeyword(name) or name in reserved or name.startswith("model_"):
        name = f"{name}_"
    while name in used:
        name, number = f"{base}_{number}", number + 1
    return name


def _pascal(json_name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in json_words(json_name)) or "Field"


def _singular(name: str) -> str:
    """Returns the name of an element of a list or map."""
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if re.search(r"(ss|x|ch|sh)es$", name):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us", "is")) else name
