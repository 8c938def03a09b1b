"""Validation of CustomResourceDefinitions: names, versions and structural schemas (`apiextensions/validation`)."""

from __future__ import annotations

from functools import lru_cache

from kaito.apiserver.cel.rules import RuleSyntaxError, compile_rule
from kaito.apiserver.errors import FieldError, forbidden_field, invalid_value, required, unsupported
from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.schema.validation import validate
from kaito.apiserver.wire import Json, Object, decode, encode, is_object, lookup, part

_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def definition_errors(data: Object) -> list[FieldError]:
    """Validates a new definition."""
    spec: Object = data.get("spec") or {}
    wanted = f"{part(spec, 'names').get('plural') or ''}.{spec.get('group') or ''}"
    name = str(data["metadata"].get("name", ""))
    found: list[FieldError] = []
    if name != wanted:
        found.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    return found + definition_spec_errors(data)


def definition_spec_errors(data: Object) -> list[FieldError]:
    """Validates the spec of a definition."""
    spec: Object = data.get("spec") or {}
    names: Object = spec.get("names") or {}
    found: list[FieldError] = []
    group = str(spec.get("group") or "")
    if not group:
        found.append(required("spec.group"))
    elif "." not in group:
        found.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    if spec.get("scope") not in {"Cluster", "Namespaced"}:
        if spec.get("scope"):
            found.append(unsupported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
        else:
            found.append(required("spec.scope"))
    found += [
        required(f"spec.names.{part}") for part in ("plural", "singular", "kind", "listKind") if not names.get(part)
    ]
    return found + _version_errors(spec.get("versions") or [])


def _version_errors(versions: list[Object]) -> list[FieldError]:
    found: list[FieldError] = []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        found.append(
            invalid_value("spec.versions", versions, "must have exactly one version marked as storage version")
        )
    schemas: list[Json] = [lookup(version, ("schema", "openAPIV3Schema")) for version in versions]
    if schemas and schemas[0] is not None and all(schema == schemas[0] for schema in schemas):
        # Equal schemas are one schema to the real server, and its messages say so.
        return found + list(_root_errors(encode(schemas[0]), "spec.validation.openAPIV3Schema"))
    for index, schema in enumerate(schemas):
        here = f"spec.versions[{index}].schema.openAPIV3Schema"
        found += [required(here)] if schema is None else _root_errors(encode(schema), here)
    return found


@lru_cache(maxsize=128)
def _root_errors(encoded: bytes, here: str) -> tuple[FieldError, ...]:
    """Validates the schema of a version; cached, because tests install the same definitions in many servers."""
    schema: Object = decode(encoded)
    found: list[FieldError] = []
    if not schema.get("type"):
        found.append(required(f"{here}.type", "must not be empty at the root"))
    elif schema["type"] != "object":
        found.append(invalid_value(f"{here}.type", schema["type"], "must be object at the root"))
    return (*found, *_schema_errors(schema, here, root=True))


def _schema_errors(schema: Object, path: str, *, root: bool = False) -> list[FieldError]:
    found: list[FieldError] = []
    kind = schema.get("type")
    flexible = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if kind and kind not in _TYPES:
        found.append(unsupported(f"{path}.type", kind, _TYPES))
    if not kind and not flexible and not root:
        found.append(required(f"{path}.type", "must not be empty for specified object fields"))
    if schema.get("additionalProperties") is not None and schema.get("properties"):
        found.append(
            forbidden_field(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        )
    if kind == "array" and schema.get("items") is None:
        found.append(required(f"{path}.items", "must be specified"))
    if "default" in schema and not root:
        found += [
            FieldError(error.reason, f"{path}.default", error.value, error.detail)
            for error in validate(schema["default"], Schema(schema), "")
        ]
    found += _list_type_errors(schema, path)
    found += _rule_errors(schema, path)
    for name, child in part(schema, "properties").items():
        if not (root and name == "metadata"):
            found += _schema_errors(child, f"{path}.properties[{name}]")
    if is_object(schema.get("items")):
        found += _schema_errors(schema["items"], f"{path}.items")
    if is_object(schema.get("additionalProperties")):
        found += _schema_errors(schema["additionalProperties"], f"{path}.additionalProperties")
    return found


def _list_type_errors(schema: Object, path: str) -> list[FieldError]:
    keys: list[str] = schema.get("x-kubernetes-list-map-keys") or []
    if schema.get("x-kubernetes-list-type") != "map":
        return []
    if not keys:
        why = "must not be empty if x-kubernetes-list-type is map"
        return [required(f"{path}.x-kubernetes-list-map-keys", why)]
    items: Object = schema.get("items") or {}
    properties = part(items, "properties")
    needed: list[str] = items.get("required") or []
    found: list[FieldError] = []
    for key in keys:
        if key not in properties:
            where = f"{path}.x-kubernetes-list-map-keys"
            found.append(invalid_value(where, [key], "entries must all be names of item properties"))
        elif key not in needed and "default" not in properties[key]:
            where = f"{path}.items.properties[{key}].default"
            found.append(
                required(
                    where,
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
                    "required property",
                )
            )
    return found


def _rule_errors(schema: Object, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    rules: list[Object] = schema.get("x-kubernetes-validations") or []
    for index, rule in enumerate(rules):
        for name in ("rule", "messageExpression"):
            if not rule.get(name):
                continue
            try:
                compile_rule(str(rule[name]))
            except RuleSyntaxError as error:
                where = f"{path}.x-kubernetes-validations[{index}].{name}"
                found.append(invalid_value(where, rule, f"compilation failed: ERROR: <input>: {error}"))
    return found


def definition_update_errors(data: Object, old: Object) -> list[FieldError]:
    """Returns the errors of changing what is immutable in an established definition."""
    found: list[FieldError] = []
    versions = [version.get("name") for version in data["spec"].get("versions") or ()]
    stored: list[str] = part(data, "status").get("storedVersions") or []
    for index, name in enumerate(stored):
        if name not in versions:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
                f"{name} from status.storedVersions"
            )
            found.append(invalid_value(f"status.storedVersions[{index}]", name, why))
    for path in (("group",), ("scope",), ("names", "kind"), ("names", "plural")):
        new, before = lookup(data["spec"], path), lookup(old["spec"], path)
        if new != before:
            found.append(invalid_value("spec." + ".".join(path), new, "field is immutable"))
    return found
