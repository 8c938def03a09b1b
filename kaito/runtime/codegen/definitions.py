"""Reads CustomResourceDefinitions, and selects the kinds and versions for which models are generated."""

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast, final

import yaml

from kaito.runtime.manifest_yaml import load_documents

CRD_KIND: Final = "CustomResourceDefinition"

_LABEL: Final = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_GROUP_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMES: Final[Mapping[str, re.Pattern[str]]] = {
    "group": re.compile(rf"({_GROUP_LABEL}(\.{_GROUP_LABEL})*)?"),
    "version": re.compile(_LABEL),
    "kind": re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}"),
    "plural": re.compile(_LABEL),
}
"""Names that a module may contain: those that the API server accepts, without `-` in kinds, which become classes."""

GroupKind: TypeAlias = tuple[str, str]
"""Group and kind of a definition."""


class DefinitionError(ValueError):
    """A document is not a definition, or a kind or a version does not exist; the message contains the remedy."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KindDefinition:
    """One version of a kind."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    schema: Mapping[str, Any]
    """The OpenAPI v3 schema of an object; empty if the version has none."""

    def __post_init__(self) -> None:
        """Checks the names, which become source code.

        Raises:
            DefinitionError: a name is not valid.
        """
        for field, pattern in _NAMES.items():
            value: object = getattr(self, field)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise DefinitionError(
                    f"{field} {value!r} of a definition is not valid: the API server rejects such names"
                )

    @property
    def api_version(self) -> str:
        """Group and version, as in manifests; the core group is empty."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """Kind and group, as `--kind` accepts them."""
        return _full_name((self.group, self.kind))


def read_definitions(
    texts: Iterable[tuple[str, str]], *, kinds: Sequence[str] = (), version: str = ""
) -> list[KindDefinition]:
    """Returns the kinds of YAML or JSON documents, sorted by group and kind. Documents of other kinds are ignored.

    Args:
        texts: names and contents of files.
        kinds: the kinds to return, as `Certificate` or `Certificate.cert-manager.io`; empty for all.
        version: the version to return; by default the one that is stored.

    Raises:
        DefinitionError: a document is malformed, or a kind or the version does not exist.
    """
    found: dict[GroupKind, tuple[str, Mapping[str, Any]]] = {}
    for name, text in texts:
        for manifest in _manifests(name, text):
            found[_group_kind(name, manifest)] = name, manifest
    if not found:
        raise DefinitionError(f"no {CRD_KIND} was found: name files that contain some")
    known = sorted(found)
    missing = [kind for kind in kinds if not any(matches(each, kind) for each in known)]
    if missing:
        available = ", ".join(map(_full_name, known))
        raise DefinitionError(f"the definitions do not contain the kind {missing[0]}: choose from {available}")
    wanted = [each for each in known if not kinds or any(matches(each, kind) for kind in kinds)]
    return with_different_names([_definition(*found[each], version) for each in wanted])


def with_different_names(definitions: list[KindDefinition]) -> list[KindDefinition]:
    """Returns the kinds if one module can contain them.

    Raises:
        DefinitionError: two of them have the same name.
    """
    names = [each.kind for each in definitions]
    for each in definitions:
        if names.count(each.kind) > 1:
            groups = ", ".join(other.full_name for other in definitions if other.kind == each.kind)
            raise DefinitionError(f"several groups have a kind {each.kind}: select one with --kind ({groups})")
    return definitions


def _full_name(given: GroupKind) -> str:
    group, kind = given
    return f"{kind}.{group}"


def matches(given: GroupKind, wanted: str) -> bool:
    """Whether `Kind` or `Kind.group` selects a kind."""
    return wanted.lower() in {given[1].lower(), _full_name(given).lower()}


def _manifests(name: str, text: str) -> Iterable[Mapping[str, Any]]:
    try:
        documents = [*load_documents(text)]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DefinitionError(f"{name} is neither YAML nor JSON: {error}") from error
    for document in documents:
        if not isinstance(document, dict):
            continue
        manifest = cast("Mapping[str, Any]", document)
        if manifest.get("kind") == CRD_KIND:
            yield manifest
        elif str(manifest.get("kind", "")).endswith("List"):
            items: list[Any] = manifest.get("items") or []
            for item in items:
                if isinstance(item, dict) and _is_definition(cast("Mapping[str, Any]", item), manifest):
                    yield cast("Mapping[str, Any]", item)


def _is_definition(item: Mapping[str, Any], parent: Mapping[str, Any]) -> bool:
    return bool(item.get("kind", str(parent.get("kind")).removesuffix("List")) == CRD_KIND)


def _group_kind(name: str, manifest: Mapping[str, Any]) -> GroupKind:
    with _malformed_is_an_error(name):
        spec = manifest["spec"]
        return str(spec["group"]), str(spec["names"]["kind"])


def _definition(name: str, manifest: Mapping[str, Any], version: str) -> KindDefinition:
    with _malformed_is_an_error(name):
        spec = manifest["spec"]
        names, versions = spec["names"], list(spec["versions"])
        label = f"{names['kind']}.{spec['group']}"
        if not versions:
            raise DefinitionError(f"{label} has no versions: name a file with the whole definition")
        served = [each for each in versions if each["name"] == version] if version else _stored(versions)
        if not served:
            available = ", ".join(each["name"] for each in versions)
            raise DefinitionError(f"{label} has no version {version}: choose from {available}")
        holder: Mapping[str, Any] = served[0].get("schema") or {}
        schema: Mapping[str, Any] = holder.get("openAPIV3Schema") or {}
        return KindDefinition(
            group=spec["group"],
            version=served[0]["name"],
            kind=names["kind"],
            plural=names["plural"],
            namespaced=spec.get("scope", "Namespaced") == "Namespaced",
            schema=schema,
        )


@contextmanager
def _malformed_is_an_error(name: str) -> Generator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{name} contains a malformed {CRD_KIND}: {error!r} (apiextensions.k8s.io/v1 is needed)"
        raise DefinitionError(message) from error


def _stored(versions: list[Any]) -> list[Any]:
    return [each for each in versions if each.get("storage")] or versions[:1]
