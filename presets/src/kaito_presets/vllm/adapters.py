"""Adapters of the engine: their names in requests, and how they are loaded and unloaded while it serves.

`proxy` resolves the model of each request with `AdapterNames` and counts the requests of each adapter; `main` runs an
`EngineAdapters` for the list of adapters. The engine's own routes for adapters are not reachable through the proxy.
Guarantees that an adapter is unloaded when no request uses it, and that a changed one is loaded under another name of
the engine, so that the weights of a running request never change.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, final

from kaito_presets.errors import AdapterError, RequestError, UnknownModel
from kaito_presets.serving.adapters import Adapter
from kaito_presets.vllm.arguments import scaled_adapters

log = logging.getLogger(__name__)

LOAD_ROUTE: Final = "/v1/load_lora_adapter"
UNLOAD_ROUTE: Final = "/v1/unload_lora_adapter"
RUNTIME_VARIABLE: Final = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
"""Environment variable with which vLLM serves the two routes."""

SendToEngine = Callable[[str, dict[str, Any]], Awaitable[tuple[int, str]]]
"""Sends a JSON request to a route of the engine; returns the status and the message of an error."""


@final
class AdapterNames:
    """Names that requests may use, and the names that the engine has for them.

    As in the transformers runtime, the served name means the model with the adapter of the Workspace, and `NAME:base`
    the model without it. vLLM cannot combine adapters, so with several of them the served name is the base model.
    """

    def __init__(self, model: str, adapters: Sequence[str]) -> None:
        self._model = model
        self._versions = {name: name for name in adapters}
        self._retired: dict[str, str] = {}
        """Names of the engine that are not offered any more, each with the name of its adapter."""
        self._counts: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter(self._versions.keys())
        self._warn()

    @property
    def chat_model(self) -> str:
        """Name of the engine that the served name means."""
        only = [*self._versions.values()]
        return only[0] if len(only) == 1 else self._model

    @property
    def retired(self) -> dict[str, str]:
        """Names of the engine that are not offered any more and have no request, each with the adapter's name."""
        return {version: name for version, name in self._retired.items() if not self._counts[version]}

    @property
    def names_in_use(self) -> frozenset[str]:
        """Adapters that are not offered any more and are still loaded."""
        return frozenset(self._retired.values()) - self._versions.keys()

    def resolve(self, name: object) -> str | None:
        """Returns the name of the engine for the model of a request; None if it stays as it is.

        Raises:
            UnknownModel: the adapter was removed.
        """
        if not name or name == self._model:
            return self.chat_model if self._versions else None
        if not isinstance(name, str):
            return None
        if name == f"{self._model}:base" and self._versions:
            return self._model
        if name in self._versions:
            return self._versions[name]
        if name in self._retired or name in self._retired.values():
            known = ", ".join((self._model, *self._versions))
            raise UnknownModel(f"the model {name} does not exist any more; this server has: {known}", param="model")
        return None

    def public_name(self, engine_name: str) -> str | None:
        """Returns the name in `/v1/models` for a name of the engine; None if it is not offered any more."""
        if engine_name in self._retired:
            return None
        return next((name for name, version in self._versions.items() if version == engine_name), engine_name)

    def begin(self, engine_name: str) -> None:
        """Counts a request of an adapter."""
        self._counts[engine_name] += 1

    def end(self, engine_name: str) -> None:
        """Ends a request of an adapter."""
        self._counts[engine_name] -= 1

    def next_version(self, name: str) -> str:
        """Returns a name of the engine that was never used."""
        self._numbers[name] += 1
        number = self._numbers[name]
        # An adapter's name does not contain `@`.
        return name if number == 1 else f"{name}@{number}"

    def offer(self, name: str, version: str) -> None:
        """Offers a loaded version; a former one of the name is retired."""
        self.retire(name)
        self._versions[name] = version
        self._warn()

    def retire(self, name: str) -> None:
        """Stops offering an adapter."""
        version = self._versions.pop(name, None)
        if version is not None:
            self._retired[version] = name

    def forget(self, version: str) -> None:
        """Removes a version that the engine has unloaded."""
        self._retired.pop(version, None)
        self._counts.pop(version, None)

    def _warn(self) -> None:
        if len(self._versions) > 1:
            log.warning(
                "vLLM cannot combine adapters: /chat and model=%s use the base model; select an adapter with model=%s",
                self._model,
                "|".join(self._versions),
            )


@final
class EngineAdapters:
    """Implements `serving.adapter_sync.AdapterHost` with the engine's routes.

    Args:
        names: of the proxy.
        send: sends a request to the engine.
        max_rank: largest rank that the engine was started for.
        scratch: directory for configurations with a scaled `lora_alpha`.
    """

    def __init__(self, names: AdapterNames, send: SendToEngine, *, max_rank: int, scratch: Path) -> None:
        self._names = names
        self._send = send
        self._max_rank = max_rank
        self._scratch = scratch

    async def load(self, adapter: Adapter) -> None:
        """See `AdapterHost.load`."""
        if adapter.rank > self._max_rank:
            raise AdapterError(
                adapter.name,
                f"has rank {adapter.rank}, and the server was started for ranks up to {self._max_rank}: set "
                "max-lora-rank in the section vllm of inference_config.yaml",
            )
        version = self._names.next_version(adapter.name)
        paths = scaled_adapters([adapter], self._scratch / version)
        body = {"lora_name": version, "lora_path": str(paths[adapter.name])}
        status, message = await self._call(adapter.name, LOAD_ROUTE, body)
        if status != 200:
            raise AdapterError(adapter.name, f"cannot be loaded: {message} (HTTP {status})")
        self._names.offer(adapter.name, version)

    async def unload(self, name: str) -> None:
        """See `AdapterHost.unload`."""
        self._names.retire(name)

    async def release(self) -> frozenset[str]:
        """See `AdapterHost.release`."""
        for version, name in self._names.retired.items():
            status, message = await self._call(name, UNLOAD_ROUTE, {"lora_name": version})
            if status in (200, 404):
                self._names.forget(version)
            else:
                log.warning("adapter %s cannot be unloaded, trying again: %s", name, message)
        return self._names.names_in_use

    async def _call(self, name: str, route: str, body: dict[str, Any]) -> tuple[int, str]:
        try:
            return await self._send(route, body)
        except RequestError as error:
            raise AdapterError(name, str(error)) from error
