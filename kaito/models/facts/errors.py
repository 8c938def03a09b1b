"""Errors of reading a model's facts. Each contains the cause and the remedy.

FactsError
├── NotAModel                  config.json is missing or not valid, or the repository contains something else
├── NoSafetensors              the weights have a format that the engine does not load
├── UnsupportedArchitecture    the engine does not serve the architecture or the quantization
└── RemoteCodeRequired         the model needs code of its repository
"""

from typing import ClassVar, final

from kaito.api import conditions


class FactsError(Exception):
    """Base class of the errors; the message is a clause that follows the name of the model."""

    reason: ClassVar[str] = conditions.MODEL_INVALID
    """Reason of the condition."""


@final
class NotAModel(FactsError):
    """The files are not a model in the format of transformers, or config.json is not valid."""


@final
class NoSafetensors(FactsError):
    """The weights have a format that the engine does not load."""

    reason = conditions.MODEL_WITHOUT_SAFETENSORS


@final
class UnsupportedArchitecture(FactsError):
    """The engine does not serve the architecture or the quantization."""

    reason = conditions.MODEL_UNSUPPORTED


@final
class RemoteCodeRequired(FactsError):
    """The model needs code of its repository, which runs only if the user allows it."""

    reason = conditions.MODEL_NEEDS_REMOTE_CODE
