"""What the inference server can be told: flags, the configuration file, and the environment of its container.

Read once by `main`. Flags are those of upstream Kaito's transformers server (v0.3 to v0.12) plus ours;
precedence is default < flag < configuration file, because the operator writes the flags and the user writes
the file. Unknown keys are errors everywhere. The schema of flags and file is `kaito_config`'s: the controller checks
the file with it before it creates a node.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kaito_config import (
    ConfigError,
    InferenceConfigFile,
    InferenceOptions,
    parse_inference,
)
from kaito_config.inference import server_flags

from kaito_presets.command_line import raw_values, validated
from kaito_presets.errors import ConfigurationError
from kaito_presets.json_shapes import is_object

__all__ = ["InferenceConfigFile", "InferenceOptions", "read_config_file", "read_options", "read_strengths"]

STRENGTHS_VARIABLE: Final = "KAITO_ADAPTER_STRENGTHS"


def read_config_file(path: Path) -> InferenceConfigFile:
    """Read and check the file.

    Raises:
        ConfigurationError: unreadable, not YAML, unknown or wrong keys.
    """
    try:
        return parse_inference(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from error


def read_options(arguments: list[str]) -> InferenceOptions:
    """Resolve flags and configuration file.

    Raises:
        ConfigurationError: names the flag or key.
    """
    values = raw_values(InferenceOptions, arguments, program="kaito-inference")
    if "config" in values:
        values |= server_flags(read_config_file(Path(values["config"])).transformers)
    return validated(InferenceOptions, values)


def read_strengths(environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Adapter strengths from `KAITO_ADAPTER_STRENGTHS`, a JSON object of numbers or strings that hold
    numbers.

    Raises:
        ConfigurationError: not such an object, or a strength outside [0, 1].
    """
    text = environment.get(STRENGTHS_VARIABLE, "").strip()
    if not text:
        return {}
    try:
        document = json.loads(text)
        if not is_object(document):
            raise TypeError(f"expected an object, found {type(document).__name__}")
        strengths = {name: float(value) for name, value in document.items()}
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{STRENGTHS_VARIABLE}: {error}") from error
    for name, strength in strengths.items():
        if not 0.0 <= strength <= 1.0:
            raise ConfigurationError(f"{STRENGTHS_VARIABLE}: strength of {name!r} is {strength}, must lie in [0, 1]")
    return strengths
