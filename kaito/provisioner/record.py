"""The launch record of a claim: an annotation with its failed attempts, so that a restart does not repeat them.

Written after each failure, read once by every process that starts to lead. The annotation can be edited by
users who may edit claims: what cannot be read is ignored, and no time in it lies further ahead than the longest pause.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.cloud.errors import Verdict
from kaito.provisioner.context import Pass, moment
from kaito.provisioner.failures import REFUSED_CAP_SECONDS, shortened
from kaito.provisioner.ledger import Ledger, Refusal
from kaito.runtime.clock import monotonic
from kaito.runtime.meta import format_time

WORDS_LIMIT = 300
"""Characters of the cloud's message that the record keeps of each refusal."""
REFUSALS_LIMIT = 32


def written(run: Pass) -> str | None:
    """The record of the claim as it is now; None when there is nothing to remember."""
    ledger = run.tools.ledger
    attempt = ledger.attempt(run.claim.uid)
    refusals = ledger.refusals(sorted(attempt.refused)[:REFUSALS_LIMIT])
    if not attempt.failures and not refusals and not attempt.last:
        return None
    document = {
        "generation": run.claim.metadata.generation,
        "failures": attempt.failures,
        "next": format_time(run.now + timedelta(seconds=ledger.wait(run.claim.uid))),
        "last": shortened(attempt.last, WORDS_LIMIT),
        "refused": {key: _refusal_document(refusal) for key, refusal in refusals.items()},
    }
    return json.dumps(document, separators=(",", ":"))


def recall(ledger: Ledger, claim: Claim, now: datetime) -> None:
    """Copies the record on a claim into the ledger."""
    document = _document(claim)
    refused = document.get("refused")
    keys = set[str]()
    if isinstance(refused, Mapping):
        for key, value in list(cast("Mapping[str, object]", refused).items())[:REFUSALS_LIMIT]:
            refusal = _refusal(value, now)
            if refusal is not None:
                keys.add(key)
                ledger.recall(key, refusal)
    failures, again = _count(document.get("failures")), _within(document.get("next"), now)
    last = document.get("last")
    if failures or keys or last:
        attempt = ledger.attempt(claim.uid)
        attempt.failures, attempt.refused = failures, keys
        attempt.last = last if isinstance(last, str) else ""
        attempt.not_before = monotonic() + max((again - now).total_seconds(), 0.0) if again else 0.0


def is_of_another_spec(claim: Claim) -> bool:
    """Whether the record is about an earlier version of the claim's spec: its pauses do not apply to this one."""
    document = _document(claim)
    generation = document.get("generation")
    return isinstance(generation, int) and generation != claim.metadata.generation


def _document(claim: Claim) -> Mapping[str, Any]:
    text = claim.annotations.get(labels.LAUNCH_RECORD, "")
    try:
        document: object = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", document) if isinstance(document, Mapping) else {}


def _refusal_document(refusal: Refusal) -> dict[str, Any]:
    return {
        "verdict": refusal.verdict.value,
        "code": refusal.code,
        "message": shortened(refusal.message, WORDS_LIMIT),
        "failures": refusal.failures,
        "retry": format_time(refusal.retry_at),
        "last": format_time(refusal.last_until),
    }


def _refusal(value: object, now: datetime) -> Refusal | None:
    if not isinstance(value, Mapping):
        return None
    entry = cast("Mapping[str, object]", value)
    retry_at, last_until = _within(entry.get("retry"), now), _within(entry.get("last"), now)
    try:
        verdict = Verdict(str(entry.get("verdict")))
    except ValueError:
        return None
    if retry_at is None or last_until is None:
        return None
    code, message = str(entry.get("code") or ""), str(entry.get("message") or "")
    return Refusal(verdict, code, message, max(_count(entry.get("failures")), 1), retry_at, last_until)


def _within(value: object, now: datetime) -> datetime | None:
    """A time of the record, not further ahead than the longest pause."""
    found = moment(value) if isinstance(value, str) else None
    return min(found, now + timedelta(seconds=REFUSED_CAP_SECONDS)) if found is not None else None


def _count(value: object) -> int:
    return min(max(value, 0), 1000) if isinstance(value, int) and not isinstance(value, bool) else 0
