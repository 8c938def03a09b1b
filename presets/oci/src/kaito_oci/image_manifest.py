"""Opens an image in a registry: with the first credentials that it accepts, and for the platform of this machine.

Used by the pulls of adapters and models, and by `kaito model inspect`.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kaito_config.image_references import ImageReference

from kaito_oci.credentials import Credentials, find_credentials
from kaito_oci.errors import CredentialsRejected, RegistryError
from kaito_oci.json_values import is_list, is_object
from kaito_oci.registry import DOCKER_LIST, INDEX, MAX_ATTEMPTS, FetchedManifest, Registry


def open_image(
    reference: ImageReference,
    docker_configs: Sequence[Path],
    *,
    plain_http: bool,
    credentials: Sequence[Credentials] | None = None,
    tries: int = MAX_ATTEMPTS,
    sleep: Callable[[float], Any] = time.sleep,
) -> tuple[Registry, FetchedManifest]:
    """Returns the client and the manifest of an image; an index is resolved to one of its images.

    The credentials of each Docker configuration are tried in order, then anonymous access. `credentials` take the place
    of those in files.

    Raises:
        ConfigurationError: a Docker configuration cannot be read.
        CredentialsRejected: the registry rejects all credentials.
        RegistryError: the manifest cannot be fetched, or is malformed.
    """
    for each in find_credentials(reference, docker_configs) if credentials is None else credentials:
        try:
            return _open(Registry(reference, each, plain_http=plain_http, tries=tries, sleep=sleep))
        except CredentialsRejected:
            continue
    return _open(Registry(reference, None, plain_http=plain_http, tries=tries, sleep=sleep))


def _open(registry: Registry) -> tuple[Registry, FetchedManifest]:
    reference = registry.reference
    manifest = registry.fetch_manifest(reference.version)
    if manifest.media_type in (INDEX, DOCKER_LIST) or "manifests" in manifest.document:
        manifest = registry.fetch_manifest(_choose_platform(manifest.document.get("manifests", []), reference))
    return registry, manifest


def _choose_platform(entries: Any, reference: ImageReference) -> str:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    # Build tools add attestations to an index, as manifests for an unknown platform.
    manifests = [entry for entry in entries if is_object(entry)] if is_list(entries) else []
    images = [entry for entry in manifests if _platform(entry).get("os") != "unknown"]
    matching = [entry for entry in images if _platform(entry).get("architecture") in (None, machine)]
    if not images:
        raise RegistryError(f"{reference} is an index without images")
    # Data images are often built for one platform only, and their content does not depend on it.
    return str((matching or images)[0].get("digest"))


def _platform(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("platform")
    return found if is_object(found) else {}
