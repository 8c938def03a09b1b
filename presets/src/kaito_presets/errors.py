"""The exceptions of this package, one tree; every program and every route maps them to an exit code or a
status here.

PresetError                 exit 1
├── ConfigurationError      exit 2: flags, configuration file, environment
├── DataError               exit 3: the training data is missing, empty or of the wrong shape
├── ModelLoadError          exit 4: the model directory cannot be loaded
│   └── AdapterError        exit 4: an adapter cannot be loaded; names the adapter
├── InsufficientMemory      exit 5: the estimate says it cannot fit
├── PushError               exit 6: the registry refuses the adapter, before training or after it
└── RequestError            one HTTP request is refused or failed; carries its status
    ├── BadRequest          400
    │   └── PromptTooLong   400, code `context_length_exceeded`
    ├── UnknownModel        404
    ├── Overloaded          429 with Retry-After
    ├── Unavailable         503 with Retry-After: loading or draining
    └── GenerationFailed    500: the model raised (out of memory included); the server goes on
"""


class PresetError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class ConfigurationError(PresetError):
    """A flag, a configuration key or an environment variable is wrong; retrying does not help."""

    exit_code = 2


class DataError(PresetError):
    """The training data cannot be used; the message says what was found instead."""

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
    """The run needs more memory than there is; the message holds both numbers."""

    exit_code = 5


class PushError(PresetError):
    """The registry refuses the adapter; the message states whether it was trained and where it is."""

    exit_code = 6


class NotAnAdapter(PresetError):
    """The directory or the image does not hold what an adapter consists of."""

    exit_code = 3


class RegistryError(PresetError):
    """A registry cannot be used, after retries where they make sense."""

    exit_code = 5


class CredentialsRefused(RegistryError):
    """The registry does not accept the credentials (or wants some); retrying does not help."""

    exit_code = 4


class RequestError(PresetError):
    """One request cannot be served. `code` and `param` are those of OpenAI's error object."""

    status = 500
    kind = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class BadRequest(RequestError):
    """The request asks for something impossible; the client has to change it."""

    status = 400
    kind = "invalid_request_error"


class PromptTooLong(BadRequest):
    """Prompt and requested output do not fit the model's context."""

    code = "context_length_exceeded"


class UnknownModel(RequestError):
    """The request names a model or adapter that is not served here."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class Overloaded(RequestError):
    """The queue is full; worth another try after `retry_after_seconds`."""

    status = 429
    kind = "requests"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(RequestError):
    """The server is loading its model or shutting down; another replica, or this one after `retry_after_seconds`, may
    answer."""

    status = 503
    code = "unavailable"
    retry_after_seconds = 5


class GenerationFailed(RequestError):
    """The model raised while generating; the cause is chained."""

    code = "generation_failed"
