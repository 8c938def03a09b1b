"""Turns exceptions into answers: `{"detail": …}` for Kaito's own routes, OpenAI's error object for `/v1/…`.

Used as the middleware of every server in this package. Guarantees that a client always gets JSON with the
status that the exception tree assigns, that 429 and 503 carry Retry-After, and that an unforeseen exception is
logged and becomes a 500 without its insides.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kaito_presets.errors import BadRequest, Overloaded, RequestError, Unavailable
from kaito_presets.json_values import abbreviate

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BodyT = TypeVar("BodyT", bound=BaseModel)

MOST_DETAILS: Final = 10
"""Wrong values that an answer lists."""


class InvalidBody(Exception):
    """The body is not JSON or not of the right types; `details` has FastAPI's shape, which clients of
    `/chat` know."""

    def __init__(self, details: list[dict[str, Any]], count: int) -> None:
        super().__init__(str(details))
        self.details = details
        """The first problems, at most `MOST_DETAILS`."""
        self.count = count
        """Of all problems."""

    def sentence(self) -> str:
        """All of it in one line."""
        listed = [
            f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in self.details
        ]
        more = [f"and {self.count - len(listed)} more"] if self.count > len(listed) else []
        return "; ".join([*listed, *more])


async def read_body(request: web.Request, model: type[BodyT]) -> BodyT:
    """The JSON body as `model`.

    Raises:
        InvalidBody: not JSON, or wrong types.
    """
    raw = await request.read()
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        details = [
            {
                "type": detail["type"],
                "loc": ["body", *detail["loc"], *_refused_field(detail)],
                "msg": detail["msg"],
                "input": _abbreviated(detail["input"]),
            }
            for detail in error.errors(include_url=False)[:MOST_DETAILS]
        ]
        raise InvalidBody(details, error.error_count()) from error


def _refused_field(detail: ErrorDetails) -> list[str]:
    """The field that a check of the whole body refuses (`openai_schema.refused`)."""
    return [str(detail.get("ctx", {}).get("field"))] if detail["type"] == "refused" else []


def is_openai_route(request: web.Request) -> bool:
    """Whether errors take OpenAI's shape."""
    return request.path.startswith("/v1/")


def openai_error(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, object]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(request: web.Request, error: RequestError) -> web.Response:
    """The answer to a request that failed with `error`."""
    headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Overloaded | Unavailable) else {}
    if is_openai_route(request):
        document = openai_error(error.message, kind=error.kind, param=error.param, code=error.code)
    else:
        document = {"detail": error.message}
    return web.json_response(document, status=error.status, headers=headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The boundary of every route."""
    try:
        return await handler(request)
    except RequestError as error:
        if error.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
        return error_response(request, error)
    except InvalidBody as error:
        if is_openai_route(request):
            return error_response(request, BadRequest(error.sentence(), param=_parameter(error)))
        return web.json_response({"detail": error.details}, status=422)
    except web.HTTPRequestEntityTooLarge as error:
        failure = BadRequest(f"the request body is larger than {request.client_max_size} bytes")
        response = error_response(request, failure)
        response.set_status(error.status)
        return response
    except (web.RequestPayloadError, ContentEncodingError) as error:
        return error_response(request, BadRequest(f"the request body cannot be read: {' '.join(str(error).split())}"))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = error_response(request, BadRequest(f"{request.method} {request.path}: {error.reason}"))
        response.set_status(error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (ConnectionResetError, TimeoutError):
        raise  # the client is gone; aiohttp closes the connection
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_response(request, RequestError("internal error; the log of the server has the cause"))


def _parameter(error: InvalidBody) -> str | None:
    location: list[object] = error.details[0]["loc"][1:] if error.details else []
    return ".".join(str(part) for part in location) or None


def _abbreviated(value: object) -> object:
    """The offending input, without sending megabytes back; as text where JSON has no form for it (infinity)."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    try:
        text = json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        return abbreviate(value)
    return value if len(text) <= 200 else text[:200] + "…"
