"""The cloud's request budgets as claims see them. Faults arm-07, arm-12."""

from typing import TYPE_CHECKING

import pytest

from kaito.cloud.azure.simulator import Fault, named

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


async def test_a_throttled_quota_check_does_not_keep_machines(stage: "Stage") -> None:
    """arm-07: Compute throttled one reading for 1200 s, and the machine of another claim lived 1310 s longer."""
    await stage.start()
    stage.claim("ws1")
    await stage.until_ready("ws1")
    body = {
        "error": {
            "code": "OperationNotAllowed",
            "message": "too many requests have been received for this subscription",
            "details": [{"code": "TooManyRequests", "message": "{}", "target": "GetOperation30Min"}],
        }
    }
    headers = {"Retry-After": "1200"}
    stage.simulator.faults.add(Fault(name="u", method="GET", path="/usages", status=429, headers=headers, body=body))
    await stage.world.advance(60)
    stage.claim("ws2")
    await stage.world.advance(10)
    stage.delete("ws1")
    await stage.until_gone("ws1", within=400)
    await stage.until_ready("ws2", within=900)


async def test_sixty_claims_meet_no_429_and_none_is_told_of_our_own_waiting(stage: "Stage") -> None:
    """arm-12: the cloud's limits hold in the simulator; polls, creations and deletions stay within them."""
    await stage.start()
    names = [f"ws{number}" for number in range(60)]
    said: set[str] = set()
    for name in names:
        stage.claim(name)

    def all_ready() -> bool:
        claims = [stage.get(name) for name in names]
        said.update(condition.reason for claim in claims for condition in claim.status.conditions)
        return all(claim.is_ready for claim in claims)

    await stage.until("all ready", all_ready, within=900, step=20)
    requests = list(stage.simulator.api.requests)
    assert [r for r in requests if r.status == 429] == []
    assert "CloudThrottled" not in said
    assert sum("/operations/" in r.path for r in requests) == 0, "operations are read when a pool ended badly"
    assert sum(r.method == "GET" and r.pool != "" for r in requests) == 0, "pools are listed, not read one by one"
    assert sum(r.method == "PUT" for r in requests) == 60
    for name in names:
        stage.delete(name)
    await stage.until("all gone", lambda: not stage.world.list(stage.kind), within=900, step=20)
    requests = list(stage.simulator.api.requests)
    assert [r for r in requests if r.status == 429] == []
    assert sum(r.method == "DELETE" for r in requests) == 60


@pytest.mark.parametrize("fault", ["status-stuck", "status-stuck-failed"])
async def test_the_pool_counts_and_not_an_operation_that_never_ends(stage: "Stage", fault: str) -> None:
    """An operation that stayed InProgress ended at the launch timeout, the pool was not looked at."""
    stage.simulator.faults.add(named(fault))
    await stage.start()
    stage.claim()
    await stage.until_ready(within=1500)
    assert stage.calls("DELETE") == (fault == "status-stuck-failed")
