"""Validation of object metadata: names, labels, annotations, finalizers, owner references, as in `apimachinery`."""

from __future__ import annotations

import re

from kaito.apiserver.errors import FieldError, forbidden_field, invalid_value, required
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.wire import Json, Object

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end "
    "with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end "
    "with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation "
    "is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
QUALIFIED_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with "
    "an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_LABEL_NAMED = frozenset({"namespaces"})
_PATH_NAMED = frozenset(
    {
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
    }
)
TOTAL_ANNOTATION_LIMIT_BYTES = 256 * 1024


def valid_generate_name(prefix: str) -> bool:
    """Returns whether a prefix can begin a generated name."""
    return _SUBDOMAIN.fullmatch(prefix.rstrip("-.") or "x") is not None


def name_problems(resource: Resource, name: str) -> list[str]:
    """Validates an object's name, with the messages of kube-apiserver."""
    if resource.storage in _PATH_NAMED:
        bad: list[str] = [word for word in (".", "..") if name == word] or [sign for sign in "/%" if sign in name]
        return (
            [f"may not be '{bad[0]}'"]
            if bad and bad[0] in {".", ".."}
            else [f"may not contain '{part}'" for part in bad]
        )
    if resource.storage in _LABEL_NAMED:
        return _bounded(name, 63, _LABEL, LABEL_MESSAGE)
    if resource.storage == "services":
        return _bounded(name, 63, _LABEL_1035, LABEL_1035_MESSAGE)
    return _bounded(name, 253, _SUBDOMAIN, SUBDOMAIN_MESSAGE)


def _bounded(name: str, limit: int, pattern: re.Pattern[str], message: str) -> list[str]:
    problems = [f"must be no more than {limit} bytes"] if len(name) > limit else []
    return problems if pattern.fullmatch(name) else [*problems, message]


def qualified_problems(name: str) -> list[str]:
    """Validates a qualified name such as a label key."""
    prefix, slash, rest = name.rpartition("/")
    if slash and (not prefix or "/" in prefix):
        return [
            "a qualified name "
            + QUALIFIED_MESSAGE.removeprefix("name part ")
            + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    problems: list[str] = []
    if slash and not _SUBDOMAIN.fullmatch(prefix):
        problems.append("prefix part " + SUBDOMAIN_MESSAGE)
    if not rest:
        problems.append("name part must be non-empty")
    elif len(rest) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _QUALIFIED.fullmatch(rest):
        problems.append(QUALIFIED_MESSAGE)
    return problems


def label_value_problems(value: str) -> list[str]:
    """Validates a label's value."""
    problems = ["must be no more than 63 bytes"] if len(value) > 63 else []
    return problems if _LABEL_VALUE.fullmatch(value) else [*problems, LABEL_VALUE_MESSAGE]


def metadata_errors(resource: Resource, metadata: Object) -> list[FieldError]:
    """Validates an object's metadata."""
    found: list[FieldError] = []
    name = metadata.get("name")
    if not name:
        found.append(required("metadata.name", "name or generateName is required"))
    else:
        found += [invalid_value("metadata.name", name, why) for why in name_problems(resource, str(name))]
    if resource.namespaced and not metadata.get("namespace"):
        found.append(required("metadata.namespace"))
    return (
        found
        + _label_errors(metadata)
        + _annotation_errors(metadata)
        + _finalizer_errors(resource, metadata)
        + _reference_errors(metadata)
    )


def _label_errors(metadata: Object) -> list[FieldError]:
    found: list[FieldError] = []
    labels: Object = metadata.get("labels") or {}
    for key, value in labels.items():
        found += [invalid_value("metadata.labels", key, why) for why in qualified_problems(key)]
        found += [invalid_value("metadata.labels", value, why) for why in label_value_problems(str(value))]
    return found


def _annotation_errors(metadata: Object) -> list[FieldError]:
    found: list[FieldError] = []
    annotations: Object = metadata.get("annotations") or {}
    for key in annotations:
        found += [invalid_value("metadata.annotations", key, why) for why in qualified_problems(key.lower())]
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items())
    if size > TOTAL_ANNOTATION_LIMIT_BYTES:
        detail = f"may not be more than {TOTAL_ANNOTATION_LIMIT_BYTES} bytes"
        found.append(FieldError("FieldValueTooLong", "metadata.annotations", None, detail))
    return found


_STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})


def _finalizer_errors(resource: Resource, metadata: Object) -> list[FieldError]:
    found: list[FieldError] = []
    finalizers: list[Json] = metadata.get("finalizers") or []
    for index, name in enumerate(finalizers):
        found += [invalid_value("metadata.finalizers", name, why) for why in qualified_problems(str(name))]
        if not resource.custom and "/" not in str(name) and name not in _STANDARD_FINALIZERS:
            if resource.storage == _DEFINITIONS:
                continue
            why = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(invalid_value(f"metadata.finalizers[{index}]", name, why))
    return found


_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"


def _reference_errors(metadata: Object) -> list[FieldError]:
    found: list[FieldError] = []
    references: list[Object] = metadata.get("ownerReferences") or []
    controllers: list[Object] = []
    path = "metadata.ownerReferences"
    for reference in references:
        messages = {
            "apiVersion": "version must not be empty",
            "kind": "must not be empty",
            "name": "must not be empty",
            "uid": "must not be empty",
        }
        found += [invalid_value(f"{path}.{name}", "", why) for name, why in messages.items() if not reference.get(name)]
        if reference.get("controller"):
            controllers.append(reference)
    if len(controllers) > 1:
        first, second = controllers[0], controllers[1]
        why = (
            'Only one reference can have Controller set to true. Found "true" in references for '
            f"{first.get('kind')}/{first.get('name')} and {second.get('kind')}/{second.get('name')}"
        )
        found.append(invalid_value("metadata.ownerReferences", references, why))
    return found


def forbid(path: str, why: str) -> FieldError:
    """Returns the error for a field that may not be set here."""
    return forbidden_field(path, why)
