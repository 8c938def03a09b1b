"""How much memory the key/value cache takes and may take.

Used by `model` when it is loaded. Formula: upstream Kaito's generator (bytes per token = 2 * key/value heads
* head dimension * layers * bytes per number), here with the real size of a number.
"""

from typing import Any, Final

import torch

from kaito_presets.machine import read_machine

GPU_CACHE_SHARE: Final = 0.80
"""Of the memory free after loading; the rest is for activations and fragmentation (upstream plans with 0.84
of the total)."""
CPU_CACHE_SHARE: Final = 0.50
"""Of the memory available after loading: the container shares it with page cache and threads."""


def cache_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Bytes that one token of one row takes in the cache."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * heads * head_size * text.num_hidden_layers * dtype.itemsize)


def cache_budget_bytes(device: torch.device) -> int:
    """Bytes the cache may take, now that the weights are in place."""
    if device.type == "cuda":
        free = min(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        return int(free * torch.cuda.device_count() * GPU_CACHE_SHARE)
    machine = read_machine()
    return int((machine.available_bytes if machine else 2 * 2**30) * CPU_CACHE_SHARE)
