"""Reads registry credentials from Docker configuration files, the format of `kubernetes.io/dockerconfigjson` Secrets.

The most specific entry for an image is used, as in the kubelet (`ImageReference.match_credentials`). If a file names a
credential helper for the registry (`credHelpers`, `credsStore`) and the helper is installed, as on the machine of a
user who has run `docker login`, its answer is used.
"""

import base64
import binascii
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaito_config.image_references import DOCKER_HUB, ImageReference

from kaito_oci.errors import ConfigurationError
from kaito_oci.json_values import is_object

log = logging.getLogger(__name__)

HELPER_SECONDS: Final = 30.0
_HELPER: Final = re.compile(r"[A-Za-z0-9._-]+")


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
        document, entries = _entries(file)
        credentials = _match(reference, entries) or _from_helper(reference, document)
        if credentials:
            found.append(credentials)
    return found


def parse_credentials(reference: ImageReference, document: str) -> Credentials | None:
    """Returns the credentials for an image in the text of a Docker configuration, such as that of a Secret; None if
    there are none, or the text is not a configuration. Credential helpers are not run.
    """
    try:
        parsed = json.loads(document)
    except ValueError:
        return None
    entries = parsed.get("auths") if is_object(parsed) else None
    return _match(reference, entries) if is_object(entries) else None


def default_files(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Returns the configuration files that the docker command reads."""
    folder = environment.get("DOCKER_CONFIG")
    return [Path(folder) / "config.json" if folder else Path.home() / ".docker" / "config.json"]


def _entries(file: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns a configuration and the entries of its registries."""
    path = file / "config.json" if file.is_dir() else file
    if file.is_dir() and not path.exists():
        path = file / ".dockerconfigjson"  # the key of a Secret that is mounted as a volume
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        is_config = any(key in document for key in ("auths", "credHelpers", "credsStore"))
        entries = document.get("auths", {}) if is_config else document
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"docker config {path}: {error}") from error
    if not is_object(entries):
        raise ConfigurationError(f"docker config {path}: auths is not an object")
    return document, entries


def _from_helper(reference: ImageReference, document: Mapping[str, Any]) -> Credentials | None:
    """Runs the credential helper of the registry, `docker-credential-NAME get`; None if it has no credentials."""
    helpers = document.get("credHelpers")
    servers = ["https://index.docker.io/v1/"] if reference.registry == DOCKER_HUB else [reference.registry]
    name = next((helpers[server] for server in servers if server in helpers), None) if is_object(helpers) else None
    name = name or document.get("credsStore")
    program = shutil.which(f"docker-credential-{name}") if isinstance(name, str) and _HELPER.fullmatch(name) else None
    if program is None:
        return None
    try:
        result = subprocess.run(  # noqa: S603 - a helper that the user has installed and named
            [program, "get"], input=servers[0], capture_output=True, text=True, timeout=HELPER_SECONDS, check=True
        )
        found = json.loads(result.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        # A helper that has no entry for the registry exits with 1, and anonymous access remains.
        log.debug("%s has no credentials for %s: %s", program, reference.registry, type(error).__name__)
        return None
    return Credentials(identity_token=secret) if user == "<token>" else Credentials(user, secret)


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
