"""Describes a model for a reader: an artifact in a registry, a packed one, or a directory.

Used by `kaito model inspect` and after `pack`. The result is a JSON object; `lines` formats it for a terminal.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kaito_config.image_references import ImageReference

from kaito_oci import artifact_types
from kaito_oci.artifact_types import read_layers
from kaito_oci.image_manifest import open_image
from kaito_oci.json_values import is_list, is_object
from kaito_oci.model_artifact import fact_annotations
from kaito_oci.model_files import model_card_license, model_facts, model_files
from kaito_oci.progress import size_text


def inspect_artifact(
    reference: ImageReference, docker_configs: Sequence[Path] = (), *, plain_http: bool = False
) -> dict[str, Any]:
    """Describes an artifact in a registry.

    Raises:
        RegistryError: the manifest cannot be fetched.
    """
    registry, manifest = open_image(reference, docker_configs, plain_http=plain_http)
    return describe_manifest(manifest.document, str(reference), manifest.digest, location=registry.reference.registry)


def describe_manifest(document: Mapping[str, Any], reference: str, digest: str, *, location: str) -> dict[str, Any]:
    """Describes a manifest; `location` is the registry or the store that contains it."""
    layers = read_layers(document, reference)
    annotations = document.get("annotations")
    config = document.get("config")
    return {
        "reference": reference,
        "location": location,
        "digest": digest,
        "type": str(document.get("artifactType") or (config.get("mediaType") if is_object(config) else "") or ""),
        "annotations": annotations if is_object(annotations) else {},
        "files": [
            {"name": layer.name or layer.digest[:19], "size": layer.file_size, "digest": layer.digest}
            for layer in layers
        ],
        "size": sum(layer.file_size for layer in layers),
        "transfer": sum(layer.size for layer in layers),
    }


def inspect_directory(directory: Path) -> dict[str, Any]:
    """Describes the model that `kaito model pack` would pack.

    Raises:
        NotAModel: the directory is not a model, or a file is damaged.
    """
    files = model_files(directory)
    facts = model_facts(directory, files)
    annotations = {
        artifact_types.LICENSES: model_card_license(directory),
        **fact_annotations(facts),
    }
    return {
        "directory": str(directory),
        "annotations": {key: value for key, value in annotations.items() if value},
        "files": [{"name": file.name, "size": file.size} for file in files],
        "size": facts.size,
    }


def lines(description: Mapping[str, Any]) -> list[str]:
    """Formats a description."""
    found = [
        f"{key + ':':<12} {description[key]}"
        for key in ("reference", "location", "directory", "digest", "type")
        if key in description
    ]
    annotations = description.get("annotations")
    if is_object(annotations) and annotations:
        found.append("annotations:")
        found += [f"  {key}: {value}" for key, value in sorted(annotations.items())]
    files = description.get("files")
    entries = [entry for entry in files if is_object(entry)] if is_list(files) else []
    width = max((len(str(entry["name"])) for entry in entries), default=0)
    found.append("files:")
    found += [f"  {entry['name']!s:<{width}}  {size_text(int(entry['size'])):>12}" for entry in entries]
    found.append(f"{'size:':<12} {size_text(int(description['size']))} in {len(entries)} files")
    return found
