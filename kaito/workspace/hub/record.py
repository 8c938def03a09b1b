"""Facts in a ConfigMap: of the controller, one for each Workspace, or of the user.

The controller's ConfigMap belongs to the Workspace and not to the namespace: it pins the commit that this Workspace
serves, is deleted with it, and was read with the token of this Workspace.
"""

import json
from typing import Final, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kaito.api import Workspace, labels
from kaito.models.facts.derive import ModelFacts
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta

FACTS_KEY: Final = "facts.json"
MAX_FACTS_BYTES: Final = 64 * 1024


@final
class FactsRecord(BaseModel):
    """Facts with their origin: the content of `facts.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str = Field(default="", max_length=768)
    """What they were read for (`ModelQuery.name`); empty if a user gives them."""
    source: str = Field(default="", max_length=512)
    """Where they were read."""
    facts: ModelFacts


class InvalidFacts(ValueError):
    """A ConfigMap does not contain facts; the message is a clause that follows its name."""


def record_name(workspace: Workspace) -> str:
    """Returns the name of the Workspace's ConfigMap with facts."""
    return f"{workspace.name}-model-facts"


def facts_config_map(workspace: Workspace, record: FactsRecord) -> ConfigMap:
    """Returns the ConfigMap that keeps the facts of a Workspace's model."""
    return ConfigMap(
        metadata=ObjectMeta(
            name=record_name(workspace), namespace=workspace.namespace, labels={labels.WORKSPACE: workspace.name}
        ),
        data={FACTS_KEY: to_json(record)},
    )


def to_json(record: FactsRecord) -> str:
    """Returns the content of `facts.json`."""
    return json.dumps(record.model_dump(mode="json", exclude_defaults=True), indent=2) + "\n"


def read_record(config: ConfigMap) -> FactsRecord:
    """Returns the facts of a ConfigMap.

    Raises:
        InvalidFacts: it does not contain them; the message names what is wrong.
    """
    text = config.data.get(FACTS_KEY)
    if text is None:
        raise InvalidFacts(f"has no key {FACTS_KEY!r}: write it with kaito model inspect --facts")
    if len(text) > MAX_FACTS_BYTES:
        raise InvalidFacts(f"has more than {MAX_FACTS_BYTES} bytes in {FACTS_KEY}")
    try:
        return FactsRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or FACTS_KEY
        raise InvalidFacts(f"has no valid {FACTS_KEY}: {where}: {first['msg']}") from error
