"""Client of the registry protocol for pushes and pulls (OCI distribution specification 1.1).

Used by `adapter_image`, `model_push` and `download`. Threads may share a client. Guarantees:

* Temporary failures (connection errors, 408, 425, 429, 5xx) are retried with exponential backoff, or after Retry-After.
* Rejected credentials are a CredentialsRejected error and are not retried.
* The digest of every blob and manifest that is requested by digest is verified.
* Credentials are not sent to a host to which the registry redirects.
"""

import hashlib
import io
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Final, final
from urllib.parse import urlencode, urljoin, urlsplit

from kaito_config.image_references import ImageReference

from kaito_oci.credentials import Credentials
from kaito_oci.errors import CredentialsRejected, RegistryError
from kaito_oci.json_values import is_object

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 6
INITIAL_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 30.0
TIMEOUT_SECONDS: Final = 120.0
"""Timeout of one socket operation, not of a whole transfer."""
CHUNK_BYTES: Final = 2**20
MAX_RESPONSE_BYTES: Final = 32 * 2**20
"""Limit of a response that is held in memory, such as a manifest; registries accept manifests up to 4 MiB."""
RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"


@dataclass(frozen=True, slots=True)
class _Response:
    """Status and headers of a response with its body, or the open stream of a download."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    stream: IO[bytes] | None = None


BodyPieces = Callable[[], Iterable[bytes]]
"""Opens the content of an upload; called again for each attempt."""
Body = bytes | Path | BodyPieces | None


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or index with its digest."""

    document: dict[str, Any]
    media_type: str
    digest: str


@final
@dataclass(frozen=True, slots=True)
class BlobStream:
    """The open download of a blob."""

    stream: IO[bytes]
    start: int
    """Offset of the first byte; 0 if the registry ignores ranges."""

    def read_exactly(self, count: int) -> bytes:
        """Reads `count` bytes.

        Raises:
            ConnectionError: the connection ended before.
        """
        content = b""
        while len(content) < count:
            piece = self.stream.read(count - len(content))
            if not piece:
                raise ConnectionError("the connection ended early")
            content += piece
        return content

    def skip(self, count: int) -> None:
        """Reads `count` bytes without keeping them."""
        while count > 0:
            count -= len(self.read_exactly(min(count, CHUNK_BYTES)))


@final
class Registry:
    """Client of one repository of a registry."""

    def __init__(
        self,
        reference: ImageReference,
        credentials: Credentials | None,
        *,
        plain_http: bool = False,
        tries: int = MAX_ATTEMPTS,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> None:
        scheme = "http" if plain_http or reference.is_loopback else "https"
        self._base = f"{scheme}://{reference.api_host}/v2/{reference.repository}/"
        self._reference = reference
        self._credentials = credentials
        self._authorization: str | None = None
        self._tries = tries
        self._sleep = sleep

    @property
    def reference(self) -> ImageReference:
        """The image of this client."""
        return self._reference

    # Push.

    def has_blob(self, digest: str) -> bool:
        """Returns whether the repository contains a blob."""
        return self._send("HEAD", f"blobs/{digest}", accept_missing=True).status == 200

    def push_blob(self, content: bytes | Path | BodyPieces, digest: str, size: int) -> None:
        """Uploads a blob unless the registry has it.

        Raises:
            RegistryError: the upload failed, after retries.
        """
        if self.has_blob(digest):
            return
        for attempt in range(self._tries):
            # A failed upload session is not resumed, because the part that the registry stored is unknown.
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
                if isinstance(error, CredentialsRejected) or attempt == self._tries - 1 or not is_temporary(error):
                    raise self._failed(f"upload of {digest[:19]}", error) from error
                self._back_off(attempt, error)

    def check_push(self) -> None:
        """Checks that the registry accepts a push, by starting an upload and canceling it.

        Raises:
            CredentialsRejected: the credentials are missing, wrong, or do not permit a push.
            RegistryError: the registry rejects the upload for another reason, or cannot be reached after retries.
        """
        started = self._send("POST", "blobs/uploads/", data=b"", expected=(202, 201))
        location = started.headers.get("location", "")
        if not location:
            return
        try:
            self._once("DELETE", urljoin(self._base, location), {}, None)
        except (RegistryError, OSError, HTTPException) as error:
            # Registries need not support cancellation (OCI distribution specification 1.1); empty uploads expire.
            log.debug("%s: canceling the trial upload failed: %s", self._reference, error)

    def push_manifest(self, document: bytes, media_type: str, version: str = "") -> str:
        """Uploads a manifest with the tag of the reference, or as `version`; returns its digest."""
        headers = {"Content-Type": media_type}
        self._send(
            "PUT", f"manifests/{version or self._reference.tag}", data=document, headers=headers, expected=(201, 200)
        )
        return "sha256:" + hashlib.sha256(document).hexdigest()

    # Pull.

    def manifest(self, version: str) -> tuple[dict[str, Any], str]:
        """Downloads a manifest or index; returns the document and its media type."""
        fetched = self.fetch_manifest(version)
        return fetched.document, fetched.media_type

    def fetch_manifest(self, version: str) -> FetchedManifest:
        """Downloads a manifest or index by tag or digest.

        Raises:
            CredentialsRejected: the registry rejects the credentials.
            RegistryError: the manifest does not exist, is malformed or has another digest.
        """
        accept = f"{MANIFEST}, {INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
        response = self._send("GET", f"manifests/{version}", headers={"Accept": accept})
        digest = "sha256:" + hashlib.sha256(response.content).hexdigest()
        if version.startswith("sha256:") and digest != version:
            raise RegistryError(f"{self._reference}: manifest {version} does not match its digest")
        try:
            document = json.loads(response.content)
        except ValueError as error:
            raise RegistryError(f"{self._reference}: the manifest is not JSON") from error
        if not is_object(document):
            raise RegistryError(f"{self._reference}: the manifest is not a JSON object")
        media_type = str(document.get("mediaType") or response.headers.get("content-type", ""))
        return FetchedManifest(document, media_type, digest)

    @contextmanager
    def open_blob(self, digest: str, start: int) -> Generator[BlobStream]:
        """Opens the download of a blob at the offset `start`. One attempt; `download` repeats it.

        Raises:
            CredentialsRejected: the registry rejects the credentials.
            RegistryError: the registry responds with an error; `is_temporary` classifies it.
            OSError, HTTPException: the connection failed.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._once("GET", urljoin(self._base, f"blobs/{digest}"), headers, None, stream=True)
        body = response.stream or io.BytesIO()
        with body:
            content_range = response.headers.get("content-range", "")
            if response.status == 200:
                yield BlobStream(body, 0)
            elif response.status == 206 and content_range.startswith(f"bytes {start}-"):
                yield BlobStream(body, start)
            else:
                raise RegistryError(
                    f"{self._reference}: status {response.status} with the range {content_range[:80]!r} "
                    f"for a download from byte {start}"
                )

    def pull_blob(self, digest: str, target: Path) -> None:
        """Downloads a blob to `target` and verifies its digest.

        A blob with a wrong digest is downloaded again, because a truncated transfer has the same symptom.
        """
        for attempt in range(self._tries):
            try:
                response = self._send("GET", f"blobs/{digest}", stream=True)
                found = hashlib.sha256()
                body = response.stream or io.BytesIO()
                with body, target.open("wb") as file:
                    while piece := body.read(CHUNK_BYTES):
                        found.update(piece)
                        file.write(piece)
                if f"sha256:{found.hexdigest()}" != digest:
                    raise ConnectionError("the content does not match the digest")
                return
            except (OSError, HTTPException) as error:
                if attempt == self._tries - 1:
                    raise self._failed(f"download of {digest[:19]}", error) from error
                self._back_off(attempt, error)

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
        """Sends a request, with retries."""
        for attempt in range(self._tries):
            try:
                response = self._once(
                    method, urljoin(self._base, path), headers or {}, data, accept_missing=accept_missing, stream=stream
                )
            except (OSError, HTTPException, RegistryError) as error:
                if attempt == self._tries - 1 or not is_temporary(error):
                    raise self._failed(f"{method} {path}", error) from error
                self._back_off(attempt, error)
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
        """Sends a request; authenticates and repeats it if the response is a challenge."""
        response = _open(method, url, headers, data, self._authorization, stream=stream)
        if response.status == 401:
            self._authorization = self._authenticate(response.headers.get("www-authenticate", ""))
            response = _open(method, url, headers, data, self._authorization, stream=stream)
        if response.status in (401, 403):
            subject = f"user {self._credentials.user!r}" if self._credentials else "anonymous access"
            raise CredentialsRejected(f"{self._reference}: the registry rejects {subject} ({_reason(response)})")
        if response.status >= 400 and not (accept_missing and response.status == 404):
            raise _Status(response.status, _reason(response), _retry_after(response.headers.get("retry-after", "")))
        return response

    def _authenticate(self, challenge: str) -> str:
        """Returns the Authorization header for a `WWW-Authenticate` challenge.

        Raises:
            CredentialsRejected: the challenge cannot be answered, or the token service rejects the credentials.
        """
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if not self._credentials:
                raise CredentialsRejected(
                    f"{self._reference}: the registry requires authentication; no credentials are configured"
                )
            return self._credentials.basic
        if scheme.lower() != "bearer":
            raise CredentialsRejected(f"{self._reference}: unknown authentication scheme {challenge!r}")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = fields.get("realm", "")
        if not realm.startswith(("http://", "https://")):
            raise CredentialsRejected(f"{self._reference}: the challenge {challenge!r} has no URL of a token service")
        # A push needs both permissions. A token with fewer is rejected with 401 in the next response.
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
            raise CredentialsRejected(
                f"{self._reference}: the token service rejects the credentials ({_reason(response)})"
            )
        if response.status >= 400:
            raise _Status(response.status, _reason(response), None)
        return f"Bearer {_token(response.content, realm)}"

    def _back_off(self, attempt: int, error: Exception) -> None:
        seconds = backoff_seconds(attempt, error)
        log.warning("%s: %s; retrying in %.0f s", self._reference, error, seconds)
        self._sleep(seconds)

    def _failed(self, what: str, error: Exception) -> RegistryError:
        if isinstance(error, CredentialsRejected):
            return error
        return RegistryError(f"{self._reference}: {what}: {error}")


class _Status(RegistryError):
    """The registry responded with an error status."""

    def __init__(self, status: int, reason: str, retry_after: float | None) -> None:
        super().__init__(f"status {status} ({reason})")
        self.status = status
        self.retry_after = retry_after


def is_temporary(error: Exception) -> bool:
    """Returns whether a repetition of the request may succeed."""
    if isinstance(error, _Status):
        return error.status in RETRYABLE_STATUSES
    return not isinstance(error, RegistryError)


def backoff_seconds(attempt: int, error: Exception) -> float:
    """Returns the delay before the next attempt: exponential, or the Retry-After of the registry, at most 30 s."""
    retry_after = error.retry_after if isinstance(error, _Status) else None
    return min(MAX_BACKOFF_SECONDS, INITIAL_BACKOFF_SECONDS * 2**attempt if retry_after is None else retry_after)


def _retry_after(text: str) -> float | None:
    """Reads Retry-After: seconds, or a date."""
    if text.isdecimal() and text.isascii():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # missing, malformed, or a date without a zone
        return None


def _token(content: bytes, realm: str) -> str:
    """Reads the token from a response of a token service (token specification of the distribution project)."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise CredentialsRejected(f"{realm}: the response of the token service is not JSON") from error
    token = (document.get("token") or document.get("access_token")) if is_object(document) else None
    if not isinstance(token, str):
        raise CredentialsRejected(f"{realm}: the response of the token service contains no token")
    return token


def _reason(response: _Response) -> str:
    """Extracts the error message of the registry, or the status if there is none."""
    try:
        errors = json.loads(response.content)["errors"]
        return "; ".join(str(error.get("message") or error.get("code")) for error in errors) or str(response.status)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"status {response.status}"


def _open(
    method: str, url: str, headers: Mapping[str, str], data: Body, authorization: str | None, *, stream: bool = False
) -> _Response:
    content = file_pieces(data) if isinstance(data, Path) else data() if callable(data) else data
    return _open_request(_request(method, url, headers, content, authorization), stream=stream)


def file_pieces(file: Path) -> Iterator[bytes]:
    """Reads a file in large pieces; http.client would read 8 KiB at a time."""
    with file.open("rb") as opened:
        while piece := opened.read(CHUNK_BYTES):
            yield piece


def _request(
    method: str, url: str, headers: Mapping[str, str], data: bytes | Iterable[bytes] | None, authorization: str | None
) -> urllib.request.Request:
    # The data is an argument of the constructor because a later assignment removes the Content-Length header. It would
    # then be sent in chunks, which the specification does not allow for an upload.
    request = urllib.request.Request(url, data, dict(headers), method=method)  # noqa: S310 - http(s) by construction
    if authorization:
        # urllib does not send this header to the target of a redirect.
        request.add_unredirected_header("Authorization", authorization)
    return request


def _open_request(request: urllib.request.Request, *, stream: bool) -> _Response:
    try:
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            return _Response(error.code, _lower(error.headers), error.read(MAX_RESPONSE_BYTES))
    except urllib.error.URLError as error:
        raise ConnectionError(f"{urlsplit(request.full_url).netloc}: {error.reason}") from error
    if stream:
        return _Response(response.status, _lower(response.headers), stream=response)
    with response:
        content = response.read(MAX_RESPONSE_BYTES + 1)
        if len(content) > MAX_RESPONSE_BYTES:
            raise RegistryError(f"{request.full_url}: the response is larger than {MAX_RESPONSE_BYTES} bytes")
        return _Response(response.status, _lower(response.headers), content)


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}
