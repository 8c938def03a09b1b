"""Exceptions of this package, with the exit code or HTTP status of each.

PresetError                 exit 1
├── ConfigurationError      exit 2: a flag, the configuration file or the environment
├── DataError               exit 3: the training data is missing, empty or of the wrong shape
├── NotAnAdapter            exit 3: a directory or an image does not contain an adapter
├── ModelLoadError          exit 4: the model directory cannot be loaded
│   └── AdapterError        exit 4: an adapter cannot be loaded
├── InsufficientMemory      exit 5: the estimated memory exceeds the free memory
├── GroupEnded              exit 7: another node of the same copy ended (`kaito_presets.vllm.group`)
├── PushError               exit 6: the registry rejects the adapter, before or after the training
├── RegistryError           exit 5: a registry request failed, after retries
│   └── CredentialsRejected exit 4: the registry rejects the credentials
└── RequestError            500: one HTTP request was rejected or failed
    ├── BadRequest          400
    │   └── PromptTooLong   400, code `context_length_exceeded`
    ├── UnknownModel        404
    ├── Overloaded          429 with Retry-After
    ├── Unavailable         503 with Retry-After: the server is loading or draining
    └── GenerationFailed    500: the model failed (out of memory included); the server continues

`kaito_oci.errors` contains the base class and those that the registry client raises too.
"""

from kaito_oci.errors import ConfigurationError, CredentialsRejected, NotAnAdapter, ProgramError, RegistryError

__all__ = [
    "AdapterError",
    "BadRequest",
    "ConfigurationError",
    "CredentialsRejected",
    "DataError",
    "GenerationFailed",
    "InsufficientMemory",
    "ModelLoadError",
    "NotAnAdapter",
    "Overloaded",
    "PresetError",
    "PromptTooLong",
    "PushError",
    "RegistryError",
    "RequestError",
    "Unavailable",
    "UnknownModel",
]

PresetError = ProgramError
"""Base class of the exceptions of this package."""


class DataError(PresetError):
    """The training data cannot be used. The message contains what was found instead."""

    exit_code = 3


class ModelLoadError(PresetError):
    """The model cannot be loaded from its source."""

    exit_code = 4


class AdapterError(ModelLoadError):
    """The adapter `name` cannot be used."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"adapter {name!r}: {reason}")
        self.name = name


class InsufficientMemory(PresetError):
    """The run needs more memory than is free. The message contains both numbers."""

    exit_code = 5


class PushError(PresetError):
    """The registry rejects the adapter. The message states whether the adapter was trained and where it is."""

    exit_code = 6


class RequestError(PresetError):
    """One request cannot be served. `kind`, `code` and `param` are fields of OpenAI's error object."""

    status = 500
    kind = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class BadRequest(RequestError):
    """The request is not valid; the client has to change it."""

    status = 400
    kind = "invalid_request_error"


class PromptTooLong(BadRequest):
    """Prompt and completion exceed the context length of the model."""

    code = "context_length_exceeded"


class UnknownModel(RequestError):
    """The request names a model or adapter that is not served here."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class Overloaded(RequestError):
    """The queue is full; the client may retry after `retry_after_seconds`."""

    status = 429
    kind = "requests"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(RequestError):
    """The server is loading its model or draining.

    Another replica, or this one after `retry_after_seconds`, may serve the request.
    """

    status = 503
    code = "unavailable"
    retry_after_seconds = 5


class GenerationFailed(RequestError):
    """The model failed while generating; the exception is chained."""

    code = "generation_failed"
