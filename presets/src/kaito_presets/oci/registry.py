"""The registry protocol (OCI distribution specification 1.1), as far as pushing and pulling needs it.

Used by `adapter_image`. Guarantees: what may succeed later is retried with growing pauses and a bound
(connection errors, 408, 429 with its Retry-After, 5xx); refused credentials are reported as such and never
retried; every blob's digest is verified; credentials are never sent to the host that a registry redirects
to.
"""

import hashlib
import io
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Final, final
from urllib.parse import urlencode, urljoin, urlsplit

from kaito_config.image_references import ImageReference

from kaito_presets.errors import CredentialsRefused, RegistryError
from kaito_presets.json_values import is_object
from kaito_presets.oci.credentials import Credentials

log = logging.getLogger(__name__)

TRIES: Final = 6
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
TIMEOUT_SECONDS: Final = 120.0
"""Of one socket operation, not of a whole transfer."""
PIECE_BYTES: Final = 2**20
RETRIED_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"


@dataclass(frozen=True, slots=True)
class _Response:
    """Status, headers and body; the body of a download is left open instead."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    stream: IO[bytes] | None = None


Body = bytes | Path | None


@final
class Registry:
    """One repository of one registry."""

    def __init__(
        self,
        reference: ImageReference,
        credentials: Credentials | None,
        *,
        plain_http: bool = False,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        scheme = "http" if plain_http or reference.is_loopback else "https"
        self._base = f"{scheme}://{reference.api_host}/v2/{reference.repository}/"
        self._reference = reference
        self._credentials = credentials
        self._authorization: str | None = None
        self._tries = tries
        self._sleep = sleep

    # Pushing.

    def push_blob(self, content: bytes | Path, digest: str, size: int) -> None:
        """Upload a blob unless the registry has it.

        Raises:
            RegistryError: gave up.
        """
        if self._send("HEAD", f"blobs/{digest}", accept_missing=True).status == 200:
            return
        for attempt in range(self._tries):
            # An upload session that failed half way is not continued but begun anew.
            started = self._send("POST", "blobs/uploads/", data=b"", expected=(202, 201))
            if started.status == 201:
                return
            location = urljoin(self._base, started.headers.get("location", ""))
            url = location + ("&" if urlsplit(location).query else "?") + urlencode({"digest": digest})
            try:
                self._once(
                    "PUT", url, {"Content-Type": "application/octet-stream", "Content-Length": str(size)}, content
                )
                return
            except (RegistryError, OSError, HTTPException) as error:
                if isinstance(error, CredentialsRefused) or attempt == self._tries - 1 or not _is_temporary(error):
                    raise self._failed(f"upload of {digest[:19]}", error) from error
                self._pause(attempt, error)

    def check_push(self) -> None:
        """Check that the registry takes a push: log in, begin an upload and cancel it. Nothing is stored.

        Raises:
            CredentialsRefused: no credentials, or ones that may not push here.
            RegistryError: the registry refuses for another reason, or cannot be reached after retries.
        """
        started = self._send("POST", "blobs/uploads/", data=b"", expected=(202, 201))
        location = started.headers.get("location", "")
        if not location:
            return
        try:
            self._once("DELETE", urljoin(self._base, location), {}, None)
        except (RegistryError, OSError, HTTPException) as error:
            # Cancelling is optional (OCI distribution specification 1.1); an upload without content expires.
            log.debug("%s: the trial upload was not cancelled: %s", self._reference, error)

    def push_manifest(self, document: bytes, media_type: str) -> str:
        """Store a manifest under the reference's tag; returns its digest."""
        headers = {"Content-Type": media_type}
        self._send("PUT", f"manifests/{self._reference.tag}", data=document, headers=headers, expected=(201, 200))
        return "sha256:" + hashlib.sha256(document).hexdigest()

    # Pulling.

    def manifest(self, version: str) -> tuple[dict[str, Any], str]:
        """A manifest or index, and its media type."""
        accept = f"{MANIFEST}, {INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
        response = self._send("GET", f"manifests/{version}", headers={"Accept": accept})
        raw = response.content
        if version.startswith("sha256:") and "sha256:" + hashlib.sha256(raw).hexdigest() != version:
            raise RegistryError(f"{self._reference}: manifest {version} does not match its digest")
        try:
            document: dict[str, Any] = json.loads(raw)
        except ValueError as error:
            raise RegistryError(f"{self._reference}: the manifest is not JSON") from error
        return document, str(document.get("mediaType") or response.headers.get("content-type", ""))

    def pull_blob(self, digest: str, target: Path) -> None:
        """Download a blob and verify its digest."""
        for attempt in range(self._tries):
            try:
                response = self._send("GET", f"blobs/{digest}", stream=True)
                found = hashlib.sha256()
                body = response.stream or io.BytesIO()
                with body, target.open("wb") as file:
                    while piece := body.read(PIECE_BYTES):
                        found.update(piece)
                        file.write(piece)
                if f"sha256:{found.hexdigest()}" != digest:
                    raise ConnectionError("the content does not match the digest")
                return
            except (OSError, HTTPException) as error:
                if attempt == self._tries - 1:
                    raise self._failed(f"download of {digest[:19]}", error) from error
                self._pause(attempt, error)

    # Requests.

    def _send(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expected: Sequence[int] = (200, 201, 202),
        accept_missing: bool = False,
        stream: bool = False,
    ) -> _Response:
        """One request with retries."""
        for attempt in range(self._tries):
            try:
                response = self._once(
                    method, urljoin(self._base, path), headers or {}, data, accept_missing=accept_missing, stream=stream
                )
            except (OSError, HTTPException, RegistryError) as error:
                if attempt == self._tries - 1 or not _is_temporary(error):
                    raise self._failed(f"{method} {path}", error) from error
                self._pause(attempt, error)
                continue
            if response.status not in expected and not (accept_missing and response.status == 404):
                raise RegistryError(f"{self._reference}: {method} {path}: unexpected status {response.status}")
            return response
        raise AssertionError("unreachable: the last attempt raises or returns")

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Body,
        *,
        accept_missing: bool = False,
        stream: bool = False,
    ) -> _Response:
        """One request; answers an authentication challenge once."""
        response = _open(method, url, headers, data, self._authorization, stream=stream)
        if response.status == 401:
            self._authorization = self._answer(response.headers.get("www-authenticate", ""))
            response = _open(method, url, headers, data, self._authorization, stream=stream)
        if response.status in (401, 403):
            who = f"user {self._credentials.user!r}" if self._credentials else "anonymous access"
            raise CredentialsRefused(f"{self._reference}: the registry refuses {who} ({_reason(response)})")
        if response.status >= 400 and not (accept_missing and response.status == 404):
            retry_after = response.headers.get("retry-after", "")
            raise _Status(response.status, _reason(response), float(retry_after) if retry_after.isdigit() else None)
        return response

    def _answer(self, challenge: str) -> str:
        """The Authorization header that a `WWW-Authenticate` challenge asks for."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if not self._credentials:
                raise CredentialsRefused(f"{self._reference}: the registry wants credentials and there are none for it")
            return self._credentials.basic
        if scheme.lower() != "bearer":
            raise CredentialsRefused(f"{self._reference}: unknown authentication {challenge!r}")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = fields.get("realm", "")
        if not realm.startswith(("http://", "https://")):
            raise CredentialsRefused(f"{self._reference}: the challenge {challenge!r} names no token service")
        # Pushing needs both; a registry that grants less says so with the next 401.
        scope = fields.get("scope") or f"repository:{self._reference.repository}:pull,push"
        query = {"service": fields.get("service", ""), "scope": scope}
        if self._credentials and self._credentials.identity_token:
            form = {**query, "grant_type": "refresh_token", "refresh_token": self._credentials.identity_token}
            form["client_id"] = "kaito"
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = _open("POST", realm, headers, urlencode(form).encode(), None)
        else:
            basic = self._credentials.basic if self._credentials else None
            response = _open("GET", f"{realm}?{urlencode(query)}", {}, None, basic)
        if response.status in (400, 401, 403):
            raise CredentialsRefused(
                f"{self._reference}: the token service refuses the credentials ({_reason(response)})"
            )
        if response.status >= 400:
            raise _Status(response.status, _reason(response), None)
        return f"Bearer {_token(response.content, realm)}"

    def _pause(self, attempt: int, error: Exception) -> None:
        asked = error.retry_after if isinstance(error, _Status) else None
        seconds = min(LONGEST_PAUSE_SECONDS, asked if asked is not None else FIRST_PAUSE_SECONDS * 2**attempt)
        log.warning("%s: %s; trying again in %.0f s", self._reference, error, seconds)
        self._sleep(seconds)

    def _failed(self, what: str, error: Exception) -> RegistryError:
        if isinstance(error, CredentialsRefused):
            return error
        return RegistryError(f"{self._reference}: {what}: {error}")


class _Status(RegistryError):
    """An error status."""

    def __init__(self, status: int, reason: str, retry_after: float | None) -> None:
        super().__init__(f"status {status} ({reason})")
        self.status = status
        self.retry_after = retry_after


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, _Status):
        return error.status in RETRIED_STATUS
    return not isinstance(error, RegistryError)


def _token(content: bytes, realm: str) -> str:
    """The token of a token service's answer (the distribution project's token specification)."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise CredentialsRefused(f"{realm}: the token service's answer is not JSON") from error
    token = (document.get("token") or document.get("access_token")) if is_object(document) else None
    if not isinstance(token, str):
        raise CredentialsRefused(f"{realm}: the token service's answer holds no token")
    return token


def _reason(response: _Response) -> str:
    """The registry's own words, if it has some."""
    try:
        errors = json.loads(response.content)["errors"]
        return "; ".join(str(error.get("message") or error.get("code")) for error in errors) or str(response.status)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"status {response.status}"


def _open(
    method: str, url: str, headers: Mapping[str, str], data: Body, authorization: str | None, *, stream: bool = False
) -> _Response:
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - http(s) by construction
    if authorization:
        # Not repeated to the host of a redirect.
        request.add_unredirected_header("Authorization", authorization)
    if isinstance(data, Path):
        with data.open("rb") as file:
            request.data = file
            return _exchange(request, stream=stream)
    request.data = data
    return _exchange(request, stream=stream)


def _exchange(request: urllib.request.Request, *, stream: bool) -> _Response:
    try:
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            return _Response(error.code, _lower(error.headers), error.read())
    except urllib.error.URLError as error:
        raise ConnectionError(f"{urlsplit(request.full_url).netloc}: {error.reason}") from error
    if stream:
        return _Response(response.status, _lower(response.headers), stream=response)
    with response:
        return _Response(response.status, _lower(response.headers), response.read())


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}
