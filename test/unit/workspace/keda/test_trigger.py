"""The metadata of a trigger: what is read, and the message for each mistake."""

import pytest

from kaito.runtime.meta import ObjectKey
from kaito.workspace.keda.trigger import InvalidTrigger, parse_trigger

KEDA_FIELDS = {"scalerAddress": "workspace-activator.kaito-system:9090", "enableTLS": "true"}


def test_the_object_and_the_targets_are_read_beside_the_fields_of_keda() -> None:
    metadata = KEDA_FIELDS | {"workspace": "phi", "requests": "16", "queueSeconds": "2.5", "cacheUsagePercent": "80"}
    found = parse_trigger("scaled", "team", metadata)
    assert (found.kind, found.key) == ("Workspace", ObjectKey("team", "phi"))
    assert found.targets == {"requests": 16, "queue-seconds": 2.5, "cache-usage-percent": 80}
    assert parse_trigger("scaled", "team", {"inferenceSet": "phi", "requests": "1"}).kind == "InferenceSet"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"requests": "16"}, "must name one object"),
        ({"workspace": "", "requests": "16"}, "must name one object"),
        ({"workspace": "a", "inferenceSet": "b", "requests": "16"}, "must name one object"),
        ({"workspace": "a"}, "has no target: set metadata.requests"),
        ({"workspaceName": "a", "workspace": "a", "Requests": "1"}, "metadata.Requests of the trigger is misspelled"),
        ({"inference-set": "a", "requests": "1"}, "misspelled: write inferenceSet"),
        ({"workspace": "a", "requests": "many"}, "metadata.requests is 'many'"),
        ({"workspace": "a", "requests": "0"}, "metadata.requests is '0'"),
        ({"workspace": "a", "requests": "nan"}, "metadata.requests is 'nan'"),
        ({"workspace": "a", "requests": "inf"}, "metadata.requests is 'inf'"),
        ({"workspace": "a", "cacheUsagePercent": "101"}, "at most 100"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(metadata: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidTrigger, match=message):
        parse_trigger("scaled", "team", metadata)


def test_the_namespace_is_required() -> None:
    with pytest.raises(InvalidTrigger, match="must name one object"):
        parse_trigger("scaled", "", {"workspace": "a", "requests": "1"})
