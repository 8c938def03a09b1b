"""GET requests to the hub: bounded in size, with redirects, and with the token only for the hub itself."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

import aiohttp
from yarl import URL

from kaito.api import conditions
from kaito.workspace.hub.errors import ModelUnavailable

CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 20.0
"""Time limit of a connection, and of a pause while a response is read."""

MAX_REDIRECTS: Final = 5
MAX_RETRY_AFTER_SECONDS: Final = 3600.0

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_FOUND: Final = frozenset({"RepoNotFound", "RevisionNotFound", "EntryNotFound"})
"""Values of the header `X-Error-Code`. The hub answers 401 for a repository that does not exist."""


@final
class HubTransfer:
    """Requests to one hub with one token.

    Args:
        session: shared by the requests of one read; its proxies are those of the environment.
        endpoint: address of the hub.
        token: sent to the endpoint, never to a host that it redirects to; empty for none.
        model: named in messages.
    """

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, token: str, model: str) -> None:
        self._session, self._endpoint, self._token, self._model = session, URL(endpoint), token, model

    @asynccontextmanager
    async def get(
        self, path: str, *, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Sends a request and follows its redirects; yields a response with status 200 or 206.

        Raises:
            ModelUnavailable: the hub cannot be reached or refuses.
        """
        url = URL(f"{str(self._endpoint).rstrip('/')}{path}", encoded=True)
        url = url.with_query(query) if query else url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with self._session.get(
                    url, headers={**self._authorization(url), **(headers or {})}, allow_redirects=False
                ) as response:
                    if response.status not in _REDIRECTS:
                        self._check(response)
                        yield response
                        return
                    url = self._target(url, response)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        raise self._unreachable(f"more than {MAX_REDIRECTS} redirects")

    async def read(self, path: str, *, limit: int, query: Mapping[str, str] | None = None) -> bytes:
        """Returns a body of at most `limit` bytes.

        Raises:
            ModelUnavailable: the hub cannot be reached or refuses, or the body is larger.
        """
        async with self.get(path, query=query) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                body += chunk
                if len(body) > limit:
                    raise ModelUnavailable(
                        conditions.MODEL_INVALID, f"{self._model} has a file {path} of more than {limit} bytes"
                    )
            return bytes(body)

    async def read_range(self, path: str, start: int, length: int) -> bytes:
        """Returns a part of a file; also from a server that ignores the header `Range`.

        Raises:
            ModelUnavailable: the hub cannot be reached or refuses, or the file is shorter.
        """
        async with self.get(path, headers={"Range": f"bytes={start}-{start + length - 1}"}) as response:
            skipped = start if response.status == 200 else 0
            body = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                body += chunk
                if len(body) >= skipped + length:
                    break
        if len(body) < skipped + length:
            raise self._unreachable("the response ended early")
        return bytes(body[skipped : skipped + length])

    def _authorization(self, url: URL) -> dict[str, str]:
        return (
            {"Authorization": f"Bearer {self._token}"}
            if self._token and url.origin() == self._endpoint.origin()
            else {}
        )

    def _target(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        target = url.join(URL(response.headers.get("Location", ""), encoded=True))
        if target.scheme not in {"http", "https"} or (url.scheme == "https" and target.scheme == "http"):
            raise self._unreachable(f"a redirect to {target.scheme or 'no'} address is not followed")
        return target

    def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raises the error of a status other than 200 and 206."""
        status, code = response.status, response.headers.get("X-Error-Code", "")
        if status in {200, 206}:
            return
        if status == 404 or code in _NOT_FOUND:
            access = "the token has no access to it" if self._token else "it needs a token"
            raise ModelUnavailable(
                conditions.MODEL_NOT_FOUND,
                f"{self._model} does not exist at {self._endpoint}, or {access}: check the name and the revision, and "
                "presetOptions.modelAccessSecret",
                is_transient=True,
            )
        if status in {401, 403}:
            raise self._gated()
        if status in _TRANSIENT:
            raise ModelUnavailable(
                conditions.MODEL_UNREACHABLE,
                f"{self._endpoint} answers with status {status}",
                retry_after=_retry_after(response.headers.get("Retry-After", "")),
                is_transient=True,
            )
        raise self._unreachable(f"status {status}")

    def _gated(self) -> ModelUnavailable:
        remedy = (
            "the token in presetOptions.modelAccessSecret has no access to it: accept its license with that account"
            if self._token
            else "name a Secret with the key HF_TOKEN in presetOptions.modelAccessSecret"
        )
        return ModelUnavailable(
            conditions.MODEL_GATED, f"{self._model} at {self._endpoint} requires access: {remedy}", is_transient=True
        )

    def _unreachable(self, cause: str) -> ModelUnavailable:
        return ModelUnavailable(
            conditions.MODEL_UNREACHABLE,
            f"{self._model} cannot be read from {self._endpoint} ({cause}): check the network, the proxy and "
            "--hub-endpoint, or give its facts in presetOptions.modelFacts",
            is_transient=True,
        )


def _retry_after(text: str) -> float | None:
    """Returns the seconds of a header `Retry-After`; None for a date or another text."""
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if text.isascii() and text.isdecimal() and len(text) < 10 else None
