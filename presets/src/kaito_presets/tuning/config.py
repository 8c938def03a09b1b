"""Reads `training_config.yaml`; the schema is in `kaito_config.training`.

`main` reads it before torch is imported. The controller validates the file with the same schema before it provisions
nodes.
"""

from pathlib import Path

from kaito_config import ConfigError, Method, parse_training
from kaito_config.training import (
    DatasetSection,
    ModelSection,
    TrainingConfig as _TrainingConfig,
)

from kaito_presets.errors import ConfigurationError

__all__ = ["DatasetSection", "Method", "ModelSection", "TrainingConfig", "read_training_config"]


class TrainingConfig(_TrainingConfig):
    """Content of the file below the key `training_config`."""

    def bits(self, method: Method) -> int | None:
        """Returns the bits of a quantized weight; None if weights are not quantized.

        Raises:
            ConfigurationError: QuantizationConfig contradicts the method.
        """
        try:
            return super().bits(method)
        except ConfigError as error:
            raise ConfigurationError(str(error)) from error


def read_training_config(path: Path | None) -> TrainingConfig:
    """Reads and validates the file; returns the defaults for None.

    Raises:
        ConfigurationError: the file cannot be read, is not YAML, or has a wrong key, which is named as `section.key`.
    """
    if path is None:
        return TrainingConfig()
    try:
        return parse_training(path.read_text(encoding="utf-8"), TrainingConfig)
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from error
