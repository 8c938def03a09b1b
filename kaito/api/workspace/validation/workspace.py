"""Rules for the whole Workspace: its name, and inference or tuning."""

import re
from collections.abc import Iterator
from typing import Final

from kaito.api.violation import Violation
from kaito.api.workspace.kind import NAME_LIMIT, Workspace
from kaito.api.workspace.validation.policy import Rule

_DNS_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def name_fits_its_service(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the name is valid for the Service, which has the same name (a DNS-1035 label)."""
    name = workspace.name or (workspace.metadata.generate_name or "")
    if len(name) > NAME_LIMIT:
        length = len(name)
        yield Violation(
            "metadata.name",
            f"{name!r} has {length} characters, its Service and pods allow at most {NAME_LIMIT}: choose a shorter name",
        )
    if workspace.name and not _DNS_1035.fullmatch(name):
        yield Violation(
            "metadata.name",
            f"{name!r} cannot name its Service: begin with a lower-case letter, go on with lower-case letters, digits "
            "and '-', end with a letter or digit",
        )


def inference_or_tuning(workspace: Workspace) -> Iterator[Violation]:
    """Checks that exactly one of inference and tuning is set."""
    if workspace.inference and workspace.tuning:
        yield Violation("tuning", "inference and tuning are both set: remove one, or make a second Workspace")
    if not workspace.inference and not workspace.tuning:
        yield Violation("inference", "neither inference nor tuning is set: set one, for example inference.preset.name")


RULES: Final = (
    Rule.always("name-fits-service", name_fits_its_service),
    Rule.always("inference-or-tuning", inference_or_tuning),
)
