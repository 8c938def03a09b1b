"""`kaito model pack`, `push`, `inspect` and `pull`: what the commands do, without the parsing of arguments.

Used by `kaito.cli.model`. Progress is logged; results are returned as text.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaito_config.image_references import ImageReference

from kaito_oci.errors import ConfigurationError, NotAModel
from kaito_oci.hub import Hub, download_model, find_model, is_model_id
from kaito_oci.layout import default_store, is_layout, stored_artifact, write_layout
from kaito_oci.model_artifact import Artifact, Identity, pack_model
from kaito_oci.model_cache import pull_cached
from kaito_oci.model_files import model_files
from kaito_oci.model_pull import PARALLEL, PullOptions, pull_model
from kaito_oci.model_push import push_model
from kaito_oci.model_report import describe_manifest, inspect_artifact, inspect_directory, lines
from kaito_oci.progress import Progress, reporting, size_text
from kaito_oci.reference import parse_reference


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the registry."""

    docker_configs: Sequence[Path] = ()
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Options of `kaito model pack`."""

    push: bool = False
    """Push to the registry instead of writing to the store."""
    store: Path = field(default_factory=default_store)
    revision: str = ""
    name: str = ""
    license: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    hub: Hub = field(default_factory=Hub.from_environment)
    download_dir: Path | None = None


def pack(source: str, reference: str, options: PackOptions, access: Access) -> str:
    """Packs a directory, or a model of Hugging Face, and stores or pushes it.

    Raises:
        ProgramError: see `kaito_oci.errors`.
    """
    image = _tagged(reference)
    progress = Progress(str(image))
    with reporting(progress):
        directory, identity = _source(source, options, progress)
        progress.start("hashing", sum(file.size for file in model_files(directory)))
        artifact = pack_model(directory, identity, report=progress.update, annotations=options.annotations)
        progress.start("pushing" if options.push else "packing", artifact.size)
        if options.push:
            digest = push_model(
                image,
                artifact.blobs,
                artifact.manifests,
                artifact.index,
                docker_configs=access.docker_configs,
                plain_http=access.plain_http,
                report=progress.update,
            )
            result = f"pushed {image}@{digest}"
        else:
            digest = write_layout(artifact, options.store, str(image), report=progress.update)
            result = f"packed {image}@{digest} in {options.store}; push it with: kaito model push {image}"
        progress.set_phase("complete", _summary(artifact))
    return result


def push(reference: str, store: Path, access: Access) -> str:
    """Pushes a packed model from the store.

    Raises:
        ProgramError: see `kaito_oci.errors`.
    """
    image = _tagged(reference)
    blobs, manifests, top = stored_artifact(store, str(image))
    size = sum(blob.size for blob in blobs)
    progress = Progress(str(image))
    progress.start("pushing", size)
    with reporting(progress):
        digest = push_model(
            image,
            blobs,
            manifests,
            top,
            docker_configs=access.docker_configs,
            plain_http=access.plain_http,
            report=progress.update,
        )
        progress.set_phase("complete", f"{size_text(size)} are in {image.registry}")
    return f"pushed {image}@{digest}"


def pull(
    reference: str, directory: Path, access: Access, *, cache: Path | None = None, parallel: int = PARALLEL
) -> str:
    """Pulls a model into a directory.

    Raises:
        ProgramError: see `kaito_oci.errors`.
    """
    image = parse_reference(reference)
    progress = Progress(str(image))
    options = PullOptions(access.docker_configs, plain_http=access.plain_http, parallel=parallel)
    with reporting(progress):
        if cache is not None:
            marker = pull_cached(image, directory, cache, progress, options)
        else:
            marker = pull_model(image, directory, progress, options)
    return f"pulled {image} to {directory}: {len(marker.files)} files, {marker.digest}"


def inspect(source: str, access: Access, *, store: Path, as_json: bool = False) -> str:
    """Describes a model directory, an artifact of a layout or of the store, or an artifact in a registry.

    Raises:
        ProgramError: see `kaito_oci.errors`.
    """
    path = Path(source)
    if path.is_dir() and is_layout(path):
        raise NotAModel(f"{path} is an image layout: name an artifact of it with --store {path}")
    if path.is_dir():
        found = inspect_directory(path)
    else:
        image = parse_reference(source)
        found = _stored(image, store) or inspect_artifact(image, access.docker_configs, plain_http=access.plain_http)
    return json.dumps(found, indent=2) if as_json else "\n".join(lines(found))


def _stored(image: ImageReference, store: Path) -> dict[str, Any] | None:
    if not is_layout(store):
        return None
    try:
        _, manifests, top = stored_artifact(store, str(image))
    except NotAModel:
        return None
    manifest = manifests[0] if manifests else top
    return describe_manifest(json.loads(manifest.read()), str(image), manifest.digest, location=str(store))


def _tagged(reference: str) -> ImageReference:
    image = parse_reference(reference)
    if image.digest:
        raise ConfigurationError(f"{reference}: name a tag; the digest follows from the files")
    return image


def _source(source: str, options: PackOptions, progress: Progress) -> tuple[Path, Identity]:
    path = Path(source).expanduser()
    if path.is_dir():
        return path, Identity(options.name, options.revision, options.license)
    if path.exists() or not is_model_id(source):
        raise ConfigurationError(
            f"{source!r} is neither a directory nor a model id of Hugging Face of the form organization/name"
        )
    model = find_model(options.hub, source, options.revision or "main")
    directory = options.download_dir or _downloads() / source.replace("/", "--") / model.commit
    progress.start("downloading", model.size)
    download_model(options.hub, model, directory, report=progress.update)
    page = f"{options.hub.endpoint.rstrip('/')}/{source}"
    return directory, Identity(options.name or source, model.commit, options.license or model.license, page)


def _downloads() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "kaito" / "downloads"


def _summary(artifact: Artifact) -> str:
    facts = artifact.facts
    known = [facts.architecture, facts.dtype, f"{facts.parameters / 1e9:.2f} billion parameters"]
    return f"{len(artifact.files)} files, {size_text(facts.size)}: {', '.join(each for each in known if each)}"
