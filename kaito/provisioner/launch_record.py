"""Reads and writes the launch record of a claim: an annotation with its failed attempts, as JSON.

The record is written after each failure and read once by every process that becomes the leader, so that a restart keeps
the backoff. Users who may edit claims can edit it: unreadable values are ignored, and times are limited to the longest
retry delay.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.cloud.errors import ErrorCategory
from kaito.provisioner.context import Dependencies, ReconcileContext, parse_time
from kaito.provisioner.failures import PERMANENT_FAILURE_CAP_SECONDS, shorten
from kaito.provisioner.unavailable_offerings import Unavailability
from kaito.runtime.clock import monotonic
from kaito.runtime.meta import format_time

MESSAGE_LIMIT = 300
"""Characters of each cloud message in the record."""
OFFERINGS_LIMIT = 32


def render(ctx: ReconcileContext) -> str | None:
    """Formats the record of the claim's attempts; None if there are none."""
    backoff = ctx.deps.backoff
    attempts = backoff.attempts(ctx.claim.uid)
    unavailable = ctx.deps.unavailable.entries(sorted(attempts.unavailable)[:OFFERINGS_LIMIT])
    if not attempts.failures and not unavailable and not attempts.last_failure:
        return None
    document = {
        "generation": ctx.claim.metadata.generation,
        "failures": attempts.failures,
        "next": _render_time(monotonic() + backoff.remaining_seconds(ctx.claim.uid), ctx.now),
        "last": shorten(attempts.last_failure, MESSAGE_LIMIT),
        "refused": {key: _render_entry(entry, ctx.now) for key, entry in unavailable.items()},
    }
    return json.dumps(document, separators=(",", ":"))


def restore(deps: Dependencies, claim: Claim, now: datetime) -> None:
    """Restores the claim's attempts and unavailable offerings from its record."""
    document = _parse(claim)
    unavailable = document.get("refused")
    keys = set[str]()
    if isinstance(unavailable, Mapping):
        for key, value in list(cast("Mapping[str, object]", unavailable).items())[:OFFERINGS_LIMIT]:
            entry = _parse_entry(value, now)
            if entry is not None:
                keys.add(key)
                deps.unavailable.restore(key, entry)
    failures, next_attempt = _parse_count(document.get("failures")), _parse_limited_time(document.get("next"), now)
    last = document.get("last")
    if failures or keys or last:
        attempts = deps.backoff.attempts(claim.uid)
        attempts.failures, attempts.unavailable = failures, keys
        attempts.last_failure = last if isinstance(last, str) else ""
        attempts.not_before = next_attempt or 0.0


def is_stale(claim: Claim) -> bool:
    """Whether the record belongs to an earlier generation of the spec, so that its backoff does not apply."""
    generation = _parse(claim).get("generation")
    return isinstance(generation, int) and generation != claim.metadata.generation


def _parse(claim: Claim) -> Mapping[str, Any]:
    text = claim.annotations.get(labels.LAUNCH_RECORD, "")
    try:
        document: object = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", document) if isinstance(document, Mapping) else {}


def _render_entry(entry: Unavailability, now: datetime) -> dict[str, Any]:
    return {
        "verdict": entry.category.value,
        "code": entry.code,
        "message": shorten(entry.message, MESSAGE_LIMIT),
        "failures": entry.failures,
        "retry": _render_time(entry.retry_at, now),
        "last": _render_time(entry.deprioritized_until, now),
    }


def _parse_entry(value: object, now: datetime) -> Unavailability | None:
    if not isinstance(value, Mapping):
        return None
    entry = cast("Mapping[str, object]", value)
    retry_at, deprioritized_until = (_parse_limited_time(entry.get(key), now) for key in ("retry", "last"))
    try:
        category = ErrorCategory(str(entry.get("verdict")))
    except ValueError:
        return None
    if retry_at is None or deprioritized_until is None:
        return None
    code, message = str(entry.get("code") or ""), str(entry.get("message") or "")
    failures = max(_parse_count(entry.get("failures")), 1)
    return Unavailability(category, code, message, failures, retry_at, deprioritized_until)


def _render_time(moment: float, now: datetime) -> str:
    return format_time(now + timedelta(seconds=round(moment - monotonic(), 3)))


def _parse_limited_time(value: object, now: datetime) -> float | None:
    """Returns the loop time of a time of the record, limited to the longest retry delay from now."""
    found = parse_time(value) if isinstance(value, str) else None
    return monotonic() + min((found - now).total_seconds(), PERMANENT_FAILURE_CAP_SECONDS) if found else None


def _parse_count(value: object) -> int:
    return min(max(value, 0), 1000) if isinstance(value, int) and not isinstance(value, bool) else 0
