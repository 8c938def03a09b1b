"""Validates the `vllm:` section of `inference_config.yaml`: flags of vLLM's server by name.

vLLM has about two hundred flags, and each release adds some, so unknown flags are passed to it. Checked are the values
of flags that affect memory and parallelism, the types of common flags, flags on which the pod depends, and names that
are similar to a known one, because vLLM exits on an unknown flag.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from kaito_config.document import ConfigError, Problem, nearest
from kaito_config.vllm_flags import BOOLEANS, CHOICES, JSON, OTHERS, PARSERS, RESERVED, SHORT

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*(\.[A-Za-z0-9_.-]+)?")
_HUMAN: Final = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)")
_UNITS: Final = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
"""vLLM's `human_readable_int`: 1k is 1,000 and 1K is 1,024."""

MAX_DEFAULT_BATCHED_TOKENS: Final = 16384
"""Largest default of `max-num-batched-tokens` (vLLM's engine arguments: GPUs with 70 GiB or more)."""

MAX_TOKENS: Final = 2**31 - 1
MAX_RANKS: Final = 1024
TYPO_CUTOFF: Final = 0.85
"""Similarity (difflib's ratio) from which an unknown flag counts as a misspelled known one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Flags that affect the memory of a model; None if the file does not set the flag."""

    max_model_len: int | None = None
    """Most tokens of prompt and completion of one request; None also for `auto`."""

    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory that the engine uses: above 0, at most 1."""

    tensor_parallel_size: int | None = None
    """GPUs that share each layer."""

    pipeline_parallel_size: int | None = None
    """Groups of GPUs, each with a part of the layers."""

    data_parallel_size: int | None = None
    """Copies of the model on one node."""

    max_num_seqs: int | None = None
    """Most requests that are computed at the same time."""

    kv_cache_dtype: str | None = None
    """Number format of the key/value cache, for example `fp8`; None or `auto` is that of the model."""


def sizing_flags(section: Mapping[str, Any]) -> EngineSettings:
    """Returns the flags of the section that affect sizing.

    Raises:
        ConfigError: a value is wrong.
    """
    found = [Problem(message, f"vllm.{key}" if key else "vllm") for key, message in problems(section)]
    if found:
        raise ConfigError(found)
    flags = {key.replace("_", "-"): value for key, value in section.items() if value is not None}
    given = {name.replace("-", "_"): _CHECKS[name](flags[name]) for name in _SIZING if name in flags}
    return EngineSettings(**given)


def problems(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields key and message of every problem in the section."""
    seen: dict[str, str] = {}
    found = False
    for key, value in section.items():
        name, dot, _ = key.partition(".")
        flag = name.replace("_", "-")
        full_name = f"{flag}{dot}{key.partition('.')[2]}"
        if full_name in seen:
            yield key, f"is the same flag as {seen[full_name]}: remove one"
        seen[full_name] = key
        if message := _wrong(flag, key, value, nested=bool(dot)):
            found = True
            yield key, message
    if not found:
        yield from _too_many_sequences(section)
        yield from _unknown_parsers(section)


def _too_many_sequences(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Checks the limits of one step: vLLM exits if it has more sequences than tokens."""
    flags = {key.replace("_", "-"): (key, value) for key, value in section.items() if value is not None}
    if "max-num-seqs" not in flags:
        return
    key, sequences = flags["max-num-seqs"]
    tokens = int(flags.get("max-num-batched-tokens", ("", MAX_DEFAULT_BATCHED_TOKENS))[1])
    if int(sequences) > tokens:
        yield key, f"is {sequences}, more than the {tokens} tokens of one step: lower it, or set max-num-batched-tokens"


def _unknown_parsers(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Checks the names of parsers, unless a file may define further ones: vLLM exits on an unknown one."""
    flags = {key.replace("_", "-"): (key, value) for key, value in section.items() if value not in (None, "")}
    for flag, (plugin, known) in PARSERS.items():
        if flag not in flags or plugin in flags:
            continue
        key, value = flags[flag]
        if str(value) not in known:
            hint = nearest(str(value), known) or f": use one of {', '.join(sorted(known))}"
            yield key, f"vLLM has no parser {value!r:.40}{hint}"


def _wrong(flag: str, key: str, value: Any, *, nested: bool) -> str:
    if not _NAME.fullmatch(key):
        return "is not the name of a flag: write it without leading dashes, for example max-model-len"
    if flag.startswith("kaito-"):
        return "cannot be set: the controller sets the flags of the wrapper"
    if flag in SHORT:
        return f"is a short option: write {SHORT[flag]}"
    if flag in RESERVED:
        return f"cannot be set: {RESERVED[flag]}"
    if value is None or nested:
        return ""
    if flag not in _KNOWN and flag.removeprefix("no-") not in BOOLEANS:
        hint = nearest(flag, _KNOWN, cutoff=TYPO_CUTOFF)
        return f"vLLM has no such flag{hint}" if hint else ""
    try:
        check = _CHECKS.get(flag)
        if check is not None:
            check(value)
        elif flag in BOOLEANS and not isinstance(value, bool) and value != "":
            return f"must be true or false, found {value!r}"
        elif flag in CHOICES and str(value) not in CHOICES[flag]:
            return f"must be one of {', '.join(sorted(CHOICES[flag]))}, found {value!r}"
        elif flag in JSON:
            _object(value)
    except ValueError as error:
        return str(error)
    return ""


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        try:
            number = int(value) if not isinstance(value, bool | float) else None
        except (TypeError, ValueError):
            number = None
        if number is None or not least <= number <= most:
            raise ValueError(f"must be an integer from {least} to {most}, found {value!r:.40}")
        return number

    return check


def _number(least: float, most: float, *, above: bool = False) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not least <= number <= most or (above and number == least):
            limits = f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:g}"
            raise ValueError(f"must be a number {limits}, found {value!r:.40}")
        return number

    return check


def _context(value: Any) -> int | None:
    """Parses `max-model-len`: a number, `32k` or `32K`; returns None for `auto` or -1, which use what fits."""
    if str(value) in {"auto", "-1"}:
        return None
    written = _HUMAN.fullmatch(str(value)) if not isinstance(value, bool | float) else None
    tokens = float(written[1]) * _UNITS[written[2]] if written else 0.0
    if not 1 <= tokens <= MAX_TOKENS or not tokens.is_integer():
        raise ValueError(f"must be a number of tokens such as 8192 or 8K, or auto, found {value!r:.40}")
    return int(tokens)


def _object(value: Any) -> None:
    """Checks that a text that begins like an object in JSON is one: vLLM exits otherwise."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return
    try:
        json.loads(value)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error}): correct it, or write it as a mapping of YAML") from None


def _cache_dtype(value: Any) -> str:
    if str(value) not in CHOICES["kv-cache-dtype"]:
        raise ValueError(f"must be one of {', '.join(sorted(CHOICES['kv-cache-dtype']))}, found {value!r:.40}")
    return str(value)


_SIZING: Final = (
    "max-model-len",
    "gpu-memory-utilization",
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "max-num-seqs",
    "kv-cache-dtype",
)

_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "max-model-len": _context,
    "gpu-memory-utilization": _number(0, 1, above=True),
    "tensor-parallel-size": _integer(1, MAX_RANKS),
    "pipeline-parallel-size": _integer(1, MAX_RANKS),
    "data-parallel-size": _integer(1, MAX_RANKS),
    "max-num-seqs": _integer(1, 1_000_000),
    "max-num-batched-tokens": _integer(1, MAX_TOKENS),
    "kv-cache-dtype": _cache_dtype,
    "swap-space": _number(0, 1_000_000),
    "cpu-offload-gb": _number(0, 1_000_000),
    "kv-offloading-size": _number(0, 1_000_000),
    "max-loras": _integer(1, 10_000),
    "max-cpu-loras": _integer(1, 100_000),
    "max-logprobs": _integer(-1, MAX_TOKENS),
    "seed": _integer(-(2**63), 2**63 - 1),
    "api-server-count": _integer(1, 1024),
}

_KNOWN: Final = frozenset({*_CHECKS, *BOOLEANS, *CHOICES, *OTHERS, *RESERVED})
