"""Request bodies into objects: decoding, the match with the URL, strict field validation, pruning and defaulting."""

from __future__ import annotations

from kaito.apiserver import errors
from kaito.apiserver.builtin_defaults import fill_builtin_defaults
from kaito.apiserver.core import Context
from kaito.apiserver.duplicates import duplicate_fields
from kaito.apiserver.events import convert_event, is_event
from kaito.apiserver.kinds import Resource
from kaito.apiserver.objectmeta import prune_metadata
from kaito.apiserver.routes import Target
from kaito.apiserver.schema import drop_nulls, fill_defaults, prune
from kaito.apiserver.wire import JSON_TYPE, YAML_TYPES, HttpRequest, Json, Object, decode, decode_yaml


def media_type(request: HttpRequest) -> str:
    """Return the Content-Type without parameters; JSON when absent."""
    return request.headers.get("content-type", "").partition(";")[0].strip() or JSON_TYPE


def decode_body(request: HttpRequest) -> Json:
    """Return the decoded body; 400 for what is not JSON or YAML, 415 for another media type."""
    kind = media_type(request)
    try:
        if kind in YAML_TYPES:
            return decode_yaml(request.body)
        if kind == JSON_TYPE or kind.endswith("+json"):
            return decode(request.body)
    except ValueError as error:
        raise errors.bad_request(f"error decoding the body: {error}") from error
    raise errors.unsupported_media_type("application/json, application/yaml", kind)


def decode_object(request: HttpRequest, resource: Resource, context: Context) -> Object:
    """Return the object in a create or update body, its duplicate fields reported."""
    if not request.body:
        raise errors.bad_request("the request body is empty")
    value = decode_body(request)
    if not isinstance(value, dict):
        raise errors.bad_request(
            f"couldn't get version/kind; json parse error: cannot unmarshal body of {resource.kind}"
        )
    data: Object = value
    check_kind(data, resource)
    if media_type(request) == JSON_TYPE and context.field_validation != "Ignore":
        found = [f'duplicate field "{path}"' for path in duplicate_fields(request.body)]
        report_fields(found, resource, context)
    return data


def check_kind(data: Object, resource: Resource) -> None:
    """Refuse (400) a body of another type than the URL's; fill in apiVersion and kind where missing."""
    api_version, kind = data.get("apiVersion"), data.get("kind")
    if not kind and resource.custom:
        raise errors.bad_request(f"Object 'Kind' is missing in '{errors.render_value(data)}'")
    if (api_version and api_version != resource.api_version) or (kind and kind != resource.kind):
        got_group, _, got_version = str(api_version or resource.api_version).rpartition("/")
        if resource.custom or kind == resource.kind:
            message = (
                f"the API version in the data ({api_version}) does not match the expected API version "
                f"({resource.api_version})"
            )
        else:
            wanted = f'{resource.kind} in version "{resource.version}"'
            message = f"{wanted} cannot be handled as a {kind}: the object provided is unrecognized"
        del got_group, got_version
        raise errors.bad_request(message)
    data["apiVersion"], data["kind"] = resource.api_version, resource.kind


def match_url(data: Object, target: Target) -> None:
    """Give the object its namespace from the URL; 400 when body and URL disagree."""
    metadata: Json = data.get("metadata")
    if metadata is None:
        metadata = data["metadata"] = {}
    if not isinstance(metadata, dict):
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
    """Refuse (400) or warn about unknown and duplicate fields, as `fieldValidation` asks."""
    if not problems or context.field_validation == "Ignore":
        return
    if context.field_validation == "Strict":
        head = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
        raise errors.bad_request(f"{head}strict decoding error: {', '.join(problems)}")
    context.warnings.extend(problem for problem in problems if problem not in context.warnings)


def shape(data: Object, resource: Resource, context: Context) -> None:
    """Prune, drop nulls and fill in defaults, in place; unknown fields are reported."""
    unknown = prune_metadata(data["metadata"])
    if resource.schema is not None:
        unknown += prune(data, resource.schema)
        report_fields([f'unknown field "{path}"' for path in unknown], resource, context)
        drop_nulls(data, resource.schema)
        fill_defaults(data, resource.schema)
    else:
        report_fields([f'unknown field "{path}"' for path in unknown], resource, context)
    if not resource.custom:
        fill_builtin_defaults(data, resource)


def to_storage(data: Object, resource: Resource) -> Object:
    """Return an object as the store keeps it."""
    if is_event(resource):
        return convert_event(data, "v1")
    if data["apiVersion"] != resource.stored_api_version:
        return {**data, "apiVersion": resource.stored_api_version}
    return data
