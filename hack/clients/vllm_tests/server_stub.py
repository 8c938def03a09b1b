"""Takes the place of `tests/utils.py` in vLLM's tests: the server under test runs already, at KAITO_TEST_URL."""

import importlib
import os
from typing import Any, Self

openai: Any = importlib.import_module("openai")  # part of the environment of vLLM

ROCM_EXTRA_ARGS: list[str] = []
ROCM_ENV_OVERRIDES: dict[str, str] = {}


class RemoteOpenAIServer:
    """The running server; the model and the arguments that a test requests have no effect."""

    DUMMY_API_KEY = "unused"

    def __init__(self, model: str, arguments: list[str], **_: object) -> None:
        self.model, self.arguments = model, arguments
        self.url_root = os.environ["KAITO_TEST_URL"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def url_for(self, *parts: str) -> str:
        """Returns the URL of a route."""
        return "/".join([self.url_root, *(part.strip("/") for part in parts if part)])

    def get_client(self, **options: Any) -> Any:
        """Returns a client without retries."""
        return openai.OpenAI(**self._options(options))

    def get_async_client(self, **options: Any) -> Any:
        """Returns an asynchronous client without retries."""
        return openai.AsyncOpenAI(**self._options(options))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        fixed = {"base_url": self.url_for("v1"), "api_key": self.DUMMY_API_KEY, "max_retries": 0}
        return {"timeout": 600, **options, **fixed}
