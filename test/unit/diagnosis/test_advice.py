"""Every reason has advice, and every line of advice can be formatted."""

import ast
from pathlib import Path

import pytest

from kaito.api import conditions as workspace_conditions
from kaito.api.karpenter import conditions as claim_conditions
from kaito.diagnosis.advice import ADVICE, Names, find_advice, specific_reason
from kaito.diagnosis.result import OWN_REASONS

WITHOUT_CAUSE = {
    "NodesReady",
    "NodeClaimsReady",
    "MachinesReady",
    "ResourcesReady",
    "ModelResolved",
    "WorkspaceInferenceStatusSuccess",
    "WorkspaceSucceeded",
    "AdaptersLoaded",
}
"""Reasons of conditions that are True."""

NAMES = Names(namespace="ns", name="w", object="o")


def declared(module: object) -> set[str]:
    """Returns the values of the constants below the line `reasons` of a module."""
    source = Path(str(getattr(module, "__file__", ""))).read_text().partition("── InferenceSets")[0]
    body = ast.parse(source[source.index("── reasons") - 5 :].partition("\n")[2]).body
    return {
        node.value.value
        for node in body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        if " " not in node.value.value
    }


def test_every_reason_has_advice() -> None:
    reasons = declared(workspace_conditions) | declared(claim_conditions) | OWN_REASONS
    assert len(reasons) > 80
    assert reasons - WITHOUT_CAUSE - set(ADVICE) == set()


def test_every_advice_is_formatted_and_ends_in_something() -> None:
    for reason, advice in ADVICE.items():
        lines = advice.lines(NAMES)
        assert lines or advice.next, reason
        assert advice.next or advice.progress, reason
        assert not any("{" in line for line in lines if "jsonpath" not in line), reason
        assert advice.progress or lines, f"{reason} fails, and the user can do nothing"


@pytest.mark.parametrize(
    ("reason", "message", "specific"),
    [
        ("LaunchFailed", "ErrCode_InsufficientVCPUQuota: exceeding approved quota", "QuotaExceeded"),
        ("LaunchFailed", "OverconstrainedZonalAllocationRequest", "InsufficientCapacity"),
        ("checkNodeClaimStatusFailed", "AuthorizationFailed: no role", "Unauthorized"),
        ("LaunchFailed", "ScopeLocked: the scope is locked", "BlockedByCloud"),
        ("LaunchFailed", "something new", "LaunchFailed"),
        ("ConfigInvalid", "quota: not a key", "ConfigInvalid"),
    ],
)
def test_a_message_of_the_cloud_selects_the_advice(reason: str, message: str, specific: str) -> None:
    assert specific_reason(reason, message) == specific


def test_an_unknown_reason_has_general_advice() -> None:
    advice, lines = find_advice("SomethingOfUpstream", "", NAMES)
    assert lines == ("$ kubectl -n ns describe workspace w",)
    assert not advice.progress
