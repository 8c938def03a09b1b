"""Rules about annotations that change what the controller does.

A value that would not be understood, or that asks for what the controller does not do, is refused. An annotation of
Kaito's domains without a meaning is a warning with the nearest known name.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from kaito.api import labels
from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.node_count import MAX_NODE_COUNT, parse_node_count
from kaito.api.workspace.validation.policy import Policy, Rule

_BOOLEAN: Final = ("true", "false")

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    labels.RUNTIME: ("transformers", "vllm"),
    labels.NODE_IMAGE_FAMILY: ("azurelinux", "ubuntu"),
    labels.ENABLE_LOAD_BALANCER: _BOOLEAN,
    labels.BYPASS_RESOURCE_CHECKS: _BOOLEAN,
    labels.PERFORMANCE_MODE: ("balanced", "interactivity", "throughput"),
    labels.DISABLE_BENCHMARK: _BOOLEAN,
    labels.USE_LOCAL_WEIGHTS: _BOOLEAN,
    labels.MODEL_STREAMING: ("disabled",),
    labels.NODE_CLASS_NAME: ("default",),
}
"""Annotations with a closed set of values, in any case."""

_UNSUPPORTED: Final[dict[str, str]] = {
    labels.MODEL_MIRROR_STORAGE_CLASS: "this controller keeps no mirror of models: remove it",
    labels.STREAMING_SERVICE_ACCOUNT: "this controller does not stream weights: remove it",
    "inference.kaito.sh/static-model-mirror": "this controller keeps no mirror of models: remove it",
    "inference.kaito.sh/stream-datarefs-url": "this controller does not stream weights: remove it",
    "inference.kaito.sh/stream-identity-client-id": "this controller does not stream weights: remove it",
    "inference.kaito.sh/stream-source-type": "this controller does not stream weights: remove it",
}
"""Annotations of upstream Kaito v0.12 whose feature does not exist here."""

_OF_CONTROLLERS: Final = frozenset({labels.PROVISION_ATTEMPTS, "kaito.sh/upgrade-start-time"})
"""Written by controllers, not by users."""

KNOWN: Final = frozenset({*CHOICES, *_UNSUPPORTED, *_OF_CONTROLLERS, labels.NODE_COUNT_OVERRIDE})
"""Every annotation of a Workspace below `kaito.sh` and its subdomains that has a meaning."""

_DOMAIN: Final = "kaito.sh"


def field(key: str) -> str:
    """Path of an annotation in messages."""
    return f"metadata.annotations[{key}]"


def known_values(workspace: Workspace) -> Iterator[Violation]:
    """Each annotation with a closed set of values has one of them, in any case."""
    for key, choices in CHOICES.items():
        value = workspace.annotations.get(key)
        if value is not None and value.strip().lower() not in choices:
            yield Violation(field(key), f"{value[:80]!r} is not understood: use {' or '.join(choices)}, or remove it")


def supported(workspace: Workspace) -> Iterator[Violation]:
    """What an annotation asks for is something that the controller does."""
    for key, reason in _UNSUPPORTED.items():
        if key in workspace.annotations:
            yield Violation(field(key), reason)
    if labels.is_true(workspace.annotations.get(labels.USE_LOCAL_WEIGHTS)):
        reason = "weights on the disks of nodes are not supported: remove it, the weights are downloaded"
        yield Violation(field(labels.USE_LOCAL_WEIGHTS), reason)


def node_count_override(workspace: Workspace) -> Iterator[Violation]:
    """A number of nodes within the bound of `resource.count`; tuning runs on one node."""
    value = workspace.annotations.get(labels.NODE_COUNT_OVERRIDE)
    if value is None:
        return
    count = parse_node_count(value)
    if count is None:
        message = f"{value[:80]!r} is not a positive number of nodes: use a whole number from 1 to {MAX_NODE_COUNT}"
        yield Violation(field(labels.NODE_COUNT_OVERRIDE), message)
    elif workspace.tuning and count > 1:
        yield Violation(field(labels.NODE_COUNT_OVERRIDE), f"{count} nodes for tuning, which runs on one: remove it")


def only_known(workspace: Workspace) -> Iterator[Violation]:
    """A misspelt annotation is a warning: it has no effect."""
    for key in sorted(workspace.annotations):
        domain, slash, _ = key.partition("/")
        ours = slash and (domain == _DOMAIN or domain.endswith(f".{_DOMAIN}"))
        if not ours or key in KNOWN:
            continue
        near = get_close_matches(key, KNOWN, n=1, cutoff=0.7)
        hint = f", did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(CHOICES))}"
        yield Violation(field(key[:120]), f"is not an annotation of Workspaces and has no effect{hint}", "warning")


def image_family_has_nodes(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """With existing nodes the image family has no nodes to apply to."""
    if policy.node_api == "byo" and labels.NODE_IMAGE_FAMILY in workspace.annotations:
        message = "has no effect: this controller uses existing nodes (--node-api byo)"
        yield Violation(field(labels.NODE_IMAGE_FAMILY), message, "warning")


RULES: Final = (
    Rule.always("annotation-values", known_values),
    Rule.always("annotation-supported", supported),
    Rule.always("node-count-override", node_count_override),
    Rule.always("annotation-known", only_known),
    Rule("image-family-has-nodes", image_family_has_nodes),
)
