"""Downloads the files of a model that an engine loads from Hugging Face, or from a mirror with the same HTTP API.

Used by `kaito model pack ORG/NAME`. Only the files of `model_files.LOADED` are downloaded, one after the other, at a
fixed commit: the revision is resolved once. An interrupted download continues after the last byte; weights are verified
by the SHA-256 digest that the hub lists.
"""

import hashlib
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from kaito_oci.download import sync
from kaito_oci.errors import ConfigurationError, CredentialsRejected, NotAModel, ProgramError, RegistryError
from kaito_oci.json_values import is_list, is_object
from kaito_oci.layout import check_free_disk
from kaito_oci.model_files import wanted_names
from kaito_oci.registry import CHUNK_BYTES, INITIAL_BACKOFF_SECONDS, MAX_ATTEMPTS, MAX_BACKOFF_SECONDS, TIMEOUT_SECONDS

log = logging.getLogger(__name__)

ENDPOINT: Final = "https://huggingface.co"
MAX_LISTING_BYTES: Final = 64 * 2**20
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Hub:
    """Where models are downloaded from."""

    endpoint: str = ENDPOINT
    token: str = ""
    sleep: Callable[[float], Any] = time.sleep

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Hub":
        """Reads HF_ENDPOINT and HF_TOKEN, the variables of huggingface_hub."""
        return cls(environment.get("HF_ENDPOINT") or ENDPOINT, environment.get("HF_TOKEN", ""))


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository."""

    name: str
    size: int
    sha256: str
    """Empty for small files, which the hub lists without one."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository at one commit."""

    name: str
    commit: str
    license: str
    files: tuple[HubFile, ...]
    """Those that an engine loads."""

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)


def is_model_id(text: str) -> bool:
    """Returns whether a text has the form `organization/name`."""
    return _ID.fullmatch(text) is not None


def find_model(hub: Hub, name: str, revision: str = "main") -> HubModel:
    """Returns the commit, the license and the files of a model.

    Raises:
        ConfigurationError: the model or the revision does not exist.
        CredentialsRejected: the model needs a token with access to it.
        NotAModel: the repository has no weights as safetensors.
        RegistryError: the hub cannot be reached, after retries.
    """
    if not is_model_id(name):
        raise ConfigurationError(f"{name!r} is neither a directory nor a model id of the form organization/name")
    address = f"{hub.endpoint.rstrip('/')}/api/models/{name}/revision/{quote(revision, safe='')}"
    with _open(hub, f"{address}?{urlencode({'blobs': 'true'})}", name, 0) as response:
        try:
            document: Any = json.loads(response.read(MAX_LISTING_BYTES))
            commit = str(document["sha"])
            listed = {
                str(entry["rfilename"]): HubFile(str(entry["rfilename"]), int(entry.get("size") or 0), _sha256(entry))
                for entry in document["siblings"]
            }
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{address}: the answer is not the description of a model: {error!r}") from error
    if not _COMMIT.fullmatch(commit):
        raise RegistryError(f"{address}: {commit[:80]!r} is not a commit")
    try:
        names = wanted_names(list(listed))
    except NotAModel as error:
        raise NotAModel(f"{name}: {error}") from error
    return HubModel(name, commit, _license(document), tuple(listed[each] for each in names))


def _sha256(entry: Mapping[str, Any]) -> str:
    lfs = entry.get("lfs")
    return str(lfs.get("sha256", "")) if is_object(lfs) else ""


def _license(document: Mapping[str, Any]) -> str:
    card = document.get("cardData")
    found = card.get("license") if is_object(card) else None
    if is_list(found):
        found = found[0] if found else None
    return found if isinstance(found, str) else ""


def download_model(hub: Hub, model: HubModel, directory: Path, *, report: Callable[[str, int], None]) -> None:
    """Downloads the files of a model to `directory`; files that are there are not downloaded again.

    Raises:
        CredentialsRejected: the model needs a token with access to it.
        RegistryError: a file cannot be downloaded, after retries.
        InsufficientDisk: the free disk space is smaller than the files.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        present = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
        check_free_disk(directory, max(0, model.size - present))
        for file in model.files:
            if not (directory / file.name).is_file():
                _download(hub, model, file, directory, report)
            report(file.name, file.size)
    except OSError as error:
        raise ProgramError(f"{directory} cannot be written: {error}") from error


def _download(hub: Hub, model: HubModel, file: HubFile, directory: Path, report: Callable[[str, int], None]) -> None:
    partial = directory / f"{file.name}.partial"
    address = f"{hub.endpoint.rstrip('/')}/{model.name}/resolve/{model.commit}/{quote(file.name)}"
    failures = 0
    while True:
        stored = partial.stat().st_size if partial.is_file() else 0
        try:
            if stored < file.size or not stored:
                _append(hub, model.name, address, partial, stored, lambda done: report(file.name, done))
            break
        except (ConnectionError, TimeoutError, HTTPException, _Busy) as error:
            received = partial.stat().st_size if partial.is_file() else 0
            failures = 1 if received > stored else failures + 1
            if failures >= MAX_ATTEMPTS:
                raise RegistryError(f"{address}: {error}") from error
            seconds = min(MAX_BACKOFF_SECONDS, INITIAL_BACKOFF_SECONDS * 2 ** (failures - 1))
            log.warning("%s: %s; continuing in %.0f s", address, error, seconds)
            hub.sleep(seconds)
    _verify(file, partial, address)
    sync(partial)
    partial.replace(directory / file.name)


def _verify(file: HubFile, partial: Path, address: str) -> None:
    digest = hashlib.sha256()
    with partial.open("rb") as opened:
        while piece := opened.read(CHUNK_BYTES):
            digest.update(piece)
    size = partial.stat().st_size
    if (file.size and size != file.size) or (file.sha256 and digest.hexdigest() != file.sha256):
        partial.unlink()
        raise RegistryError(f"{address}: the content ({size} bytes) differs from what the hub lists; download it again")


def _append(hub: Hub, name: str, address: str, partial: Path, stored: int, report: Callable[[int], None]) -> None:
    with _open(hub, address, name, stored) as response, partial.open("ab") as target:
        if stored and response.status != 206:
            target.truncate(0)
            stored = 0
        expected = response.headers.get("Content-Length")
        received = 0
        while piece := response.read(CHUNK_BYTES):
            target.write(piece)
            received += len(piece)
            report(stored + received)
        if expected is not None and received < int(expected):
            raise ConnectionError("the connection ended early")


class _Busy(Exception):
    """The hub is overloaded; a later attempt may succeed."""


def _open(hub: Hub, address: str, name: str, start: int) -> Any:
    """Sends a request, with retries until a response begins."""
    problem: Exception | None = None
    for attempt in range(MAX_ATTEMPTS):
        request = urllib.request.Request(address, headers={"User-Agent": "kaito"})  # noqa: S310 - http(s), checked
        if not address.startswith(("http://", "https://")):
            raise ConfigurationError(f"the endpoint {hub.endpoint!r} is not an http or https address")
        if hub.token:
            request.add_unredirected_header("Authorization", f"Bearer {hub.token}")
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
        except urllib.error.HTTPError as error:
            problem = _problem(error, name, hub)
            if not isinstance(problem, _Busy):
                raise problem from error
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            problem = error
        if attempt < MAX_ATTEMPTS - 1:
            hub.sleep(min(MAX_BACKOFF_SECONDS, INITIAL_BACKOFF_SECONDS * 2**attempt))
    raise RegistryError(f"{address}: {problem}")


def _problem(error: urllib.error.HTTPError, name: str, hub: Hub) -> Exception:
    with error:
        if error.code in (401, 403):
            remedy = "the token has no access to it" if hub.token else "set HF_TOKEN or --token"
            return CredentialsRejected(f"{name} at {hub.endpoint} requires authentication: {remedy}")
        if error.code == 404:
            return ConfigurationError(f"{hub.endpoint} has no {name} with this revision, or the token has no access")
        if error.code in _RETRIED:
            return _Busy(f"status {error.code}")
        return RegistryError(f"{error.url}: status {error.code}")
