"""Reads manifests (YAML or JSON, several documents, files and directories), and maps them to API paths for
`World.apply`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeAlias, cast

from kaito.runtime.client.path import resource_path
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manifest_yaml import load_documents

Manifest: TypeAlias = dict[str, Any]
"""One object as JSON."""

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
"""Suffixes of the files in a directory that kubectl reads."""


def read_manifests(given: str | Path | Mapping[str, Any]) -> Iterator[Manifest]:
    """Yields the objects in a text, a file, a directory (files in order of name) or a document, and the items of Lists.

    A text may be indented, as in the source of a test.

    Raises:
        ConfigurationError: A document is not an object with apiVersion, kind and name.
        OSError: The file does not exist. yaml.YAMLError: The text is not YAML.
    """
    if isinstance(given, Mapping):
        yield from _objects(dict(given), "the manifest")
    elif isinstance(given, str):
        yield from _documents(dedent(given), "the text")
    elif given.is_dir():
        for file in sorted(given.iterdir()):
            if file.suffix in SUFFIXES:
                yield from _documents(file.read_text(), str(file))
    else:
        yield from _documents(given.read_text(), str(given))


def _documents(text: str, source: str) -> Iterator[Manifest]:
    for number, document in enumerate(load_documents(text), start=1):
        if document is not None:
            yield from _objects(document, f"document {number} of {source}")


def _objects(document: object, source: str) -> Iterator[Manifest]:
    if not isinstance(document, dict):
        message = f"{source} is not an object but {type(document).__name__}: {str(document)[:80]!r}"
        if isinstance(document, str):
            message += "; pass files and directories as Path"
        raise ConfigurationError(message)
    manifest = cast("Manifest", document)
    if isinstance(manifest.get("items"), list) and str(manifest.get("kind", "")).endswith("List"):
        for number, item in enumerate(manifest["items"], start=1):
            yield from _objects(item, f"item {number} of {source}")
        return
    for field in ("apiVersion", "kind"):
        if not manifest.get(field):
            message = f"{source} has no {field}"
            raise ConfigurationError(message)
    metadata: Mapping[str, Any] = manifest.get("metadata") or {}
    if not metadata.get("name"):
        message = f"{source}, a {manifest['kind']}, has no metadata.name"
        raise ConfigurationError(message)
    yield manifest


def api_path(api_version: str) -> str:
    """Returns the discovery path of a group version."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def path_of(manifest: Manifest, discovered: Mapping[str, Any], namespace: str) -> str:
    """Returns the path of an object from the discovered resources of its version; `namespace` is the default.

    Raises:
        ConfigurationError: The version does not contain the kind.
    """
    kind, metadata = manifest["kind"], manifest["metadata"]
    for resource in discovered.get("resources") or ():
        if resource["kind"] == kind and "/" not in resource["name"]:
            where = (metadata.get("namespace") or namespace) if resource["namespaced"] else ""
            return resource_path(manifest["apiVersion"], resource["name"], namespace=where, name=metadata["name"])
    message = (
        f'no matches for kind "{kind}" in version "{manifest["apiVersion"]}": apply its CustomResourceDefinition first'
    )
    raise ConfigurationError(message)
