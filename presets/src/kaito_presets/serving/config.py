"""Reads the configuration that both inference servers share: `inference_config.yaml` and the adapter strengths.

Called once at start-up by the options of each server. The schema of the file is in `kaito_config`; the
workspace-controller validates the file with it before it provisions nodes.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kaito_config import ConfigError, InferenceConfigFile, parse_inference

from kaito_presets.errors import ConfigurationError
from kaito_presets.json_values import is_object

__all__ = ["STRENGTHS_VARIABLE", "InferenceConfigFile", "read_config_file", "read_strengths"]

STRENGTHS_VARIABLE: Final = "KAITO_ADAPTER_STRENGTHS"


def read_config_file(path: Path) -> InferenceConfigFile:
    """Reads and validates `inference_config.yaml`.

    Raises:
        ConfigurationError: the file cannot be read, is not YAML, or has unknown keys or wrong values.
    """
    try:
        return parse_inference(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from error


def read_strengths(environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Reads adapter strengths from `KAITO_ADAPTER_STRENGTHS`.

    The variable holds a JSON object that maps adapter names to numbers, or to strings that contain numbers.

    Raises:
        ConfigurationError: the variable is not such an object, or a strength is outside [0, 1].
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
            raise ConfigurationError(f"{STRENGTHS_VARIABLE}: the strength of {name!r} is {strength}, must be in [0, 1]")
    return strengths
