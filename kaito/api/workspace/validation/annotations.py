"""Rules for the annotations of a Workspace.

An unknown value, and a feature that the controller does not support, are rejected. An unknown annotation of Kaito's
domains is a warning with the most similar name.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from kaito.api import labels
from kaito.api.karpenter.nodeclaim import KAITO_NODE_CLASS_GROUP, NodeClassRef
from kaito.api.object_names import is_subdomain
from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.node_count import MAX_NODE_COUNT, parse_node_count
from kaito.api.workspace.validation.policy import Policy, Rule
from kaito.runtime.tracing import is_traceparent

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
}
"""Annotations with a fixed set of values, in any case."""

_UNSUPPORTED: Final[dict[str, str]] = {
    labels.MODEL_MIRROR_STORAGE_CLASS: "this controller does not support model mirrors: remove it",
    labels.STREAMING_SERVICE_ACCOUNT: "this controller does not stream weights: remove it",
    "inference.kaito.sh/static-model-mirror": "this controller does not support model mirrors: remove it",
    "inference.kaito.sh/stream-datarefs-url": "this controller does not stream weights: remove it",
    "inference.kaito.sh/stream-identity-client-id": "this controller does not stream weights: remove it",
    "inference.kaito.sh/stream-source-type": "this controller does not stream weights: remove it",
}
"""Annotations of upstream Kaito v0.12 whose features are not supported."""

_OF_CONTROLLERS: Final = frozenset(
    {
        labels.ALTERNATIVES,
        labels.PROVISION_ATTEMPTS,
        labels.RESERVATION,
        labels.TRACEPARENT,
        labels.UPGRADE_TO,
        "kaito.sh/upgrade-start-time",
    }
)
"""Annotations that controllers write; a user may set the trace context, too."""

SETTABLE: Final = frozenset(
    {*CHOICES, labels.NODE_COUNT_OVERRIDE, labels.NODE_CLASS, labels.NODE_CLASS_NAME, labels.REPLAN}
)
"""Annotations that a user may set."""

KNOWN: Final = frozenset({*SETTABLE, *_UNSUPPORTED, *_OF_CONTROLLERS})
"""Every known annotation of a Workspace in `kaito.sh` and its subdomains."""

_MAX_UNKNOWN: Final = 20
"""Number of unknown annotations that are reported: each is compared with all known ones."""


def field(key: str) -> str:
    """Returns the path of an annotation in messages."""
    return f"metadata.annotations[{key}]"


def known_values(workspace: Workspace) -> Iterator[Violation]:
    """Checks that annotations with a fixed set of values have one of them, in any case."""
    for key, choices in CHOICES.items():
        value = workspace.annotations.get(key)
        if value is not None and value.strip().lower() not in choices:
            yield Violation(field(key), f"{value[:80]!r} is not valid: use {' or '.join(choices)}, or remove it")


def supported(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the annotations request only features that the controller supports."""
    for key, reason in _UNSUPPORTED.items():
        if key in workspace.annotations:
            yield Violation(field(key), reason)
    if labels.is_true(workspace.annotations.get(labels.USE_LOCAL_WEIGHTS)):
        reason = "weights on the disks of nodes are not supported: remove it, the weights are downloaded"
        yield Violation(field(labels.USE_LOCAL_WEIGHTS), reason)


def replan_possible(workspace: Workspace) -> Iterator[Violation]:
    """Reports the annotation that moves a Workspace to another instance type as a warning if it names only one."""
    if labels.REPLAN in workspace.annotations and not workspace.resource.instance_types:
        message = "has no effect without alternatives in resource.instanceTypes: remove it"
        yield Violation(field(labels.REPLAN), message, "warning")


def trace_context(workspace: Workspace) -> Iterator[Violation]:
    """Reports a trace context that is not valid as a warning: the Workspace has no trace then."""
    value = workspace.annotations.get(labels.TRACEPARENT, "")
    if value and not is_traceparent(value):
        message = f"{value[:80]!r} is not a W3C traceparent, and has no effect: remove it to get one"
        yield Violation(field(labels.TRACEPARENT), message, "warning")


def node_count_override(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the number of nodes is within the limit of `resource.count`, and 1 for tuning."""
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
    """Reports unknown annotations as warnings, because they have no effect."""
    unknown = sorted(key for key in workspace.annotations if labels.is_own(key) and key not in KNOWN)
    for key in unknown[:_MAX_UNKNOWN]:
        near = get_close_matches(key, KNOWN, n=1, cutoff=0.7)
        hint = f", did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(SETTABLE))}"
        yield Violation(field(key[:120]), f"is not an annotation of Workspaces and has no effect{hint}", "warning")


def not_as_labels(workspace: Workspace) -> Iterator[Violation]:
    """Reports labels with the key of an annotation as warnings, because they have no effect."""
    for key in sorted(SETTABLE.intersection(workspace.labels)):
        message = "is an annotation and has no effect as a label: move it to metadata.annotations"
        yield Violation(f"metadata.labels[{key}]", message, "warning")


def image_family_has_nodes(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Reports an image family with existing nodes as a warning, because it has no effect."""
    if policy.node_api == "byo" and labels.NODE_IMAGE_FAMILY in workspace.annotations:
        message = "has no effect: this controller uses existing nodes (--node-api byo)"
        yield Violation(field(labels.NODE_IMAGE_FAMILY), message, "warning")
    elif labels.NODE_IMAGE_FAMILY in workspace.annotations and has_provider_class(workspace, policy):
        message = "has no effect: the node class of a Karpenter provider determines the image of its nodes"
        yield Violation(field(labels.NODE_IMAGE_FAMILY), message, "warning")


def has_provider_class(workspace: Workspace, policy: Policy) -> bool:
    """Whether the Workspace's node class is one of a Karpenter provider, and not that of gpu-provisioner."""
    text = workspace.annotations.get(labels.NODE_CLASS)
    if policy.node_api not in {"nodeclaim", "karpenter"} or text is None:
        return policy.named_node_classes
    return not text.strip().startswith(f"{KAITO_NODE_CLASS_GROUP}/")


def node_class(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks the node class of the Workspace's claims, and that its claims have one."""
    text = workspace.annotations.get(labels.NODE_CLASS)
    if text is None:
        return
    where = field(labels.NODE_CLASS)
    try:
        NodeClassRef.parse(text)
    except ValueError as error:
        yield Violation(where, str(error))
    if labels.NODE_CLASS_NAME in workspace.annotations:
        yield Violation(where, f"cannot be combined with {labels.NODE_CLASS_NAME}: remove one of them")
    if policy.node_api == "machine":
        message = "Machines have no node class: remove it, or run this controller with --node-api nodeclaim"
        yield Violation(where, message)
    elif policy.node_api == "byo":
        message = "has no effect: this controller uses existing nodes (--node-api byo)"
        yield Violation(where, message, "warning")


def node_class_name(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks the name of a node class of the configured kind."""
    name = workspace.annotations.get(labels.NODE_CLASS_NAME)
    if name is None or name.strip().lower() == "default":
        return
    where = field(labels.NODE_CLASS_NAME)
    if not policy.named_node_classes:
        yield Violation(where, f"{name[:80]!r} is not valid: use default, or remove it")
    elif not is_subdomain(name.strip()):
        message = f"{name[:80]!r} is not the name of an object: use lower-case letters, digits, dashes and dots"
        yield Violation(where, message)


RULES: Final = (
    Rule.always("annotation-values", known_values),
    Rule.always("annotation-supported", supported),
    Rule.always("node-count-override", node_count_override),
    Rule.always("annotation-known", only_known),
    Rule.always("annotation-not-label", not_as_labels),
    Rule.always("replan-possible", replan_possible),
    Rule.always("trace-context", trace_context),
    Rule("image-family-has-nodes", image_family_has_nodes),
    Rule("node-class", node_class),
    Rule("node-class-name", node_class_name),
)
