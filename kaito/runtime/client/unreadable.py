"""Treatment of objects that do not fit their model in lists: they are skipped and logged, or the list fails.

Models of built-in kinds accept additions of newer API servers. Models of custom kinds may be strict, and objects that
were written before a rule existed may not fit. One such object must not fail every list of its kind. But reconcilers
create or delete objects depending on a list by `owned_by=` or `index=`: an incomplete result would be wrong, so such a
list fails by default.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Literal

from kaito.runtime.errors import UnreadableObject
from kaito.runtime.logging import get_logger

Unreadable = Literal["skip", "fail"]
"""Skip objects that do not fit their model (`ResourceList.unreadable` contains the errors), or raise the first
error."""

_MAX_KEYS: Final = 4096

_log = get_logger(__name__)
_logged: OrderedDict[str, None] = OrderedDict()


def skips_unreadable(unreadable: Unreadable | None, *, narrow: bool) -> bool:
    """Whether a list skips unreadable objects; by default only if it is not `narrow`."""
    return not narrow if unreadable is None else unreadable == "skip"


def log_skipped(errors: Iterable[UnreadableObject]) -> None:
    """Logs the objects that a list skipped, each version of an object once per process."""
    for error in errors:
        state = f"{error} {error.resource_version}"
        if state in _logged:
            continue
        _logged[state] = None
        if len(_logged) > _MAX_KEYS:
            _logged.popitem(last=False)
        _log.warning("unreadable object skipped in lists", object=error.key, error=str(error))
