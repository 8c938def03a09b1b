"""Rules for fields that an update cannot change, because nodes and workload were created for them."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.preset import PresetSpec
from kaito.api.workspace.validation.policy import TransitionRule

_REMEDY: Final = "cannot be changed: delete the Workspace and create a new one"


def _fixed(field: str, read: Callable[[Workspace], Any]) -> TransitionRule:
    def check(old: Workspace, new: Workspace) -> Iterator[Violation]:
        if read(old) != read(new):
            yield Violation(field, f"{_REMEDY} ({_shown(read(old))} -> {_shown(read(new))})")

    return TransitionRule(f"{field} is immutable", check)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | None) else "…"


def purpose_fixed(old: Workspace, new: Workspace) -> Iterator[Violation]:
    """Checks that inference and tuning are neither added nor removed."""
    for field, before, after in (
        ("inference", old.inference, new.inference),
        ("tuning", old.tuning, new.tuning),
    ):
        if (before is None) != (after is None):
            verb = "added" if before is None else "removed"
            yield Violation(field, f"cannot be {verb} later: delete the Workspace and create a new one")


def instance_type_fixed(old: Workspace, new: Workspace) -> Iterator[Violation]:
    """Checks that a set instance type is not changed. It may be set later, and removed to use existing nodes."""
    before, after = old.resource.instance_type, new.resource.instance_type
    if before and after and before != after:
        yield Violation("resource.instanceType", f"{_REMEDY} ({before!r} -> {after!r})")


def template_not_exchanged(old: Workspace, new: Workspace) -> Iterator[Violation]:
    """Checks that a preset and a pod template are not exchanged. The template itself may change."""
    if old.inference and new.inference and (old.inference.template is None) != (new.inference.template is None):
        yield Violation(
            "inference.template", "cannot be added or removed later: delete the Workspace and create a new one"
        )


def _identity(preset: PresetSpec | None) -> tuple[str, str, str] | None:
    """Returns the immutable fields of a preset. Secrets are not among them: credentials must be replaceable."""
    return (preset.name, preset.access_mode, preset.preset_options.image) if preset else None


def _inference_preset(workspace: Workspace) -> Any:
    return _identity(workspace.inference.preset if workspace.inference else None)


def _tuning_preset(workspace: Workspace) -> Any:
    return _identity(workspace.tuning.preset if workspace.tuning else None)


def _if_both(rule: TransitionRule, applies: Callable[[Workspace], bool]) -> TransitionRule:
    """Restricts a rule to updates where it applies to both states; another rule covers the others."""

    def check(old: Workspace, new: Workspace) -> Iterator[Violation]:
        if applies(old) and applies(new):
            yield from rule.check(old, new)

    return TransitionRule(rule.name, check)


def _serves_preset(workspace: Workspace) -> bool:
    return workspace.inference is not None and workspace.inference.preset is not None


def _tunes(workspace: Workspace) -> bool:
    return workspace.tuning is not None


RULES: Final = (
    TransitionRule("purpose is immutable", purpose_fixed),
    TransitionRule("instance type is immutable once set", instance_type_fixed),
    _fixed("resource.partition", lambda workspace: workspace.resource.partition),
    _fixed("resource.labelSelector", lambda workspace: workspace.resource.label_selector),
    _if_both(_fixed("inference.preset", _inference_preset), _serves_preset),
    TransitionRule("preset and template are not exchanged", template_not_exchanged),
    _if_both(_fixed("tuning.preset", _tuning_preset), _tunes),
    _if_both(_fixed("tuning.method", lambda w: w.tuning.method.lower() if w.tuning else None), _tunes),
    _if_both(_fixed("tuning.input.name", lambda w: w.tuning.input.name if w.tuning else None), _tunes),
)
