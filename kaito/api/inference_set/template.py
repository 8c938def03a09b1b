"""Reads `spec.template.metadata` of an InferenceSet, which the API server stores unchanged."""

from collections.abc import Mapping
from typing import Any, cast

from kaito.api.inference_set.kind import InferenceSet


def template_labels(inference_set: InferenceSet) -> dict[str, str]:
    """Returns the labels of the template; values that are not texts are left out, which validation reports."""
    return _texts(inference_set.spec.template.metadata.get("labels"))


def template_annotations(inference_set: InferenceSet) -> dict[str, str]:
    """Returns the annotations of the template; values that are not texts are left out, which validation reports."""
    return _texts(inference_set.spec.template.metadata.get("annotations"))


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {str(key): each for key, each in cast("Mapping[object, object]", value).items() if isinstance(each, str)}
