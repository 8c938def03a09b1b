"""Calls admission webhooks over HTTP, for servers whose webhooks listen on real sockets."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import aiohttp

from kaito.apiserver.wire import Object, decode, encode, is_object

WebhookCaller: TypeAlias = Callable[[Object, Object], Awaitable[Object]]
"""Sends a review to where a `clientConfig` points and returns the answered review; raises `WebhookError`."""


class WebhookError(Exception):
    """A webhook could not be called, or did not answer with a review."""


async def call_webhook(config: Object, review: Object) -> Object:
    """Sends a review to the URL of a `clientConfig` and returns the answered review.

    Raises:
        WebhookError: the configuration names a Service, the webhook cannot be reached, or the response is not JSON.
    """
    url = str(config.get("url") or "")
    if not url:
        service: Object = config.get("service") or {}
        raise WebhookError(f"no route to service {service.get('namespace')}/{service.get('name')} in this server")
    tls = _trust(str(config.get("caBundle") or "")) if url.startswith("https:") else None
    connector = aiohttp.TCPConnector(ssl=tls) if tls is not None else aiohttp.TCPConnector()
    headers = {"content-type": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(url, data=encode(review), headers=headers) as answer,
        ):
            body = await answer.read()
            if answer.status >= 300:
                raise WebhookError(f"failed to call webhook: the server answered {answer.status}")
            decoded = decode(body)
    except (aiohttp.ClientError, OSError) as error:
        raise WebhookError(f'failed to call webhook: Post "{url}": {error}') from error
    except ValueError as error:
        raise WebhookError(f"could not get REST client: {error}") from error
    if not is_object(decoded):
        raise WebhookError("webhook response is not an object")
    found: Object = decoded
    return found


def _trust(bundle: str) -> ssl.SSLContext:
    if not bundle:
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
