"""Decodes request bodies into objects: media types, the match with the URL, strict field validation, pruning,
defaulting."""

from __future__ import annotations

from kaito.apiserver import errors
from kaito.apiserver.apiextensions.definitions import STORAGE as DEFINITIONS
from kaito.apiserver.bodies.duplicates import duplicate_fields
from kaito.apiserver.bodies.protobuf import MEDIA_TYPE as PROTOBUF, decode_protobuf
from kaito.apiserver.builtin.defaults import fill_builtin_defaults
from kaito.apiserver.registry.events import convert_event
from kaito.apiserver.registry.resources import Resource, is_event, version_of
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.server_state import Context
from kaito.apiserver.schema.coercion import Coercer
from kaito.apiserver.schema.objectmeta import prune_metadata
from kaito.apiserver.schema.structural import Schema, drop_nulls, fill_defaults, fill_zeros, prune
from kaito.apiserver.wire import (
    JSON_TYPE,
    YAML_TYPES,
    HttpRequest,
    Json,
    Object,
    copy_json,
    decode,
    decode_yaml,
    encode,
    is_object,
    part,
)


class BodyError(errors.StatusError):
    """The body is not JSON or YAML (400)."""

    def __init__(self, why: str) -> None:
        super().__init__(400, "BadRequest", f"error decoding patch: {why}")
        self.why = why

    def __str__(self) -> str:
        return self.why


def _excerpt(body: bytes) -> str:
    return body[:1024].decode(errors="replace")


def _json_word(value: Json) -> str:
    names: dict[type, str] = {list: "array", str: "string", bool: "bool"}
    kind: type = value.__class__
    return names.get(kind, "number")


def media_type(request: HttpRequest) -> str:
    """Returns the Content-Type without parameters; JSON when absent."""
    return request.headers.get("content-type", "").partition(";")[0].strip() or JSON_TYPE


def decode_body(request: HttpRequest) -> Json:
    """Returns the decoded body; 400 if it is not JSON or YAML, 415 for another media type."""
    kind = media_type(request)
    try:
        if kind in YAML_TYPES:
            return decode_yaml(request.body)
        if kind == PROTOBUF:
            return decode_protobuf(request.body)
        if kind == JSON_TYPE or kind.endswith("+json"):
            return decode(request.body)
    except ValueError as error:
        raise BodyError(str(error)) from error
    raise errors.unsupported_media_type("application/json, application/yaml")


def decode_object(request: HttpRequest, resource: Resource, context: Context, *, complete: bool = False) -> Object:
    """Returns the object in a body and reports its duplicate fields; a complete object needs apiVersion and kind."""
    unrecognized = f"the object provided is unrecognized (must be of type {resource.kind}): "
    unrecognized += "couldn't get version/kind; "
    if not request.body:
        raise errors.bad_request(f"{unrecognized}json parse error: unexpected end of JSON input (<empty>)")
    try:
        value = decode_body(request)
    except BodyError as error:
        raise errors.bad_request(f"{unrecognized}json parse error: {error} ({_excerpt(request.body)})") from error
    if not is_object(value):
        text = f"{unrecognized}json parse error: json: cannot unmarshal {_json_word(value)} into Go value"
        raise errors.bad_request(f"{text} ({request.body[:1024].hex()})")
    data: Object = value
    if complete and not (data.get("apiVersion") and data.get("kind")):
        raise errors.bad_request(f"invalid object type: {_gvk(data)}")
    check_kind(data, resource)
    if media_type(request) == JSON_TYPE and context.field_validation != "Ignore":
        found = [f'duplicate field "{path}"' for path in duplicate_fields(request.body, data)]
        report_fields(found, resource, context)
    return data


def check_kind(data: Object, resource: Resource) -> None:
    """Refuses (400) a body of another type than the URL's; fills in apiVersion and kind where missing."""
    api_version, kind = data.get("apiVersion"), data.get("kind")
    if not kind and resource.custom:
        unrecognized = f"the object provided is unrecognized (must be of type {resource.kind}): "
        raise errors.bad_request(f"{unrecognized}Object 'Kind' is missing in '{errors.render_value(data)}'")
    if resource.custom and api_version == resource.api_version and kind != resource.kind:
        wrong = errors.invalid_value("kind", kind, f"must be {resource.kind}")
        name = str(part(data, "metadata").get("name") or "")
        raise errors.invalid(resource.group, str(kind), name, [wrong])
    if (api_version and api_version != resource.api_version) or (kind and kind != resource.kind):
        raise errors.bad_request(
            _wrong_kind(str(api_version or resource.api_version), str(kind or resource.kind), resource)
        )
    data["apiVersion"], data["kind"] = resource.api_version, resource.kind


def _gvk(data: Object) -> str:
    group, _, version = str(data.get("apiVersion") or "").rpartition("/")
    return f"{group}/{version}, Kind={data.get('kind') or ''}"


def _wrong_kind(api_version: str, kind: str, resource: Resource) -> str:
    version = version_of(api_version)
    head = f'{kind} in version "{version}" cannot be handled as a {resource.kind}: '
    if resource.custom:
        expected = f"the expected API version ({resource.api_version})"
        return f"the API version in the data ({api_version}) does not match {expected}"
    if kind == resource.kind:
        return f'{head}no kind "{kind}" is registered for version "{api_version}" in scheme "pkg/runtime/scheme.go:111"'
    group = resource.group.partition(".")[0] or "core"
    return f"{head}converting ({version}.{kind}) to ({group}.{resource.kind}): unknown conversion"


def match_url(data: Object, target: Target) -> None:
    """Gives the object its namespace from the URL; 400 when body and URL disagree."""
    metadata: Json = data.get("metadata")
    if metadata is None:
        metadata = data["metadata"] = {}
    if not is_object(metadata):
        raise errors.bad_request("metadata must be an object")
    if not target.resource.namespaced:
        metadata.pop("namespace", None)
    elif metadata.get("namespace") not in {None, "", target.namespace}:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    else:
        metadata["namespace"] = target.namespace
    if target.name:
        name = metadata.get("name")
        if name and name != target.name:
            raise errors.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({target.name})"
            )
        if not name and target.verb == "update":
            raise errors.bad_request(f"the name of the object () does not match the name on the URL ({target.name})")
        metadata["name"] = target.name


def report_fields(problems: list[str], resource: Resource, context: Context) -> None:
    """Rejects (400) or warns about unknown and duplicate fields, depending on `fieldValidation`."""
    if not problems or context.field_validation == "Ignore":
        return
    if context.field_validation == "Strict":
        head = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
        raise errors.bad_request(f"{head}strict decoding error: {', '.join(problems)}")
    context.warnings.extend(problem for problem in problems if problem not in context.warnings)


_completed_definitions: dict[bytes, bytes] = {}
"""CustomResourceDefinitions after `prune_and_default`, by their JSON before it, for those without unknown fields.

They are by far the largest objects, and a process with many servers, such as a test run, installs the same ones in
each.
"""
_MAX_COMPLETED_DEFINITIONS = 64


def prune_and_default(data: Object, resource: Resource, context: Context) -> None:
    """Prunes, drops nulls and fills in defaults, in place; unknown fields are reported."""
    if resource.storage != DEFINITIONS:
        _prune_and_default(data, resource, context)
        return
    sent = encode(data)
    completed = _completed_definitions.get(sent)
    if completed is not None:
        data.clear()
        data.update(decode(completed))
        return
    if not _prune_and_default(data, resource, context):
        if len(_completed_definitions) >= _MAX_COMPLETED_DEFINITIONS:
            _completed_definitions.clear()
        _completed_definitions[sent] = encode(data)


def _prune_and_default(data: Object, resource: Resource, context: Context) -> list[str]:
    """Does the work of `prune_and_default`; returns the paths of unknown fields."""
    unknown = prune_metadata(data["metadata"], f'{resource.kind} in version "{resource.version}"', resource.kind)
    if resource.schema is not None:
        unknown += prune(data, resource.schema)
        report_fields([f'unknown field "{path}"' for path in unknown], resource, context)
        if not resource.custom:
            Coercer(resource.kind, resource.version).coerce(data, resource.schema)
        drop_nulls(data, resource.schema)
        fill_defaults(data, resource.schema)
        if not resource.custom:
            fill_zeros(data, resource.schema)
    if not resource.custom:
        fill_builtin_defaults(data, resource)
    return unknown


def to_storage(data: Object, resource: Resource) -> Object:
    """Converts an object of a kind without a conversion webhook to the storage version."""
    if is_event(resource):
        return convert_event(data, "v1")
    if data["apiVersion"] == resource.stored_api_version:
        return data
    normalized: Object = copy_json({**data, "apiVersion": resource.stored_api_version})
    if resource.storage_schema is not None:
        normalize(normalized, resource.storage_schema)
    return normalized


def normalize(data: Object, schema: Schema) -> None:
    """Prunes and defaults an object with the schema of its storage version, in place."""
    prune(data, schema)
    drop_nulls(data, schema)
    fill_defaults(data, schema)
