"""Options of the transformers server: flags, merged with `inference_config.yaml`.

`main` reads them once. Precedence: default < flag < configuration file, because the operator sets the flags and the
user writes the file. Unknown flags and keys are errors. The flags are those of upstream Kaito's transformers server
(v0.3 to v0.12) and additions; their schema is in `kaito_config`, so that the workspace-controller validates the file
before it provisions nodes.
"""

from pathlib import Path

from kaito_config import InferenceOptions
from kaito_config.inference import server_flags

from kaito_presets.command_line import raw_values, validated
from kaito_presets.serving.config import read_config_file

__all__ = ["InferenceOptions", "read_options"]


def read_options(arguments: list[str]) -> InferenceOptions:
    """Resolves flags and configuration file.

    Raises:
        ConfigurationError: a flag or key is unknown or has a wrong value; the message names it.
    """
    values = raw_values(InferenceOptions, arguments, program="kaito-inference")
    if "config" in values:
        values |= server_flags(read_config_file(Path(values["config"])).transformers)
    return validated(InferenceOptions, values)
