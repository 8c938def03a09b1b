"""Loads LoRA adapters with PEFT: one adapter at its strength can be activated, or all of them combined (the default).

Used by `model`. PEFT uses adapter names as module names, which must not contain dots; adapters therefore have numbered
names inside. Guarantees that an error names the adapter that cannot be loaded, and that exactly the selected adapter is
active after `activate`.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

from kaito_presets.errors import AdapterError
from kaito_presets.serving.adapters import Adapter

log = logging.getLogger(__name__)

COMBINED: Final = "combined"


@final
class LoadedAdapters:
    """The adapters of a model. PEFT replaces the linear layers of the model in place."""

    def __init__(self, model: Any, adapters: Sequence[Adapter], combination_type: str, base_name: str) -> None:
        from peft import PeftModel

        self._internal = {adapter.name: f"adapter_{index}" for index, adapter in enumerate(adapters)}
        self.names = tuple(self._internal)
        peft: Any = None
        for adapter in adapters:
            _warn_about_other_base(adapter, base_name)
            internal = self._internal[adapter.name]
            try:
                if peft is None:
                    peft = PeftModel.from_pretrained(model, str(adapter.path), adapter_name=internal)
                else:
                    peft.load_adapter(str(adapter.path), adapter_name=internal)
            except Exception as error:
                raise AdapterError(adapter.name, f"cannot be loaded: {type(error).__name__}: {error}") from error
        self._peft = peft
        self._combine(adapters, combination_type)
        self._scale(adapters)
        self._active: str | None = None
        self._enabled = True
        self.activate(None)

    def _combine(self, adapters: Sequence[Adapter], combination_type: str) -> None:
        names = [self._internal[adapter.name] for adapter in adapters]
        weights = [adapter.strength for adapter in adapters]
        density = {"density": 0.5} if combination_type.startswith(("ties", "dare", "magnitude")) else {}
        try:
            self._peft.add_weighted_adapter(names, weights, COMBINED, combination_type=combination_type, **density)
        except ValueError as error:
            together = ", ".join(adapter.name for adapter in adapters)
            raise AdapterError(together, f"cannot be combined with {combination_type}: {error}") from error
        self._peft.eval()

    def _scale(self, adapters: Sequence[Adapter]) -> None:
        """Scales each adapter by its strength for requests that select it, as the vLLM runtime does.

        Must run after `_combine`: the combination contains copies of the weights at their original scale, to which its
        own weights apply the strengths.
        """
        from peft.tuners.lora import LoraLayer

        strengths = {self._internal[adapter.name]: adapter.strength for adapter in adapters}
        for module in self._peft.modules():
            if isinstance(module, LoraLayer):
                for name, strength in strengths.items():
                    module.set_scale(name, strength)

    def activate(self, adapter: str | None) -> None:
        """Activates an adapter by name; "" deactivates all, None activates the combination.

        A change walks all layers, so consecutive steps with the same adapter return immediately.
        """
        selected = "" if adapter == "" else COMBINED if adapter is None else self._internal[adapter]
        if selected == self._active:
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


def _warn_about_other_base(adapter: Adapter, base_name: str) -> None:
    if adapter.base_model and Path(adapter.base_model).name.lower() != Path(base_name).name.lower():
        log.warning("adapter %s was tuned for %s, but the model is %s", adapter.name, adapter.base_model, base_name)
