"""Serves inbound sources: HTTP requests of aiohttp as calls of an `InboundEndpoint`."""

from aiohttp import web

from kaito.runtime.manager.http.routes import HttpHandler
from kaito.runtime.source import InboundEndpoint


def inbound_handler(endpoint: InboundEndpoint) -> HttpHandler:
    """Returns the handler of the endpoint's path."""

    async def handle(request: web.Request) -> web.Response:
        async def read(limit: int) -> bytes | None:
            if (request.content_length or 0) > limit:
                return None
            body = bytearray()
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    return None
            return bytes(body)

        reply = await endpoint.handle(request.method, headers=request.headers, query=request.query, read=read)
        response = web.Response(
            status=reply.status, text=f"{reply.text}\n" if reply.text else "", headers=reply.headers
        )
        if not request.content.at_eof():
            response.force_close()  # what was not read must not be taken for the next request
        return response

    return handle
