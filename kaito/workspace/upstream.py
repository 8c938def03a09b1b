"""Tables of the feature gates and flags of upstream Kaito v0.12, and how this controller treats each of them.

Upstream's chart must be able to start this controller unchanged. A gate or flag that is not implemented is accepted
with a warning if the conditions of each Workspace stay correct. It is rejected if the controller would start and
silently do something else. `flags.parse` uses the tables, and docs/reference/upstream-flags.md is generated from them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final


class Support(StrEnum):
    """How this controller treats a gate or a flag of upstream."""

    HONORED = "honored"
    """It has the same effect as in upstream."""

    ACCEPTED = "accepted, no effect"
    """The controller starts and logs a warning with the reason."""

    REJECTED = "rejected"
    """The controller does not start."""


@final
@dataclass(frozen=True, slots=True)
class Gate:
    """A feature gate of upstream."""

    name: str
    support: Support
    """Support of the enabled gate; this controller behaves as if the gate were disabled."""
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of upstream that this controller does not have, or has under another name."""

    name: str
    support: Support
    reason: str
    default: str = ""
    """Upstream's default, which is accepted without a warning."""


GATES: Final = (
    Gate("vLLM", Support.HONORED, "enabled by default; if disabled, only the transformers runtime is used"),
    Gate("disableNodeAutoProvisioning", Support.HONORED, "the same as --node-api=byo"),
    Gate(
        "Karpenter", Support.HONORED, "upstream until v0.4.1: claims are NodeClaims, the same as --node-api=nodeclaim"
    ),
    Gate(
        "enableInferenceSetController",
        Support.HONORED,
        "InferenceSets are reconciled, also if it is disabled",
    ),
    Gate(
        "enableMultiRoleInferenceController",
        Support.ACCEPTED,
        "MultiRoleInferences are not reconciled; Workspaces do not depend on it",
    ),
    Gate(
        "gatewayAPIInferenceExtension",
        Support.ACCEPTED,
        "--inference-gateway publishes InferenceSets, without a gate and without Flux",
    ),
    Gate("enableMIG", Support.ACCEPTED, "a MIG slice of existing or new nodes can always be requested"),
    Gate("enableAccelerator", Support.ACCEPTED, "a part of the GPUs of existing nodes can always be requested"),
    Gate("ModelMirror", Support.ACCEPTED, "ModelMirrors are not reconciled; weights are downloaded by each pod"),
    Gate(
        "ModelStreaming",
        Support.REJECTED,
        "weights would be downloaded from Hugging Face instead of streamed from storage, which clusters that need "
        "streaming may not allow",
    ),
    Gate(
        "enableBaseImageAutoUpgrade",
        Support.ACCEPTED,
        "`spec.autoUpgrade` of an InferenceSet enables upgrades, without a gate",
    ),
)
"""Every gate of upstream v0.12, and one of earlier versions."""

_NO_STREAMING: Final = "weights are not streamed or mirrored"

FLAGS: Final = (
    Flag(
        "--karpenter-node-classes",
        Support.ACCEPTED,
        "node classes are not created: create them, and name the default with --karpenter-node-class-name",
    ),
    Flag("--default-model-mirror-storage-class", Support.ACCEPTED, _NO_STREAMING),
    Flag("--default-streaming-service-account", Support.ACCEPTED, _NO_STREAMING),
    Flag("--model-mirror-download-cpu", Support.ACCEPTED, _NO_STREAMING),
    Flag("--model-mirror-download-memory", Support.ACCEPTED, _NO_STREAMING),
    Flag("--default-model-weights-storage-class", Support.ACCEPTED, "weights are kept in a volume of the pod"),
    Flag("--zap-log-level", Support.HONORED, "debug, info, error, panic or a number above 0 for debug: --log-level"),
    Flag("--zap-encoder", Support.HONORED, "json or console: --log-format"),
    Flag("--zap-devel", Support.HONORED, "true is --log-format=console and --log-level=debug"),
    Flag("--zap-stacktrace-level", Support.ACCEPTED, "a stack is logged with every unexpected error"),
    Flag("--zap-time-encoding", Support.ACCEPTED, "times are ISO 8601 in UTC"),
    Flag("--v", Support.HONORED, "klog's verbosity: above 0 is --log-level=debug", "0"),
    Flag("--vmodule", Support.ACCEPTED, "all modules have the same log level"),
    Flag("--logtostderr", Support.ACCEPTED, "the log goes to standard error", "true"),
    Flag("--alsologtostderr", Support.ACCEPTED, "the log goes to standard error", "false"),
    Flag("--stderrthreshold", Support.ACCEPTED, "the log goes to standard error", "2"),
)
"""Flags of upstream v0.12's binary and chart that this controller does not have, or has under another name."""

GATES_BY_NAME: Final = {gate.name: gate for gate in GATES}

_ZAP_LEVELS: Final = {"debug": "debug", "info": "info", "warn": "warning", "error": "error"} | dict.fromkeys(
    ("dpanic", "panic", "fatal"), "error"
)


def log_level(zap: str) -> str:
    """Returns the log level for a value of `--zap-log-level`.

    Raises:
        ValueError: the value is neither a level of zap nor a positive number.
    """
    text = zap.strip().lower()
    if text.isascii() and text.isdigit() and int(text) > 0:
        return "debug"
    if text not in _ZAP_LEVELS:
        raise ValueError(f"--zap-log-level={zap}: use debug, info, error, panic or a number above 0")
    return _ZAP_LEVELS[text]
