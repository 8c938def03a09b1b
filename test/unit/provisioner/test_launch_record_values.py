"""The launch record of a claim, field by field, and what a process reads from an edited one."""

import asyncio
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kaito.api import labels
from kaito.api.karpenter import Claim, NodeClaim
from kaito.cloud.errors import ErrorCategory
from kaito.provisioner import launch_record
from kaito.provisioner.context import Dependencies, ReconcileContext
from kaito.provisioner.launch_attempts import restore_records
from kaito.provisioner.launch_backoff import LaunchBackoff
from kaito.provisioner.settings import ProvisionerSettings
from kaito.provisioner.unavailable_offerings import Unavailability
from kaito.runtime.clock import monotonic
from test.unit.provisioner.conftest import claim_manifest

pytestmark = pytest.mark.virtual_time

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SIZE = "standard_x//on-demand"
ENTRY: dict[str, Any] = {
    "verdict": "capacity",
    "code": "AllocationFailed",
    "message": "none left",
    "failures": 2,
    "retry": "2030-01-01T00:10:00Z",
    "last": "2030-01-01T01:00:00Z",
}
RECORD: dict[str, Any] = {
    "generation": 3,
    "failures": 4,
    "next": "2030-01-01T00:05:00Z",
    "last": "NoCapacity: none left",
    "refused": {SIZE: ENTRY},
}


def dependencies() -> Dependencies:
    return Dependencies(cloud=cast("Any", None), settings=ProvisionerSettings(), kinds=(NodeClaim,))


def claim(record: object = None) -> Claim:
    text = record if isinstance(record, str) else json.dumps(record)
    annotations = {} if record is None else {labels.LAUNCH_RECORD: text}
    return claim_manifest(NodeClaim, uid="uid", generation=3, annotations=annotations)


def rendered(deps: Dependencies) -> str | None:
    return launch_record.render(cast("ReconcileContext", SimpleNamespace(deps=deps, claim=claim(), now=NOW)))


async def test_a_record_is_written_as_it_was_read() -> None:
    deps = dependencies()
    launch_record.restore(deps, claim(RECORD), NOW)
    attempts = deps.backoff.attempts("uid")
    assert (attempts.failures, attempts.last_failure, attempts.unavailable) == (4, "NoCapacity: none left", {SIZE})
    assert deps.backoff.remaining_seconds("uid") == 300
    expected = Unavailability(
        ErrorCategory.CAPACITY, "AllocationFailed", "none left", 2, monotonic() + 600, monotonic() + 3600
    )
    assert deps.unavailable.entries([SIZE]) == {SIZE: expected}
    assert rendered(deps) == json.dumps(RECORD, separators=(",", ":"))


async def test_no_launch_begins_before_the_records_of_all_claims_are_read() -> None:
    """The reconciles of a new leader run concurrently; only one of them reads the records."""
    deps, answered = dependencies(), asyncio.Event()

    async def found(_: type[Claim]) -> list[Claim]:
        await answered.wait()
        return [claim(RECORD)]

    ctx = cast("ReconcileContext", SimpleNamespace(deps=deps, api=SimpleNamespace(list=found), now=NOW))

    async def remaining() -> float:
        await restore_records(ctx)
        return deps.backoff.remaining_seconds("uid")

    async with asyncio.TaskGroup() as group:
        launches = [group.create_task(remaining()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answered.set()
    assert [launch.result() for launch in launches] == [300, 300]


async def test_records_are_read_again_after_a_failure() -> None:
    deps = dependencies()
    answers: list[OSError | list[Claim]] = [OSError("closed"), [claim(RECORD)]]

    async def found(_: type[Claim]) -> list[Claim]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    ctx = cast("ReconcileContext", SimpleNamespace(deps=deps, api=SimpleNamespace(list=found), now=NOW))
    with pytest.raises(OSError, match="closed"):
        await restore_records(ctx)
    await restore_records(ctx)
    await restore_records(ctx)
    assert deps.backoff.remaining_seconds("uid") == 300


async def test_nothing_is_written_without_attempts() -> None:
    deps = dependencies()
    launch_record.restore(deps, claim(), NOW)
    assert rendered(deps) is None
    deps.backoff.attempts("uid").last_failure = "x"
    assert json.loads(rendered(deps) or "")["last"] == "x"


@pytest.mark.parametrize(
    ("changes", "failures", "remaining", "last"),
    [
        ({"failures": -1}, 0, 300, "NoCapacity: none left"),
        ({"failures": 1001}, 1000, 300, "NoCapacity: none left"),
        ({"failures": True}, 0, 300, "NoCapacity: none left"),
        ({"failures": "4"}, 0, 300, "NoCapacity: none left"),
        ({"next": "2029-12-31T23:00:00Z"}, 4, 0, "NoCapacity: none left"),
        ({"next": "2031-01-01T00:00:00Z"}, 4, 4 * 3600, "NoCapacity: none left"),
        ({"next": "tomorrow"}, 4, 0, "NoCapacity: none left"),
        ({"last": 7}, 4, 300, ""),
    ],
)
async def test_values_of_an_edited_record_are_limited(
    changes: dict[str, Any], failures: int, remaining: float, last: str
) -> None:
    deps = dependencies()
    launch_record.restore(deps, claim(RECORD | changes), NOW)
    attempts = deps.backoff.attempts("uid")
    assert (attempts.failures, attempts.last_failure) == (failures, last)
    assert deps.backoff.remaining_seconds("uid") == remaining


@pytest.mark.parametrize(
    "entry",
    [7, {**ENTRY, "verdict": "Unknown"}, {**ENTRY, "retry": None}, {**ENTRY, "last": "x"}],
    ids=["no object", "category", "no retry", "no time"],
)
async def test_an_entry_that_is_not_valid_is_ignored(entry: object) -> None:
    deps = dependencies()
    launch_record.restore(deps, claim(RECORD | {"refused": {SIZE: entry}}), NOW)
    assert deps.unavailable.entries([SIZE]) == {}
    assert deps.backoff.attempts("uid").unavailable == set()


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000], ids=["empty", "cut off", "list", "nested"])
async def test_a_record_that_is_not_an_object_is_ignored(text: str) -> None:
    deps = dependencies()
    launch_record.restore(deps, claim(text), NOW)
    assert not deps.backoff.has_attempts("uid")
    assert not launch_record.is_stale(claim(text))


@pytest.mark.parametrize(("generation", "is_stale"), [(2, True), (3, False), ("2", False), (None, False)])
def test_a_record_of_an_earlier_spec_is_stale(generation: object, *, is_stale: bool) -> None:
    assert launch_record.is_stale(claim(RECORD | {"generation": generation})) is is_stale


async def test_attempts_are_counted_for_each_claim() -> None:
    backoff = LaunchBackoff()
    assert [backoff.record_failure("a") for _ in range(3)] == [1, 2, 3]
    assert [backoff.record_request_failure("b") for _ in range(2)] == [1, 2]
    assert (backoff.has_attempts("a"), backoff.has_attempts("b"), backoff.has_attempts("c")) == (True, False, False)
    backoff.reset_request_failures("b")
    backoff.reset_request_failures("c")
    assert backoff.record_request_failure("b") == 1
    backoff.defer("a", 60)
    await asyncio.sleep(20)
    assert (backoff.remaining_seconds("a"), backoff.remaining_seconds("b")) == (40, 0)
    assert backoff.remaining_seconds("c") == 0
    await asyncio.sleep(60)
    assert backoff.remaining_seconds("a") == 0
    backoff.forget("a")
    assert not backoff.has_attempts("a")
