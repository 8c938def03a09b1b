"""Downloads data files over HTTP.

Used by `run` with the URLs of a tuning input. Guarantees:

* A file has its final name only when it is complete; interrupted downloads are resumed, existing files are kept.
* Files of different URLs have different names.
* A redirect is followed only to an address that is allowed as a URL.
* Temporary failures are retried; an error contains the URL without its query, which may contain a token.
"""

import hashlib
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import unquote, urlsplit

from kaito_presets.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 4
INITIAL_BACKOFF_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 60.0
CHUNK_BYTES: Final = 2**20
UrlCheck = Callable[[str], str | None]
"""Returns why an address must not be read, or None."""
_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def download_all(
    urls: Sequence[str],
    directory: Path,
    *,
    check_url: UrlCheck = lambda url: None,  # noqa: ARG005 - by default every address is allowed
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Downloads every URL into `directory`; returns the files in the order of the URLs.

    Args:
        urls: http or https URLs.
        directory: target directory, which is created if it does not exist.
        check_url: called for each URL and for the target of each redirect.
        sleep: waits between two attempts.

    Raises:
        ConfigurationError: a URL is not http or https, or `check_url` rejects it.
        DataError: a download failed, or redirects to an address that `check_url` rejects.
    """
    for url in urls:
        if reason := check_url(url):
            raise ConfigurationError(f"data URL {reason}")
    directory.mkdir(parents=True, exist_ok=True)
    names = file_names(urls)
    opener = urllib.request.build_opener(_CheckedRedirects(check_url))
    return [_download(opener, url, directory / name, sleep) for url, name in zip(urls, names, strict=True)]


def file_names(urls: Sequence[str]) -> list[str]:
    """Returns a file name for each URL: the last segment of its path, with a digest in front if the name is not unique.

    Raises:
        ConfigurationError: a URL is not http or https.
    """
    plain: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"data URL {url!r}: only http and https URLs can be downloaded")
        name = unquote(parts.path).rstrip("/").rpartition("/")[2].lstrip(".")
        plain.append(name or "data")
    return [
        name if plain.count(name) == 1 else f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
        for url, name in zip(urls, plain, strict=True)
    ]


def _download(opener: urllib.request.OpenerDirector, url: str, target: Path, sleep: Callable[[float], None]) -> Path:
    if target.is_file() and target.stat().st_size:
        log.info("file exists, not downloaded again: %s", target.name)
        return target
    partial = target.with_name(f".{target.name}.partial")
    shown = url.partition("?")[0]
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            _fetch(opener, url, partial)
            break
        except (OSError, HTTPException) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code not in _RETRYABLE_STATUSES
            if final or attempt == MAX_ATTEMPTS:
                partial.unlink(missing_ok=True)
                raise DataError(f"cannot download {shown}: {error} (after {attempt} attempts)") from error
            log.warning("downloading %s failed: %s; retrying", shown, error)
            sleep(INITIAL_BACKOFF_SECONDS * 2 ** (attempt - 1))
    if not partial.stat().st_size:
        partial.unlink()
        raise DataError(f"{shown} is empty")
    partial.replace(target)
    log.info("downloaded %s: %d bytes", target.name, target.stat().st_size)
    return target


def _fetch(opener: urllib.request.OpenerDirector, url: str, partial: Path) -> None:
    """Downloads to `partial`; resumes after the bytes that it contains, if the server supports ranges."""
    offset = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "kaito-tuning"})  # noqa: S310 - scheme was checked
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response: Any = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the partial file is longer than the file, so it belongs to another version
            partial.unlink(missing_ok=True)
            raise ConnectionError("the server cannot resume the partial file") from error
        raise
    with response, partial.open("ab" if response.status == 206 else "wb") as file:
        while piece := response.read(CHUNK_BYTES):
            file.write(piece)
        # http.client does not report a truncated body that is read in chunks.
        if response.length:
            raise ConnectionError(f"the connection was closed {response.length} bytes before the end")


@final
class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Checks the target of each redirect: a public address may redirect to one inside the cluster."""

    def __init__(self, check_url: UrlCheck) -> None:
        self._check_url = check_url

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Builds the request for the new address.

        Raises:
            DataError: the address is not allowed.
        """
        if reason := self._check_url(newurl):
            raise DataError(f"{req.full_url.partition('?')[0]} redirects: {reason}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
