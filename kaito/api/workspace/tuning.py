"""`workspace.tuning`: fine-tunes a preset on a dataset and stores the adapter."""

from typing import Annotated, ClassVar

from pydantic import Field

from kaito.api.schema import ObjectName
from kaito.api.workspace.data import DataDestination, DataSource
from kaito.api.workspace.preset import PresetSpec
from kaito.runtime.crd import Rule, rules as field_rules
from kaito.runtime.meta import Model

MAX_TTL_SECONDS = 2**31 - 1

_FIXED = "cannot be changed: delete the Workspace and create a new one"


class TuningSpec(Model):
    """The model to tune, the dataset, and the destination of the adapter. Runs as a Job on one node."""

    rules: ClassVar = [
        Rule(
            "self.method.matches('^[qQ]?[lL][oO][rR][aA]$')",
            "is not a method: use lora or qlora",
            field_path=".method",
        ),
        # The two methods differ in their first letter; case does not matter.
        Rule("self.method.matches('^[qQ]') == oldSelf.method.matches('^[qQ]')", _FIXED, field_path=".method"),
        Rule(
            "(has(self.input.name) ? self.input.name : '') == (has(oldSelf.input.name) ? oldSelf.input.name : '')",
            _FIXED,
            field_path=".input.name",
        ),
    ]

    preset: PresetSpec
    """The base model. Cannot be changed."""

    method: Annotated[str, Field(json_schema_extra={"maxLength": 16})]
    """`lora`, or `qlora` (LoRA on a base model that is quantized to 4 bits).

    Case does not matter. Cannot be changed.
    """

    config: ObjectName = ""
    """ConfigMap (same namespace) whose key `training_config.yaml` contains the training settings. Default: the settings
    of the method. It is checked before a node is created."""

    input: Annotated[
        DataSource,
        Field(
            json_schema_extra=field_rules(
                Rule(
                    "[has(self.urls) && size(self.urls) > 0, has(self.volumeSource), "
                    "has(self.image) && self.image != ''].exists_one(given, given)",
                    "set exactly one of urls, volumeSource and image",
                ),
                Rule(
                    "!has(self.urls) || self.urls.all(u, u.matches('^[hH][tT][tT][pP][sS]?://[^/]+'))",
                    "must be absolute http or https URLs",
                    field_path=".urls",
                ),
            )
        ),
    ]
    """The dataset."""

    output: DataDestination
    """Destination of the adapter."""

    ttl_seconds_after_finished: (
        Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_TTL_SECONDS, "format": "int32"})] | None
    ) = None
    """Seconds after the end of the run, successful or failed, after which its nodes are given back. The adapter, the
    Workspace and its status stay; the logs of the pod are on its node and do not. Absent: the nodes stay until the
    Workspace is deleted. Can be set after the run has ended, and does not repeat it."""
