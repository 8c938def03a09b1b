"""`training_config.yaml` as the tuning job reads it; the schema is `kaito_config.training`'s.

Read by `main` before anything heavy is imported. The controller checks the same file with the same schema before it
creates a node.
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
    """The whole file, below the key `training_config`."""

    def bits(self, method: Method) -> int | None:
        """Width of the quantised weights, None for whole ones.

        Raises:
            ConfigurationError: the section contradicts the method.
        """
        try:
            return super().bits(method)
        except ConfigError as error:
            raise ConfigurationError(str(error)) from error


def read_training_config(path: Path | None) -> TrainingConfig:
    """Read and check the file; None gives all defaults.

    Raises:
        ConfigurationError: unreadable, not YAML, or a wrong key, named as `section.key`.
    """
    if path is None:
        return TrainingConfig()
    try:
        return parse_training(path.read_text(encoding="utf-8"), TrainingConfig)
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from error
