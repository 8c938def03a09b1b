"""Pushes a packed model to a registry: several blobs at once, without a local copy.

Used by `kaito model push` and `kaito model pack --push`. Blobs that the registry has are not sent again, so that a
repeated push continues where the last one ended. The tag is written last.
"""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from kaito_config.image_references import ImageReference

from kaito_oci.credentials import find_credentials
from kaito_oci.json_values import is_object
from kaito_oci.model_artifact import Blob
from kaito_oci.registry import INDEX, MANIFEST, Registry

PARALLEL: Final = 3


def push_model(
    reference: ImageReference,
    blobs: Sequence[Blob],
    manifests: Sequence[Blob],
    top: Blob,
    *,
    docker_configs: Sequence[Path] = (),
    plain_http: bool = False,
    report: Callable[[str, int], None] = lambda _name, _done: None,
    parallel: int = PARALLEL,
) -> str:
    """Uploads the blobs, the manifests by digest, and the top document with the tag; returns its digest.

    Raises:
        ConfigurationError: the credentials cannot be read.
        CredentialsRejected: the registry rejects the credentials.
        RegistryError: an upload failed, after retries.
        NotAModel: a file was changed since it was packed.
    """
    credentials = find_credentials(reference, docker_configs)
    registry = Registry(reference, credentials[0] if credentials else None, plain_http=plain_http)
    registry.check_push()
    stop = threading.Event()

    def push(blob: Blob) -> None:
        if not stop.is_set():
            registry.push_blob(lambda: blob.pieces(report), blob.digest, blob.size)
            report(blob.label or blob.digest, blob.size)

    with ThreadPoolExecutor(parallel, thread_name_prefix="push") as pool:
        futures = [pool.submit(push, blob) for blob in blobs]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    for manifest in manifests:
        registry.push_manifest(manifest.read(), MANIFEST, manifest.digest)
    return registry.push_manifest(top.read(), INDEX if is_index(top) else MANIFEST)


def is_index(blob: Blob) -> bool:
    """Returns whether a document lists images."""
    document = json.loads(blob.read())
    return is_object(document) and "manifests" in document
