"""Reads Workspaces and InferenceSets, and the objects that they use, from files and the standard input."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar, cast, final

import yaml
from pydantic import ValidationError

from kaito.api import InferenceSet, Workspace
from kaito.api.json_values import json_list, json_object, without_nulls
from kaito.runtime.kinds import ConfigMap, Node, PersistentVolumeClaim, Secret, ServiceAccount
from kaito.runtime.manifest_yaml import load_documents
from kaito.runtime.meta import Model, Resource
from kaito.workspace.inference_sets.children import child_workspace

R = TypeVar("R", bound=Resource)

MAX_BYTES: Final = 32 * 2**20
"""Size limit of one file."""

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_WORKSPACE_GROUP: Final = "kaito.sh"
_SERVED: Final = (Workspace.api_version, f"{_WORKSPACE_GROUP}/v1alpha1")
"""Versions of both kinds that the API server serves."""
_MAX_PROBLEMS: Final = 10


class InputError(Exception):
    """The files cannot be planned; the message contains the file and the line or field."""


@final
@dataclass(frozen=True, slots=True)
class Source:
    """A Workspace as a file contains it."""

    workspace: Workspace
    origin: str
    """File and number of the document."""
    unknown_fields: tuple[str, ...] = ()
    """Fields that the kind does not have: the API server rejects or drops them."""
    errors: tuple[tuple[str, str], ...] = ()
    """Field and message of each value that the schema does not allow. `workspace` then contains only the name."""
    inference_set: InferenceSet | None = None
    """The InferenceSet of which `workspace` is the first Workspace; None for a Workspace of the files."""


@final
@dataclass(slots=True)
class Documents:
    """What the files contain."""

    workspaces: list[Source] = field(default_factory=list[Source])
    config_maps: list[ConfigMap] = field(default_factory=list[ConfigMap])
    secrets: list[Secret] = field(default_factory=list[Secret])
    nodes: list[Node] = field(default_factory=list[Node])
    volume_claims: list[PersistentVolumeClaim] = field(default_factory=list[PersistentVolumeClaim])
    service_accounts: list[ServiceAccount] = field(default_factory=list[ServiceAccount])
    ignored: list[str] = field(default_factory=list[str])
    """Kind and name of documents that a plan does not use."""


def read_documents(names: Sequence[str], stdin: TextIO) -> Documents:
    """Reads files, directories (their YAML and JSON files, not those of subdirectories) and, for `-`, `stdin`.

    Raises:
        InputError: a file cannot be read, or a document is not an object that its kind allows.
    """
    found = Documents()
    for name, text in _texts(names, stdin):
        for number, document in enumerate(_load(text, name), 1):
            _add(found, document, f"{name}, document {number}")
    _check_unique(found.workspaces)
    return found


def _texts(names: Sequence[str], stdin: TextIO) -> Iterator[tuple[str, str]]:
    for name in names:
        if name == "-":
            text = stdin.read(MAX_BYTES + 1)
            if len(text) > MAX_BYTES:
                raise InputError(f"standard input: is larger than {MAX_BYTES >> 20} MiB")
            yield "standard input", text
            continue
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
            if not files:
                raise InputError(f"{name}: contains no file with the suffix {', '.join(_SUFFIXES)}")
            yield from ((str(file), _read(file)) for file in files)
        else:
            yield name, _read(path)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{path}: is larger than {MAX_BYTES >> 20} MiB")
        return content.decode()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8") from error


def _load(text: str, name: str) -> list[Any]:
    try:
        loaded = list(load_documents(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(f"{name}: is not YAML{where}: {problem}") from error
    return [document for document in loaded if document is not None]


def _add(found: Documents, document: object, origin: str) -> None:
    if not isinstance(document, dict):
        raise InputError(f"{origin}: is not an object: expected apiVersion, kind and metadata")
    given = cast("dict[str, Any]", document)
    kind, api = given.get("kind"), given.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(api, str):
        raise InputError(f"{origin}: has no {'kind' if not isinstance(kind, str) else 'apiVersion'}")
    items: object = given.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(cast("list[object]", items)):
            _add(found, item, f"{origin}, items[{index}]")
        return
    if kind in {"Workspace", "InferenceSet"} and api.partition("/")[0] == _WORKSPACE_GROUP:
        if api not in _SERVED:
            message = f"apiVersion: is {api}, which is not served: use {' or '.join(_SERVED)}"
            raise InputError(f"{origin}: {kind}: {message}")
        found.workspaces.append(_workspace(given, origin) if kind == "Workspace" else _inference_set(given, origin))
        return
    if api != "v1" or not _add_core(found, kind, given, origin):
        name: Any = json_object(given.get("metadata")).get("name", "")
        found.ignored.append(f"{kind} {name}".strip())


def _add_core(found: Documents, kind: str, given: dict[str, Any], origin: str) -> bool:
    match kind:
        case "ConfigMap":
            found.config_maps.append(_parse(ConfigMap, given, origin))
        case "Secret":
            found.secrets.append(_parse(Secret, _encoded(given), origin))
        case "Node":
            found.nodes.append(_parse(Node, given, origin))
        case "PersistentVolumeClaim":
            found.volume_claims.append(_parse(PersistentVolumeClaim, given, origin))
        case "ServiceAccount":
            found.service_accounts.append(_parse(ServiceAccount, given, origin))
        case _:
            return False
    return True


def _parse(kind: type[R], given: dict[str, Any], origin: str) -> R:
    """Returns the object.

    Raises:
        InputError: a field has a type that the kind does not allow, or the name is missing.
    """
    try:
        parsed = kind.model_validate(without_nulls(given))
    except ValidationError as error:
        problems = [f"{path}: {message}" for path, message in _schema_errors(error)]
        raise InputError(f"{origin}: {kind.kind}: {'; '.join(problems)}") from error
    if not parsed.name and not parsed.metadata.generate_name:
        raise InputError(f"{origin}: {kind.kind}: metadata.name: is missing")
    return parsed


def _schema_errors(error: ValidationError) -> Iterator[tuple[str, str]]:
    for detail in error.errors(include_url=False, include_context=False)[:_MAX_PROBLEMS]:
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
        message = detail["msg"].replace("Input should", "should")
        yield path.lstrip("."), "is missing: set it" if detail["type"] == "missing" else message


def _workspace(given: dict[str, Any], origin: str) -> Source:
    """Returns the Workspace, also if its schema does not allow it: that is a refusal, as by the API server."""
    # Both versions have the same fields; the controller reads v1beta1.
    document: dict[str, Any] = {**given, "apiVersion": Workspace.api_version}
    errors: tuple[tuple[str, str], ...] = ()
    try:
        Workspace.model_validate(without_nulls(document))
    except ValidationError as error:
        errors = tuple(_schema_errors(error))
        names = json_object(given.get("metadata"))
        kept = {key: names[key] for key in ("name", "generateName", "namespace") if isinstance(names.get(key), str)}
        document = {"metadata": kept, "resource": {"labelSelector": dict[str, Any]()}}
    parsed = _parse(Workspace, document, origin)
    if not parsed.namespace:
        parsed = parsed.with_metadata(namespace="default")
    unknown = tuple(name for name in _unknown(parsed, "") if name not in {"apiVersion", "kind"})
    return Source(parsed, origin, unknown, errors)


def _inference_set(given: dict[str, Any], origin: str) -> Source:
    """Returns the first Workspace of an InferenceSet, and the set.

    Raises:
        InputError: the schema does not allow the set, of which then no Workspace can be planned.
    """
    # Both versions have the same fields; the controller reads v1beta1.
    parsed = _parse(InferenceSet, {**given, "apiVersion": InferenceSet.api_version}, origin)
    if not parsed.namespace:
        parsed = parsed.with_metadata(namespace="default")
    unknown = tuple(name for name in _unknown(parsed, "") if name not in {"apiVersion", "kind"})
    return Source(child_workspace(parsed, f"{parsed.name}-0"), origin, unknown, inference_set=parsed)


def _unknown(value: object, path: str) -> Iterator[str]:
    """Returns the paths of fields that the models do not contain."""
    if isinstance(value, Model):
        for name in value.model_extra or {}:
            yield f"{path}{name}"
        for name, info in type(value).model_fields.items():
            yield from _unknown(getattr(value, name), f"{path}{info.alias or name}.")
    elif isinstance(value, list):
        for index, item in enumerate(json_list(cast("object", value))):
            yield from _unknown(item, f"{path.rstrip('.')}[{index}].")


def _encoded(given: dict[str, Any]) -> dict[str, Any]:
    """Returns a Secret with `stringData` merged into `data`, as the API server stores it."""
    plain: Any = given.get("stringData")
    if not isinstance(plain, dict):
        return given
    encoded = {
        key: base64.b64encode(str(value).encode()).decode() for key, value in cast("dict[str, Any]", plain).items()
    }
    data: Any = given.get("data") or {}
    rest = {name: value for name, value in given.items() if name != "stringData"}
    return {**rest, "data": {**data, **encoded}}


def _check_unique(workspaces: Sequence[Source]) -> None:
    seen: dict[str, str] = {}
    for source in workspaces:
        key = str(source.workspace.key)
        if key in seen and source.workspace.name:
            raise InputError(f"{source.origin}: Workspace {key} was read before, from {seen[key]}: remove one")
        seen[key] = source.origin


def to_yaml(document: Mapping[str, Any]) -> str:
    """Formats an object as YAML."""
    return yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False, width=100_000)
