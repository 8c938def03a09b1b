"""Conversion between the versions of a kind: one version is the hub, all others convert to and from it.

    Conversion(v1.Memcached, Spoke(v1beta1.Memcached, to_hub=up, from_hub=down))

The API server sends batches. As the protocol requires, the first object that cannot be converted fails its batch. Of
the metadata only changes of labels and annotations are used: the API server rejects all others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

import msgspec

from kaito.runtime.client import codec
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import Resource
from kaito.runtime.webhook.lossless import (
    carry_preserved,
    preserve_lost,
    preserved_annotation,
    restore_preserved,
    take_preserved,
)

H = TypeVar("H", bound=Resource)
S = TypeVar("S", bound=Resource)

GROUP_VERSION = "apiextensions.k8s.io/v1"

_MAY_DIFFER = ("labels", "annotations")


class ConversionError(Exception):
    """An object cannot be converted; the message contains its name."""


@dataclass(frozen=True, slots=True)
class Spoke(Generic[S, H]):
    """A version, and its conversions to and from the hub."""

    kind: type[S]
    to_hub: Callable[[S], H]
    from_hub: Callable[[H], S]


@final
class Conversion(Generic[H]):
    """All versions of one kind.

    Args:
        hub: the version that every conversion goes through; usually the stored one.
        spokes: all other versions.
        lossless: store fields that a version cannot represent in an annotation (`<group>/kept-from-<version>`). The
            functions are then also called to convert back, to find the lost fields.

    Raises:
        ConfigurationError: the versions are of several kinds, or one is given twice.
    """

    def __init__(self, hub: type[H], *spokes: Spoke[Any, H], lossless: bool = False) -> None:
        self.hub = hub
        self._lossless = lossless
        kinds = [hub, *(spoke.kind for spoke in spokes)]
        if len({(kind.group(), kind.kind) for kind in kinds}) != 1:
            message = f"Conversion: {', '.join(str(kind.gvk()) for kind in kinds)} are not versions of one kind"
            raise ConfigurationError(message)
        versions = [kind.api_version for kind in kinds]
        if len(set(versions)) != len(versions):
            message = f"Conversion of {hub.kind}: a version is given twice: {', '.join(versions)}"
            raise ConfigurationError(message)
        self._spokes = {spoke.kind.api_version: spoke for spoke in spokes}
        self.kinds: Sequence[type[Resource]] = kinds
        """The models of all versions, the hub first."""

    @property
    def group_kind(self) -> tuple[str, str]:
        """Group and kind."""
        return self.hub.group(), self.hub.kind

    def check_coverage(self, definition: Mapping[str, Any]) -> None:
        """Checks that this conversion covers all versions of a CustomResourceDefinition.

        Raises:
            ConfigurationError: versions are missing, or it is another kind.
        """
        spec = definition["spec"]
        if (spec["group"], spec["names"]["kind"]) != self.group_kind:
            message = (
                f"Conversion of {self.hub.kind}.{self.hub.group()}: {definition['metadata']['name']} is another kind"
            )
            raise ConfigurationError(message)
        known = {kind.gvk().version for kind in self.kinds}
        missing = [version["name"] for version in spec["versions"] if version["name"] not in known]
        if missing:
            message = f"Conversion of {self.hub.kind}: no conversion of {', '.join(missing)} is known"
            raise ConfigurationError(message)

    def convert(self, document: Mapping[str, Any], wanted: str) -> dict[str, Any]:
        """Converts an object to another version.

        Raises:
            ConversionError: a version is unknown or the same, the object does not fit its model, or a function failed.
        """
        given = str(document.get("apiVersion"))
        name = f"{self.hub.kind} {_metadata(document).get('name', '')}"
        if given == wanted:
            message = f"{name} is of version {given} already"
            raise ConversionError(message)
        for version in (given, wanted):
            if version != self.hub.api_version and version not in self._spokes:
                message = f"{name}: no conversion of {version} is known"
                raise ConversionError(message)
        try:
            converted = self._through_hub(document, given, wanted)
        except Exception as error:
            message = f"{name} from {given} to {wanted}: {type(error).__name__}: {error}"
            raise ConversionError(message) from error
        return _with_metadata_of(document, converted)

    def _through_hub(self, document: Mapping[str, Any], given: str, wanted: str) -> dict[str, Any]:
        hub = self.hub.api_version
        if hub in {given, wanted}:
            return self._step(document, given, wanted)
        return self._step(_with_metadata_of(document, self._step(document, given, hub)), hub, wanted)

    def _step(self, document: Mapping[str, Any], given: str, wanted: str) -> dict[str, Any]:
        """Converts from a spoke to the hub, or from the hub to a spoke."""
        if not self._lossless:
            return self._call(document, given, wanted)
        group = self.hub.group()
        own, other = (preserved_annotation(group, version.rpartition("/")[2]) for version in (given, wanted))
        document, preserved = take_preserved(document, other, own)
        converted = restore_preserved(self._call(document, given, wanted), preserved)
        converted = carry_preserved(document, converted, group)
        return preserve_lost(converted, own, given=document, back=self._call(converted, wanted, given))

    def _call(self, document: Mapping[str, Any], given: str, wanted: str) -> dict[str, Any]:
        text = msgspec.json.encode(document)
        if given == self.hub.api_version:
            result: Resource = self._spokes[wanted].from_hub(codec.decode(self.hub, text))
        else:
            spoke = self._spokes[given]
            result = spoke.to_hub(codec.decode(spoke.kind, text))
        return result.to_dict()


def _with_metadata_of(document: Mapping[str, Any], converted: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {name: value for name, value in _metadata(document).items() if name not in _MAY_DIFFER}
    changed = _metadata(converted)
    metadata |= {name: changed[name] for name in _MAY_DIFFER if name in changed}
    return converted | {"metadata": metadata}


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] | None = document.get("metadata")
    return metadata or {}


def convert_review(conversions: Mapping[tuple[str, str], Conversion[Any]], body: bytes) -> dict[str, Any]:
    """The response to a ConversionReview; for an invalid body the response contains the error."""
    uid = ""
    try:
        document: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        request: Mapping[str, Any] = document.get("request") or {}
        uid = str(request.get("uid", ""))
        if document.get("apiVersion") != GROUP_VERSION or document.get("kind") != "ConversionReview" or not uid:
            message = f"expected a ConversionReview of {GROUP_VERSION} with a uid"
            raise ConversionError(message)
        wanted = str(request.get("desiredAPIVersion"))
        converted = [_convert(conversions, each, wanted) for each in request.get("objects") or ()]
    except (ConversionError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        result = {"status": "Failure", "message": str(error)}
        return _response({"uid": uid, "convertedObjects": [], "result": result})
    return _response({"uid": uid, "convertedObjects": converted, "result": {"status": "Success"}})


def _convert(
    conversions: Mapping[tuple[str, str], Conversion[Any]], document: Mapping[str, Any], wanted: str
) -> dict[str, Any]:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    key = (group, str(document.get("kind", "")))
    if wanted.rpartition("/")[0] != group or key not in conversions:
        message = f"no conversion of {key[1]}.{group} to {wanted} is known"
        raise ConversionError(message)
    return conversions[key].convert(document, wanted)


def _response(response: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": GROUP_VERSION, "kind": "ConversionReview", "response": response}
