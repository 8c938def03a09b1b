"""Null means absent, as it does to the API server."""

import pytest
from pydantic import ValidationError

from kaito.runtime.kinds import CustomResourceDefinition, Pod

NEW_DEFINITION = b"""{"metadata": {"name": "gadgets.example.com"},
  "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "gadgets", "kind": "Gadget"}},
  "status": {"conditions": null, "storedVersions": null, "extra": null}}"""


def test_a_null_list_is_an_empty_one() -> None:
    definition = CustomResourceDefinition.from_json(NEW_DEFINITION)
    assert definition.status.conditions == []
    assert definition.status.stored_versions == []


def test_what_does_not_fit_without_nulls_either_is_rejected() -> None:
    with pytest.raises(ValidationError, match="containers"):
        Pod.from_json(b'{"metadata": {"name": "a", "labels": null}, "spec": {"containers": "none"}}')
