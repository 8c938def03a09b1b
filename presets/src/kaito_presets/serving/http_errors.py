"""Converts exceptions to JSON responses: OpenAI's error object for `/v1/…`, `/tokenize`, `/detokenize` and
`/invocations`, `{"detail": …}` for the other routes.

`errors_as_json` is the middleware of both servers. Guarantees that every error response is JSON with the status of the
exception (see `kaito_presets.errors`), that 429 and 503 have `Retry-After`, and that an unexpected exception is logged
and becomes a 500 whose body contains no details of the server.
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

MAX_LISTED_ERRORS: Final = 10
"""Validation errors that a response lists; the rest is counted."""


class InvalidBody(Exception):
    """The body is not JSON, or a field has the wrong type. `details` has the shape of FastAPI's errors."""

    def __init__(self, details: list[dict[str, Any]], count: int) -> None:
        super().__init__(str(details))
        self.details = details
        """The first validation errors, at most `MAX_LISTED_ERRORS`."""
        self.count = count
        """Number of all validation errors."""

    def message(self) -> str:
        """Formats the errors in one line."""
        listed = [
            f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in self.details
        ]
        more = [f"and {self.count - len(listed)} more"] if self.count > len(listed) else []
        return "; ".join([*listed, *more])


async def read_body(request: web.Request, model: type[BodyT]) -> BodyT:
    """Reads and validates the JSON body of a request.

    Raises:
        InvalidBody: the body is not JSON, or does not follow `model`.
    """
    raw = await request.read()
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        details = [
            {
                "type": detail["type"],
                "loc": ["body", *detail["loc"], *_rejected_field(detail)],
                "msg": detail["msg"],
                "input": _abbreviated(detail["input"]),
            }
            for detail in error.errors(include_url=False)[:MAX_LISTED_ERRORS]
        ]
        raise InvalidBody(details, error.error_count()) from error


def _rejected_field(detail: ErrorDetails) -> list[str]:
    """Returns the field of an error that a validator of the whole body raised (`openai_schema.field_error`)."""
    return [str(detail.get("ctx", {}).get("field"))] if detail["type"] == "refused" else []


def is_openai_route(request: web.Request) -> bool:
    """Returns whether the error responses of a route are OpenAI error objects."""
    return request.path.startswith("/v1/") or request.path in ("/tokenize", "/detokenize", "/invocations")


def openai_error(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, object]:
    """Builds OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(request: web.Request, error: RequestError) -> web.Response:
    """Builds the response to a request that failed with `error`."""
    headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Overloaded | Unavailable) else {}
    if is_openai_route(request):
        document = openai_error(error.message, kind=error.kind, param=error.param, code=error.code)
    else:
        document = {"detail": error.message}
    return web.json_response(document, status=error.status, headers=headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Converts exceptions of the handler to JSON responses."""
    try:
        return await handler(request)
    except RequestError as error:
        if error.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
        return error_response(request, error)
    except InvalidBody as error:
        if is_openai_route(request):
            return error_response(request, BadRequest(error.message(), param=_parameter(error)))
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
        raise  # the client has disconnected; aiohttp closes the connection
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_response(request, RequestError("internal error; see the log of the server"))


def _parameter(error: InvalidBody) -> str | None:
    location: list[object] = error.details[0]["loc"][1:] if error.details else []
    return ".".join(str(part) for part in location) or None


def _abbreviated(value: object) -> object:
    """Shortens the rejected input for the response; a value that JSON cannot represent (infinity) becomes text."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    try:
        text = json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        return abbreviate(value)
    return value if len(text) <= 200 else text[:200] + "…"
