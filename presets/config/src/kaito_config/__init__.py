"""Schemas of the two configuration files that users put into ConfigMaps.

The workspace-controller checks `inference_config.yaml` and `training_config.yaml` before it creates nodes; the programs
in the model images read them in the pod. Both import this package, so a file that passes in the controller passes in
the pod. It imports neither PyTorch nor anything of Kaito.
"""

from kaito_config.document import ConfigError as ConfigError, Document as Document, Problem as Problem
from kaito_config.inference import (
    INFERENCE_KEY as INFERENCE_KEY,
    InferenceConfigFile as InferenceConfigFile,
    parse_inference as parse_inference,
)
from kaito_config.training import (
    TRAINING_KEY as TRAINING_KEY,
    Method as Method,
    TrainingConfig as TrainingConfig,
    parse_training as parse_training,
)
from kaito_config.transformers import InferenceOptions as InferenceOptions
from kaito_config.vllm import EngineSettings as EngineSettings
