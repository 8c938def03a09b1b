"""Loads LoRA adapters with PEFT, also while requests run: one adapter at its strength can be activated, or all of them
combined (the default).

Used by `model`. A request selects a version of an adapter or of the combination. A change creates new versions and does
not touch those in use, so that the weights of a running request never change; `release` deletes the versions that no
request uses. Guarantees that an error names the adapter that cannot be loaded and changes nothing, and that exactly the
selected version is active after `activate`. PEFT uses names as module names, which must not contain dots; versions
therefore have numbers as names, with a slash that the name of an adapter cannot contain.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import contextlib
import logging
import warnings
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Any, Final, final

from kaito_presets.errors import AdapterError
from kaito_presets.serving.adapters import WEIGHTS_FILE, Adapter

log = logging.getLogger(__name__)

BASE: Final = ""
"""Version of the model without adapters."""


@final
class LoadedAdapters:
    """The adapters of a model. PEFT replaces the linear layers of the model in place.

    Only the thread that computes may call the methods that change something.
    """

    def __init__(self, model: Any, adapters: Sequence[Adapter], combination_type: str, base_name: str) -> None:
        self._model = model
        self._combination_type = combination_type
        self._base_name = base_name
        self._peft: Any = None
        self._count = 0
        self._current: dict[str, tuple[Adapter, str]] = {}
        """Adapters by name, each with its version."""
        self._combined = BASE
        self._retired: dict[str, str] = {}
        """Versions that are not offered any more, each with the name of its adapter (empty for a combination)."""
        self._active: str | None = None
        self._enabled = True
        for adapter in adapters:
            self._insert(adapter)
        if adapters:
            self._replace_combination()
            self.activate(None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters that requests may select."""
        return tuple(self._current)

    @property
    def versions(self) -> dict[str, str]:
        """Version by name of the adapter."""
        return {name: version for name, (_, version) in self._current.items()}

    @property
    def combined(self) -> str:
        """Version of the combination of all adapters; `BASE` without adapters."""
        return self._combined

    @property
    def stored(self) -> frozenset[str]:
        """Versions in memory, of adapters and of combinations."""
        return frozenset(self._peft.peft_config if self._peft is not None else ())

    def load(self, adapter: Adapter) -> None:
        """Loads an adapter, or a new version of one with the same name.

        Raises:
            AdapterError: the adapter cannot be loaded or combined; nothing has changed then.
        """
        before = self._current.get(adapter.name)
        version = self._insert(adapter)
        try:
            self._replace_combination()
        except AdapterError:
            if before is None:
                del self._current[adapter.name]
            else:
                self._current[adapter.name] = before
            self._delete(version)
            raise
        if before is not None:
            self._retired[before[1]] = adapter.name

    def retire(self, name: str) -> None:
        """Stops offering an adapter; its version is deleted by `release`.

        Raises:
            AdapterError: the others cannot be combined; nothing has changed then.
        """
        before = dict(self._current)
        found = self._current.pop(name, None)
        if found is None:
            return
        try:
            self._replace_combination()
        except AdapterError:
            self._current = before
            raise
        self._retired[found[1]] = name

    def release(self, used: Collection[str | None]) -> frozenset[str]:
        """Deletes the retired versions that are not in `used`; returns the names of the adapters of the others.

        The name of a combination is empty.
        """
        for version in [version for version in self._retired if version not in used]:
            self._delete(version)
            del self._retired[version]
        return frozenset(self._retired.values())

    def fingerprint(self, adapter: str | None) -> Hashable:
        """Returns a value that differs if the active weights do. Versions have different names and never change."""
        if adapter is None:
            return self._combined
        return self._current[adapter][1] if adapter in self._current else adapter

    def activate(self, adapter: str | None) -> None:
        """Activates a version, or the present one of a name; `BASE` deactivates all, None activates the combination.

        A change walks all layers, so consecutive steps with the same version return immediately.
        """
        selected = self._combined if adapter is None else adapter
        if selected in self._current:
            selected = self._current[selected][1]
        if self._peft is None or selected == self._active:
            return
        tuner = self._peft.base_model
        if selected:
            if not self._enabled:
                tuner.enable_adapter_layers()
            tuner.set_adapter(selected, inference_mode=True)
        else:
            tuner.disable_adapter_layers()
        self._enabled = bool(selected)
        self._active = selected

    def _next_version(self) -> str:
        self._count += 1
        return f"version/{self._count}"

    def _insert(self, adapter: Adapter) -> str:
        """Loads the weights as a new version, which becomes the current one of its name."""
        from peft import PeftModel

        _warn_about_other_base(adapter, self._base_name)
        version = self._next_version()
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self._model, str(adapter.path), adapter_name=version)
            else:
                self._peft.load_adapter(str(adapter.path), adapter_name=version)
        except Exception as error:
            self._delete(version)
            raise AdapterError(adapter.name, f"cannot be loaded: {type(error).__name__}: {error}") from error
        self._scale(version, adapter.strength)
        self._peft.eval()
        self._current[adapter.name] = (adapter, version)
        self._active = None
        return version

    def _replace_combination(self) -> None:
        """Combines the current adapters as a new version; the former combination is retired.

        Raises:
            AdapterError: the adapters cannot be combined; the former combination stays.
        """
        version = BASE
        if self._current:
            version = self._next_version()
            self._combine(version)
        if self._combined:
            self._retired[self._combined] = BASE
        self._combined = version
        self._active = None

    def _combine(self, version: str) -> None:
        kind = self._combination_type
        adapters = [adapter for adapter, _ in self._current.values()]
        names = [name for _, name in self._current.values()]
        density = {"density": 0.5} if kind.startswith(("ties", "dare", "magnitude")) else {}
        # PEFT combines weights at their present scale; the strengths are applied by the combination.
        for name in names:
            self._scale(name, 1.0)
        try:
            self._peft.add_weighted_adapter(
                names, [adapter.strength for adapter in adapters], version, combination_type=kind, **density
            )
        except Exception as error:
            self._delete(version)
            together = ", ".join(adapter.name for adapter in adapters)
            raise AdapterError(together, f"cannot be combined with {kind}: {error}") from error
        finally:
            for adapter, name in self._current.values():
                self._scale(name, adapter.strength)
        self._peft.eval()
        self._active = None

    def _delete(self, version: str) -> None:
        """Deletes the weights of a version, if there are any; an interrupted load may have added some layers."""
        if self._peft is None:
            return
        self._active = None  # PEFT activates another one
        with contextlib.suppress(ValueError), warnings.catch_warnings():  # PEFT does not have it, or it is active
            warnings.simplefilter("ignore", UserWarning)
            self._peft.delete_adapter(version)

    def _scale(self, version: str, strength: float) -> None:
        """Scales a version by its strength for requests that select it, as the vLLM runtime does."""
        for module in self._layers():
            module.set_scale(version, strength)

    def _layers(self) -> list[Any]:
        from peft.tuners.lora import LoraLayer

        return [module for module in self._peft.modules() if isinstance(module, LoraLayer)]


def weight_bytes(adapter: Adapter) -> int:
    """Returns the size of the weights of an adapter on disk."""
    return (adapter.path / WEIGHTS_FILE).stat().st_size


def _warn_about_other_base(adapter: Adapter, base_name: str) -> None:
    if adapter.base_model and Path(adapter.base_model).name.lower() != Path(base_name).name.lower():
        log.warning("adapter %s was tuned for %s, but the model is %s", adapter.name, adapter.base_model, base_name)
