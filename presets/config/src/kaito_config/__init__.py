"""Schemas of `inference_config.yaml` and `training_config.yaml`, which users store in ConfigMaps, and of names in them.

The workspace-controller validates the files before it provisions nodes, and the programs in the model images read them
in the pod. Both use this package, so that a file that the controller accepts is also accepted in the pod. It imports
neither PyTorch nor other packages of Kaito.
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
