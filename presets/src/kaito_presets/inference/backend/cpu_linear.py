"""Linear layers for CPUs without bfloat16 instructions: weights in float16, activations in float32.

Used by `model` after the load. On such a CPU, PyTorch emulates bfloat16 and float16: a batch of 32 rows takes several
times as long as in float32. FBGEMM's kernels read weights of 16 bits and compute in float32, which also beats float32
weights at the small batches of a decode step, because half as many bytes are read. Guarantees that the model computes
with the values of the checkpoint: every bfloat16 weight of at least 2**-17 is exact in float16, and a smaller one
differs by at most 2**-25.
"""
# torch is partly untyped; its unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportPrivateUsage=false

import logging
from typing import Any, Final, final

import torch
from torch import nn

from kaito_presets.machine import read_machine

log = logging.getLogger(__name__)

MEMORY_SHARE: Final = 0.5
"""Most memory of the machine that the converted weights may use in addition to the checkpoint's."""
FLOAT16_MAX: Final = 65504.0


@final
class PackedLinear(nn.Linear):
    """A linear layer with a second copy of its weights, in the layout of FBGEMM.

    `weight` stays as it was, because PEFT reads its shape, type and device.
    """

    packed: Any

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - name of the base class
        """Computes the layer in float32."""
        result: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(input.float(), self.packed)
        return result


def is_faster(model: Any) -> bool:
    """Returns whether `convert` makes a model faster.

    This is the case for a model in bfloat16 or float16 on a CPU that emulates these types and has the instructions of
    the packed layers.
    """
    if model.dtype not in (torch.bfloat16, torch.float16) or getattr(model, "is_quantized", False):
        return False
    if model.device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    cpu: Any = torch.cpu
    return bool(cpu._is_avx2_supported() and not (cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()))


def convert(model: Any) -> bool:
    """Packs the linear layers of a model in bfloat16 or float16 and converts the rest to float32.

    Returns:
        False, and leaves the model unchanged, if the memory does not suffice or a weight exceeds the range of float16.
    """
    # Adapters may be loaded later, and PEFT computes them in the type of their weights.
    linear = [module for name, module in model.named_modules() if type(module) is nn.Linear and "lora_" not in name]
    packable = {id(module) for module in linear}
    kept = {id(module.weight) for module in linear} - {
        id(parameter)
        for module in model.modules()
        if id(module) not in packable
        for parameter in module.parameters(recurse=False)
    }
    others = [parameter for parameter in model.parameters() if id(parameter) not in kept]
    needed = sum(2 * module.weight.numel() for module in linear) + sum(2 * parameter.numel() for parameter in others)
    machine = read_machine()
    if machine is not None and needed > machine.available_bytes * MEMORY_SHARE:
        log.warning("not enough memory to convert the weights for this CPU; generation is slow")
        return False
    if any(float(module.weight.detach().abs().max()) > FLOAT16_MAX for module in linear):
        return False
    packed = [
        torch.ops.quantized.linear_prepack_fp16(module.weight.detach().float(), _float(module.bias))
        for module in linear
    ]
    for parameter in others:
        parameter.data = parameter.data.float()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.float())
    for module, weights in zip(linear, packed, strict=True):
        module.packed = weights
        module.__class__ = PackedLinear
    return True


def _float(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.detach().float()
