"""Decides whether the Workspaces of an InferenceSet may be upgraded to the current release of the controller now."""

from datetime import datetime

from kaito.api import InferenceSet
from kaito.api.windows import is_open, next_opening
from kaito.workspace.inference_sets.children import Change


def upgrade_change(inference_set: InferenceSet, now: datetime, *, is_in_progress: bool) -> Change:
    """Returns how an upgrade reaches a Workspace now; `none` if it is not enabled, or waits for its window.

    Args:
        inference_set: the set, whose window is valid.
        now: the current time.
        is_in_progress: whether an additional Workspace exists; a replacement may end after the window.
    """
    upgrade = inference_set.spec.auto_upgrade
    if upgrade is None or not upgrade.enabled:
        return "none"
    window = upgrade.maintenance_window
    is_allowed = window is None or is_open(window, now)
    if upgrade.strategy == "InPlace":
        return "in-place" if is_allowed else "none"
    return "replace" if is_allowed or is_in_progress else "none"


def upgrade_time(inference_set: InferenceSet, now: datetime) -> datetime | None:
    """Returns when the next window opens; None without automatic upgrades, or with one at any time."""
    upgrade = inference_set.spec.auto_upgrade
    if upgrade is None or not upgrade.enabled or upgrade.maintenance_window is None:
        return None
    return next_opening(upgrade.maintenance_window, now)
