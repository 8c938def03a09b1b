"""Downloads data files over HTTP: several, with retries, resuming, and names that cannot collide.

Called by `run` with the URLs of a tuning input. Guarantees that a file appears under its final name only
when it is complete, that a file already there is not fetched again, that a redirect leads nowhere the URL itself
might not, and that a failure names the URL and what was tried.
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

TRIES: Final = 4
FIRST_PAUSE_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 60.0
PIECE_BYTES: Final = 2**20
Refuse = Callable[[str], str | None]
_RETRIED_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def download_all(
    urls: Sequence[str],
    directory: Path,
    *,
    refuse: Refuse = lambda url: None,  # noqa: ARG005 - by default every address is allowed
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch every URL into `directory`; returns the files in the order of the URLs.

    Args:
        urls: http or https.
        directory: where the files go; made if it does not exist.
        refuse: why an address may not be read, None if it may; asked for each URL and for each redirect.
        sleep: waits between two tries.

    Raises:
        ConfigurationError: not an http or https URL, or one that `refuse` refuses.
        DataError: a file cannot be had, or its address redirects to one that `refuse` refuses.
    """
    for url in urls:
        if reason := refuse(url):
            raise ConfigurationError(f"data URL {reason}")
    directory.mkdir(parents=True, exist_ok=True)
    names = file_names(urls)
    opener = urllib.request.build_opener(_Redirects(refuse))
    return [_download(opener, url, directory / name, sleep) for url, name in zip(urls, names, strict=True)]


def file_names(urls: Sequence[str]) -> list[str]:
    """A name for each URL: its last path segment without query; a digest is put before it where two would be
    the same."""
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
        log.info("already there: %s", target.name)
        return target
    partial = target.with_name(f".{target.name}.partial")
    shown = url.partition("?")[0]
    for attempt in range(1, TRIES + 1):
        try:
            _fetch(opener, url, partial)
            break
        except (OSError, HTTPException) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code not in _RETRIED_STATUS
            if final or attempt == TRIES:
                partial.unlink(missing_ok=True)
                raise DataError(f"cannot download {shown}: {error} (tried {attempt} times)") from error
            log.warning("downloading %s: %s; trying again", shown, error)
            sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    if not partial.stat().st_size:
        partial.unlink()
        raise DataError(f"{shown} is empty")
    partial.replace(target)
    log.info("downloaded %s: %d bytes", target.name, target.stat().st_size)
    return target


def _fetch(opener: urllib.request.OpenerDirector, url: str, partial: Path) -> None:
    """Fetch what is missing of the file; appends if the server can continue."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "kaito-tuning"})  # noqa: S310 - scheme was checked
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response: Any = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what is there is not a beginning of this file
            partial.unlink(missing_ok=True)
            raise ConnectionError("the server cannot continue the partial file") from error
        raise
    with response, partial.open("ab" if response.status == 206 else "wb") as file:
        while piece := response.read(PIECE_BYTES):
            file.write(piece)
        # http.client ends a short body silently when read in pieces.
        if response.length:
            raise ConnectionError(f"the connection ended {response.length} bytes early")


@final
class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect if its target may be read: the URL was judged, what it redirects to was not."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request to the new address.

        Raises:
            DataError: it may not be read.
        """
        if reason := self._refuse(newurl):
            raise DataError(f"{req.full_url.partition('?')[0]} redirects: {reason}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
