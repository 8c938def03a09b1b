"""What a list does with objects that do not fit their model: it leaves them out and reports them, or fails.

Models of built-in kinds accept what a newer API server adds; those of custom kinds may be as strict as their authors
like, and objects written before a rule existed, or by hand, may not fit. One such object must not stop every list of
its kind. But a list that finds the objects *of* something (`owned_by=`, `index=`) decides what is created or deleted
next: an answer that misses one is wrong there, and fails unless the caller wants otherwise.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Literal

from kaito.runtime.errors import UnreadableObject
from kaito.runtime.logging import get_logger

Unreadable = Literal["skip", "fail"]
"""Leave out objects that do not fit their model (`ResourceList.unreadable` names them), or raise the first error."""

_REMEMBERED: Final = 4096

_log = get_logger(__name__)
_logged: OrderedDict[str, None] = OrderedDict()


def skips_unreadable(unreadable: Unreadable | None, *, narrow: bool) -> bool:
    """Whether a list leaves unreadable objects out; by default only if it is not `narrow`."""
    return not narrow if unreadable is None else unreadable == "skip"


def log_skipped(errors: Iterable[UnreadableObject]) -> None:
    """Log what a list left out, each state of an object once a process."""
    for error in errors:
        state = f"{error} {error.resource_version}"
        if state in _logged:
            continue
        _logged[state] = None
        if len(_logged) > _REMEMBERED:
            _logged.popitem(last=False)
        _log.warning("object left out of lists, it cannot be read", object=error.key, error=str(error))
