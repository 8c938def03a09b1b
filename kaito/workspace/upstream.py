"""Feature gates and flags of upstream Kaito v0.12, one by one: what this controller does with each, and why.

Upstream's chart must be able to start this controller without an edit. So what is not implemented is accepted with a
warning in the log where the conditions of each Workspace stay correct; it is refused where the controller would start
and silently do something other than asked for. `flags.parse` reads this table, docs/reference/upstream-flags.md is
written from it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final


class Answer(StrEnum):
    """What happens to a gate or a flag."""

    HONORED = "honored"
    """It does what it does upstream."""

    ACCEPTED = "accepted, no effect"
    """The controller starts and logs a warning with the reason."""

    REFUSED = "refused"
    """The controller does not start."""


@final
@dataclass(frozen=True, slots=True)
class Gate:
    """One feature gate."""

    name: str
    answer: Answer
    """For the gate switched on; off is what this controller does anyway."""
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Flag:
    """One flag that only upstream has, or one that has another name here."""

    name: str
    answer: Answer
    reason: str
    default: str = ""
    """Upstream's default: with this value there is nothing to warn about."""


GATES: Final = (
    Gate("vLLM", Answer.HONORED, "on by default; off leaves the transformers runtime only"),
    Gate("disableNodeAutoProvisioning", Answer.HONORED, "the same as --node-api=byo"),
    Gate("Karpenter", Answer.HONORED, "until upstream v0.4.1: claims are NodeClaims, the same as --node-api=nodeclaim"),
    Gate(
        "enableInferenceSetController",
        Answer.ACCEPTED,
        "InferenceSets are not reconciled; the chart switches it on, and Workspaces do not depend on it",
    ),
    Gate(
        "enableMultiRoleInferenceController",
        Answer.ACCEPTED,
        "MultiRoleInferences are not reconciled; Workspaces do not depend on it",
    ),
    Gate(
        "gatewayAPIInferenceExtension",
        Answer.ACCEPTED,
        "it adds inference pools to InferenceSets, which are not reconciled",
    ),
    Gate("enableMIG", Answer.ACCEPTED, "a Workspace that asks for a partition of a GPU is refused with the reason"),
    Gate("enableAccelerator", Answer.ACCEPTED, "a Workspace that asks for a part of a node's GPUs is refused"),
    Gate("ModelMirror", Answer.ACCEPTED, "ModelMirrors are not reconciled; weights are downloaded by each pod"),
    Gate(
        "ModelStreaming",
        Answer.REFUSED,
        "weights would be downloaded from Hugging Face instead of streamed from storage, which clusters that need "
        "streaming may not allow",
    ),
    Gate(
        "enableBaseImageAutoUpgrade",
        Answer.ACCEPTED,
        "it upgrades the images of InferenceSets, which are not reconciled",
    ),
)
"""Every gate of upstream v0.12, and the one of the machine era."""

_NO_STREAMING: Final = "weights are not streamed or mirrored"
_NO_POOLS: Final = "NodePools and their node classes are not used; claims are NodeClaims or Machines"

FLAGS: Final = (
    Flag("--karpenter-node-class-group", Answer.ACCEPTED, _NO_POOLS, "karpenter.azure.com"),
    Flag("--karpenter-node-class-kind", Answer.ACCEPTED, _NO_POOLS, "AKSNodeClass"),
    Flag("--karpenter-node-class-version", Answer.ACCEPTED, _NO_POOLS, "v1beta1"),
    Flag("--karpenter-node-class-resource-name", Answer.ACCEPTED, _NO_POOLS, "aksnodeclasses"),
    Flag("--karpenter-node-classes", Answer.ACCEPTED, _NO_POOLS),
    Flag("--default-model-mirror-storage-class", Answer.ACCEPTED, _NO_STREAMING),
    Flag("--default-streaming-service-account", Answer.ACCEPTED, _NO_STREAMING),
    Flag("--model-mirror-download-cpu", Answer.ACCEPTED, _NO_STREAMING),
    Flag("--model-mirror-download-memory", Answer.ACCEPTED, _NO_STREAMING),
    Flag("--default-model-weights-storage-class", Answer.ACCEPTED, "weights are kept in a volume of the pod"),
    Flag("--zap-log-level", Answer.HONORED, "debug, info, error, panic or a number above 0 for debug: --log-level"),
    Flag("--zap-encoder", Answer.HONORED, "json or console: --log-format"),
    Flag("--zap-devel", Answer.HONORED, "true is --log-format=console and --log-level=debug"),
    Flag("--zap-stacktrace-level", Answer.ACCEPTED, "a stack is logged with every unexpected error"),
    Flag("--zap-time-encoding", Answer.ACCEPTED, "times are ISO 8601 in UTC"),
    Flag("--v", Answer.HONORED, "klog's verbosity: above 0 is --log-level=debug", "0"),
    Flag("--vmodule", Answer.ACCEPTED, "the log level is one for all modules"),
    Flag("--logtostderr", Answer.ACCEPTED, "the log goes to standard error", "true"),
    Flag("--alsologtostderr", Answer.ACCEPTED, "the log goes to standard error", "false"),
    Flag("--stderrthreshold", Answer.ACCEPTED, "the log goes to standard error", "2"),
)
"""Flags of upstream v0.12's binary and chart that this controller has under no name, or under another one."""

GATES_BY_NAME: Final = {gate.name: gate for gate in GATES}

_ZAP_LEVELS: Final = {"debug": "debug", "info": "info", "warn": "warning", "error": "error"} | dict.fromkeys(
    ("dpanic", "panic", "fatal"), "error"
)


def log_level(zap: str) -> str:
    """The level that `--zap-log-level` means here.

    Raises:
        ValueError: it is neither one of zap's levels nor a positive number.
    """
    text = zap.strip().lower()
    if text.isascii() and text.isdigit() and int(text) > 0:
        return "debug"
    if text not in _ZAP_LEVELS:
        raise ValueError(f"--zap-log-level={zap}: use debug, info, error, panic or a number above 0")
    return _ZAP_LEVELS[text]
