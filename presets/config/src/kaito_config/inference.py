"""`inference_config.yaml`: one file for both runtimes; each reads its own section."""

from typing import Any, Final

from pydantic import Field

from kaito_config.document import ConfigError, Document, Problem, is_mapping, load
from kaito_config.schema import Strict, number_format_problem, validate
from kaito_config.transformers import DEVICE_MAPS, RESERVED, InferenceOptions
from kaito_config.vllm import EngineSettings, problems as vllm_problems, settings

INFERENCE_KEY: Final = "inference_config.yaml"
"""Key of the ConfigMap that holds the file."""


class InferenceConfigFile(Strict):
    """`inference_config.yaml`: one file for both runtimes; each reads its own section."""

    transformers: dict[str, Any] = Field(default_factory=dict[str, Any], description="flags of this server")
    vllm: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="flags of vLLM; not read by the transformers runtime"
    )
    max_probe_steps: int = Field(default=6, ge=0, le=64, description="vLLM only: steps of the max-model-len search")
    kv_cache_cpu_memory_utilization: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="vLLM only: share of the pod's memory for offloaded key-value cache; default: none is offloaded",
    )

    def engine(self) -> EngineSettings:
        """What the `vllm:` section means for sizing.

        Raises:
            ConfigError: a value is out of range.
        """
        return settings(self.vllm)

    def server(self) -> InferenceOptions:
        """The `transformers:` section on top of the server's defaults.

        Raises:
            ConfigError: an unknown flag or a wrong value.
        """
        return _server(self.transformers, Document())


def parse_inference(text: str) -> InferenceConfigFile:
    """Read the text of an `inference_config.yaml`; an empty one sets nothing.

    Raises:
        ConfigError: not YAML, or wrong keys or values, each named with its line.
    """
    document = load(text)
    value: Any = {} if document.value is None else document.value
    if not is_mapping(value):
        raise ConfigError([Problem(f"must be a mapping with the sections vllm and transformers, found {value!r:.60}")])
    # A section or number that is left empty is the same as an absent one.
    given = {key: item for key, item in value.items() if item is not None}
    parsed = validate(InferenceConfigFile, given, document)
    problems = [
        document.problem(("vllm", key) if key else ("vllm",), message) for key, message in vllm_problems(parsed.vllm)
    ]
    if problems:
        raise ConfigError(problems)
    _server(parsed.transformers, document)
    return parsed


def server_flags(section: dict[str, Any]) -> dict[str, Any]:
    """The `transformers:` section by the server's own names: dashes are underscores, null is not set."""
    return {key.replace("-", "_"): value for key, value in section.items() if value is not None}


def _server(section: dict[str, Any], document: Document) -> InferenceOptions:
    spelled = {key.replace("-", "_"): key for key in section}
    if len(spelled) < len(section):
        raise ConfigError([document.problem(("transformers",), "sets a flag twice, with dashes and with underscores")])
    for name, key in spelled.items():
        document.positions.setdefault(("transformers", name), document.positions.get(("transformers", key), (0, 0)))
    problems = [
        document.problem(("transformers", spelled[name]), f"cannot be set: {why}")
        for name, why in RESERVED.items()
        if name in spelled
    ]
    if problems:
        raise ConfigError(problems)
    options = validate(InferenceOptions, server_flags(section), document, at=("transformers",))
    values = {"torch_dtype": number_format_problem(options.torch_dtype)}
    if options.device_map not in DEVICE_MAPS:
        values["device_map"] = f"is {options.device_map!r}: use {', '.join(sorted(DEVICE_MAPS))}"
    wrong = [document.problem(("transformers", spelled[name]), why) for name, why in values.items() if why]
    if wrong:
        raise ConfigError(wrong)
    return options
