"""Effects of the cloud's rate limits on claims. Faults arm-07, arm-12."""

from typing import TYPE_CHECKING

import pytest

from kaito.cloud.azure.simulator import Fault, named

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


async def test_throttled_quota_check_does_not_delay_deletions(stage: "Stage") -> None:
    """arm-07: a 429 of Compute with 1200 s delayed the deletion of another claim's instance by 1310 s."""
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


async def test_sixty_claims_stay_within_the_rate_limits(stage: "Stage") -> None:
    """arm-12: polls, creations and deletions stay within the limits of AKS, which the simulator enforces."""
    await stage.start()
    names = [f"ws{number}" for number in range(60)]
    reported: set[str] = set()
    for name in names:
        stage.claim(name)

    def all_ready() -> bool:
        claims = [stage.get(name) for name in names]
        reported.update(condition.reason for claim in claims for condition in claim.status.conditions)
        return all(claim.is_ready for claim in claims)

    await stage.until("all ready", all_ready, within=900, step=20)
    requests = list(stage.simulator.api.requests)
    assert [r for r in requests if r.status == 429] == []
    assert "CloudThrottled" not in reported
    assert sum("/operations/" in r.path for r in requests) == 0, "operations are read only after a pool failed"
    assert sum(r.method == "GET" and r.pool != "" for r in requests) == 0, "pools are listed, not read one by one"
    assert sum(r.method == "PUT" for r in requests) == 60
    for name in names:
        stage.delete(name)
    await stage.until("all gone", lambda: not stage.world.list(stage.kind), within=900, step=20)
    requests = list(stage.simulator.api.requests)
    assert [r for r in requests if r.status == 429] == []
    assert sum(r.method == "DELETE" for r in requests) == 60


@pytest.mark.parametrize("fault", ["status-stuck", "status-stuck-failed"])
async def test_state_of_the_pool_decides_and_not_a_stuck_operation(stage: "Stage", fault: str) -> None:
    """A launch must not wait for an operation that stays InProgress after its pool is ready or failed."""
    stage.simulator.faults.add(named(fault))
    await stage.start()
    stage.claim()
    await stage.until_ready(within=1500)
    assert stage.calls("DELETE") == (fault == "status-stuck-failed")
