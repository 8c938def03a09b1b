"""`workspace.tuning`: fine-tune a preset on data and put the adapter somewhere."""

from typing import Annotated

from pydantic import Field

from kaito.api.schema import ObjectName
from kaito.api.workspace.data import DataDestination, DataSource
from kaito.api.workspace.preset import PresetSpec
from kaito.runtime.meta import Model


class TuningSpec(Model):
    """What to tune, on which data, and where the result goes. Runs as a Job on one node."""

    preset: PresetSpec
    """The base model. Cannot be changed."""

    method: Annotated[str, Field(json_schema_extra={"maxLength": 16})]
    """`lora`, or `qlora` (LoRA on a base model quantised to 4 bits). Case does not matter. Cannot be changed."""

    config: ObjectName = ""
    """ConfigMap (same namespace) whose key `training_config.yaml` holds the training settings; absent takes the
    defaults of the method."""

    input: DataSource
    """The dataset."""

    output: DataDestination
    """Where the adapter goes."""
