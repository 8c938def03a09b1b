"""Parses `inference_config.yaml`: one file with a section for each inference runtime."""

from typing import Any, Final

from pydantic import Field

from kaito_config.document import ConfigError, Document, Problem, is_mapping, load
from kaito_config.schema import StrictModel, number_format_problem, validate
from kaito_config.transformers import DEVICE_MAPS, RESERVED, InferenceOptions
from kaito_config.vllm import EngineSettings, problems as vllm_problems, sizing_flags

INFERENCE_KEY: Final = "inference_config.yaml"
"""Key of the ConfigMap that holds the file."""


class InferenceConfigFile(StrictModel):
    """Content of `inference_config.yaml`."""

    transformers: dict[str, Any] = Field(default_factory=dict[str, Any], description="flags of the transformers server")
    vllm: dict[str, Any] = Field(default_factory=dict[str, Any], description="flags of vLLM")
    max_probe_steps: int = Field(
        default=6, ge=0, le=64, description="vLLM only: most further starts in the search for max-model-len"
    )
    kv_cache_cpu_memory_utilization: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="vLLM only: share of the pod's memory for offloaded key/value cache; default: no offload",
    )

    def engine(self) -> EngineSettings:
        """Returns the flags in the `vllm:` section that affect sizing.

        Raises:
            ConfigError: a value is out of range.
        """
        return sizing_flags(self.vllm)

    def server(self) -> InferenceOptions:
        """Returns the options of the `transformers:` section, with the defaults of the server.

        Raises:
            ConfigError: a flag is unknown or has a wrong value.
        """
        return _server(self.transformers, Document())


def parse_inference(text: str) -> InferenceConfigFile:
    """Parses and validates the text of an `inference_config.yaml`, which may be empty.

    Raises:
        ConfigError: the text is not YAML, or has wrong keys or values, which are listed with their lines.
    """
    document = load(text)
    value: Any = {} if document.value is None else document.value
    if not is_mapping(value):
        raise ConfigError([Problem(f"must be a mapping with the sections vllm and transformers, found {value!r:.60}")])
    # An empty section or value is equivalent to an absent one.
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
    """Converts the names in the `transformers:` section to option names (underscores); drops null values."""
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
