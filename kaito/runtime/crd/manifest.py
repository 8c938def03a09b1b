"""Builds the CustomResourceDefinition manifest of a kind."""

from collections.abc import Mapping, Sequence
from typing import Any

from kaito.runtime.crd.declare import Version
from kaito.runtime.crd.schema import structural_schema
from kaito.runtime.errors import ConfigurationError


def crd(
    versions: Sequence[Version],
    *,
    short_names: Sequence[str] = (),
    categories: Sequence[str] = (),
    singular: str = "",
    conversion: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds the manifest.

    The status subresource is enabled for every version whose model has a `status`.

    Args:
        versions: The versions with their models; exactly one is the storage version.
        short_names: Short names for `kubectl get`.
        categories: Categories such as `all`.
        singular: Singular name; by default the kind in lower case.
        conversion: `spec.conversion`, from `kaito.runtime.webhook.conversion_manifest`; by default, versions must
            differ only in their names.

    Raises:
        ConfigurationError: The versions are of different kinds, there is not exactly one storage version, or a field's
            type has no structural schema.
    """
    _check(versions)
    kind = versions[0].model
    names: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": singular or kind.kind.lower(),
    }
    if short_names:
        names["shortNames"] = list(short_names)
    if categories:
        names["categories"] = list(categories)
    converted = {"conversion": dict(conversion)} if conversion is not None else {}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group()}"},
        "spec": {
            "group": kind.group(),
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            **converted,
            "versions": [_version(version) for version in versions],
        },
    }


def _version(version: Version) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": version.name, "served": version.served, "storage": version.storage}
    if version.deprecated:
        entry |= {"deprecated": True, "deprecationWarning": version.deprecated}
    if version.columns:
        entry["additionalPrinterColumns"] = [column.to_schema() for column in version.columns]
    subresources: dict[str, Any] = {}
    if "status" in version.model.model_fields:
        subresources["status"] = {}
    if version.scale is not None:
        subresources["scale"] = version.scale.to_schema()
    if subresources:
        entry["subresources"] = subresources
    if version.selectable:
        entry["selectableFields"] = [{"jsonPath": path} for path in version.selectable]
    entry["schema"] = {"openAPIV3Schema": structural_schema(version.model)}
    return entry | dict(version.extra or {})


def _check(versions: Sequence[Version]) -> None:
    problem = ""
    identities = {(v.model.group(), v.model.kind, v.model.plural, v.model.namespaced) for v in versions}
    if len(identities) != 1:
        problem = f"the versions of a CRD must be of one kind, not {sorted(identities)}"
    elif sum(version.storage for version in versions) != 1:
        problem = f"{versions[0].model.kind}: exactly one version must have storage=True"
    elif len({version.name for version in versions}) != len(versions):
        problem = f"{versions[0].model.kind}: duplicate version"
    elif not versions[0].model.group():
        problem = f"{versions[0].model.kind}: custom kinds need an API group"
    if problem:
        raise ConfigurationError(problem)
