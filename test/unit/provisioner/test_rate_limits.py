"""Effects of the cloud's rate limits on claims."""

from typing import TYPE_CHECKING

import pytest

from kaito.api.karpenter import Machine, NodeClaim
from kaito.cloud.azure.simulator import Fault, named

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


async def test_throttled_quota_check_does_not_delay_deletions(stage: "Stage") -> None:
    """A 429 of Compute with 1200 s delayed the deletion of another claim's instance by 1310 s."""
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


@pytest.mark.slow("test_throttled_quota_check_does_not_delay_deletions")
@pytest.mark.parametrize("stage", [NodeClaim], indirect=True)
async def test_sixty_claims_stay_within_the_rate_limits(stage: "Stage") -> None:
    """Polls, creations and deletions stay within the limits of AKS, which the simulator enforces.

    Half of the claims are Machines, half NodeClaims: the budget is one for both.
    """
    from test.unit.provisioner.conftest import Stage

    await stage.start()
    machines = Stage(stage.world, Machine, stage.simulator)
    claims = [(stage if number % 2 else machines, f"ws{number}") for number in range(60)]
    reasons: set[str] = set()
    for kind, name in claims:
        kind.claim(name)

    def all_ready() -> bool:
        found = [kind.get(name) for kind, name in claims]
        reasons.update(condition.reason for claim in found for condition in claim.status.conditions)
        return all(claim.is_ready for claim in found)

    await stage.until("all ready", all_ready, within=900, step=20)
    requests = list(stage.simulator.api.requests)
    assert [r for r in requests if r.status == 429] == []
    assert "CloudThrottled" not in reasons
    assert sum("/operations/" in r.path for r in requests) == 0, "operations are read only after a pool failed"
    assert sum(r.method == "GET" and r.pool != "" for r in requests) == 0, "pools are listed, not read one by one"
    assert sum(r.method == "PUT" for r in requests) == 60
    for kind, name in claims:
        kind.delete(name)
    left = (stage, machines)
    await stage.until("all gone", lambda: not any(s.world.list(s.kind) for s in left), within=900, step=20)
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
