"""Number format and quantization of the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from kaito.api.json_values import json_object
from kaito.models.facts.documents import ConfigDocument
from kaito.models.facts.errors import UnsupportedArchitecture

_TYPES: Final[Mapping[str, str]] = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
}
"""Names of safetensors, and those of PyTorch."""

_BYTES: Final[Mapping[str, float]] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}

_PACKED: Final = frozenset({"I32", "U8", "I8", "I64", "U32"})
"""Formats of tensors that contain several weights per number, or scales."""

_BITS: Final[Mapping[str, float]] = {
    "awq": 4.25,
    "gptq": 4.25,
    "mxfp4": 4.25,
    "nvfp4": 4.5,
    "pack": 4.25,
    "fp4": 4.5,
    "fp8": 8,
    "float-quantized": 8,
    "int-quantized": 8,
    "mixed_precision": 4.8,
    "bitsandbytes": 4.25,
}
"""Bits per weight with scales, by a part of the method's name; for the number of parameters of a quantized model."""


@final
@dataclass(frozen=True, slots=True)
class Precision:
    """Format of the weights."""

    dtype: str
    """Number format of computations: `bfloat16`, `float16` or `float32`; empty if neither file names one."""
    method: str
    """Quantization method as the engine names it; empty for none."""
    scheme: str
    """What the method does: the format of compressed-tensors and modelopt, else the method."""
    bits: float
    """Bits per weight."""


def precision(document: ConfigDocument, tensors: Mapping[str, int], other: Mapping[str, Any]) -> Precision:
    """Returns the format of the weights.

    Args:
        document: config.json.
        tensors: numbers in the weights' files by format, as safetensors names it; empty if unknown.
        other: hf_quant_config.json, in which exports of older releases of modelopt describe the quantization.

    Raises:
        UnsupportedArchitecture: the weights have the format of another engine.
    """
    dtype = _dtype(document, tensors)
    given = _quantization(document, other)
    if not given:
        if _is_mlx(document):
            raise UnsupportedArchitecture(
                "has weights in the format of MLX, which only Apple's framework loads: choose the original model"
            )
        return Precision(dtype, "", "", 8 * _BYTES.get(dtype, 2))
    method = str(given.get("quant_method") or "").lower()
    if method == "modelopt" or (not method and given.get("quant_algo")):
        method, scheme = "modelopt", str(given.get("quant_algo") or "modelopt")
    elif method == "compressed-tensors":
        scheme = str(given.get("format") or method)
    else:
        scheme = method
    bits = next((value for part, value in _BITS.items() if part in scheme.lower()), None)
    given_bits = given.get("bits") or given.get("w_bit")
    if bits is None or (isinstance(given_bits, int) and 1 <= given_bits <= 16 and given_bits != 4):
        bits = float(given_bits) if isinstance(given_bits, int) else (bits or 8.0)
    return Precision(dtype, method, scheme, bits)


def parameter_count(tensors: Mapping[str, int], weights_bytes: int, found: Precision) -> int:
    """Returns the number of parameters; estimated from the size of the files if the formats are unknown."""
    if tensors:
        stored = sum(count for kind, count in tensors.items() if kind not in _PACKED)
        packed = sum(
            count * (32 if kind in {"I32", "U32"} else 64 if kind == "I64" else 8) / min(found.bits, 8)
            for kind, count in tensors.items()
            if kind in _PACKED
        )
        return round(stored + packed) if found.method else sum(tensors.values())
    return round(weights_bytes * 8 / found.bits)


def _dtype(document: ConfigDocument, tensors: Mapping[str, int]) -> str:
    """Returns the number format by the order of vLLM: the configuration, its language model, the weights."""
    for values in (document.root, document.text.values):
        for name in ("dtype", "torch_dtype"):
            value = values.get(name)
            if isinstance(value, str) and value:
                return value.removeprefix("torch.")
    floats = {kind: count for kind, count in tensors.items() if kind in _TYPES}
    return _TYPES[max(floats, key=lambda kind: floats[kind])] if floats else ""


def _quantization(document: ConfigDocument, other: Mapping[str, Any]) -> dict[str, Any]:
    for values in (document.root, document.text.values):
        for name in ("quantization_config", "compression_config"):
            found = json_object(values.get(name))
            if found:
                return found
    return json_object(other.get("quantization"))


def _is_mlx(document: ConfigDocument) -> bool:
    given = json_object(document.root.get("quantization"))
    return "bits" in given and "group_size" in given and "quant_method" not in given
