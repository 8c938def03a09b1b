"""Rules about annotations that change what the controller does. A value it would not understand is refused."""

from collections.abc import Iterator
from typing import Final

from kaito.api import labels
from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.validation.policy import Rule

_CHOICES: Final = {
    labels.RUNTIME: ("transformers", "vllm"),
    labels.NODE_IMAGE_FAMILY: ("azurelinux", "ubuntu"),
    labels.ENABLE_LOAD_BALANCER: ("true", "false"),
    labels.BYPASS_RESOURCE_CHECKS: ("true", "false"),
}


def known_values(workspace: Workspace) -> Iterator[Violation]:
    """Each annotation with a closed set of values has one of them, in any case."""
    for key, choices in _CHOICES.items():
        value = workspace.annotations.get(key)
        if value is not None and value.strip().lower() not in choices:
            yield Violation(f"metadata.annotations[{key}]", f"{value!r} is not understood: use {' or '.join(choices)}")


def node_count_override(workspace: Workspace) -> Iterator[Violation]:
    """A positive number."""
    value = workspace.annotations.get(labels.NODE_COUNT_OVERRIDE)
    if value is not None and not (value.isascii() and value.isdigit() and int(value) > 0):
        yield Violation(
            f"metadata.annotations[{labels.NODE_COUNT_OVERRIDE}]", f"{value!r} is not a positive number of nodes"
        )


RULES: Final = (Rule.always("annotation-values", known_values), Rule.always("node-count-override", node_count_override))
