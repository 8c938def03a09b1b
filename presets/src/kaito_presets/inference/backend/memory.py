"""Computes the size of the key/value cache per token, and the memory that it may use.

Used by `model` at the load. Bytes per token = 2 (key and value) * key/value heads * head dimension * layers * bytes per
number, as in upstream Kaito's preset generator, but with the actual bytes per number.
"""

from typing import Any, Final

import torch

from kaito_presets.machine import read_machine

GPU_CACHE_SHARE: Final = 0.80
"""Share of the GPU memory that is free after the load; activations and fragmentation need the rest. (Upstream plans
with 0.84 of the total memory.)"""
CPU_CACHE_SHARE: Final = 0.50
"""Share of the memory that is available after the load; page cache, threads and activations need the rest."""


def cache_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Computes the bytes of one token of one row in the cache."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * heads * head_size * text.num_hidden_layers * dtype.itemsize)


def cache_budget_bytes(device: torch.device) -> int:
    """Computes the bytes that the cache may use; must be called after the weights are loaded.

    Layers are spread over all GPUs, and so is their cache: the GPU with the least free memory limits all of them.
    """
    if device.type == "cuda":
        free = min(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        return int(free * torch.cuda.device_count() * GPU_CACHE_SHARE)
    machine = read_machine()
    return int((machine.available_bytes if machine else 2 * 2**30) * CPU_CACHE_SHARE)


def peak_gpu_bytes() -> int:
    """Returns the most memory that PyTorch has reserved on one GPU so far; 0 without a GPU.

    The memory of the CUDA context, about half a GiB, is not part of it.
    """
    if not torch.cuda.is_available():
        return 0
    return max(torch.cuda.max_memory_reserved(index) for index in range(torch.cuda.device_count()))
