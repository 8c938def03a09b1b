"""Reads registry credentials from Docker configuration files, the format of `kubernetes.io/dockerconfigjson` Secrets.

Used by `adapter_image`. The most specific entry for an image is used, as in the kubelet
(`ImageReference.match_credentials`).
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_config.image_references import ImageReference

from kaito_oci.errors import ConfigurationError
from kaito_oci.json_values import is_object


@dataclass(frozen=True, slots=True)
class Credentials:
    """User name and password, or an identity token for the registry's token service."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"  # without the secret, so that it is not logged

    @property
    def basic(self) -> str:
        """Value of the Authorization header for basic authentication."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(reference: ImageReference, files: Sequence[Path]) -> list[Credentials]:
    """Returns the credentials for an image from each file that contains some, in the order of the files.

    Without `files`, the default files of Docker are read if they exist.

    Raises:
        ConfigurationError: one of `files`, or an existing default file, cannot be read.
    """
    found: list[Credentials] = []
    for file, required in [(file, True) for file in files] or [(file, False) for file in default_files()]:
        if not required and not file.is_file():
            continue
        credentials = _match(reference, _entries(file))
        if credentials:
            found.append(credentials)
    return found


def default_files(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Returns the configuration files that the docker command reads."""
    folder = environment.get("DOCKER_CONFIG")
    return [Path(folder) / "config.json" if folder else Path.home() / ".docker" / "config.json"]


def _entries(file: Path) -> Mapping[str, Any]:
    path = file / "config.json" if file.is_dir() else file
    if file.is_dir() and not path.exists():
        path = file / ".dockerconfigjson"  # the key of a Secret that is mounted as a volume
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = document.get("auths", {}) if "auths" in document or "credHelpers" in document else document
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"docker config {path}: {error}") from error
    if not is_object(entries):
        raise ConfigurationError(f"docker config {path}: auths is not an object")
    return entries


def _match(reference: ImageReference, entries: Mapping[str, Any]) -> Credentials | None:
    """Reads the most specific entry for an image."""
    best: tuple[int, Any] = (0, None)
    for key, entry in entries.items():
        specificity = reference.match_credentials(key)
        if specificity > best[0]:
            best = (specificity, entry)
    return _read_entry(best[1])


def _read_entry(entry: Any) -> Credentials | None:
    if not is_object(entry):
        return None
    if entry.get("identitytoken"):
        return Credentials(identity_token=str(entry["identitytoken"]))
    if entry.get("username"):
        return Credentials(str(entry["username"]), str(entry.get("password", "")))
    try:
        user, colon, password = base64.b64decode(str(entry.get("auth", "")), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(user, password) if colon else None
